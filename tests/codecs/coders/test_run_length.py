"""Mostly zeros take their entropy, by the zeros' runs and what is between them."""

import hashlib

import hypothesis
import numpy as np
import pytest
from coder_support import (
    assert_round_trip,
    assert_total_when_damaged,
    entropy_bytes,
    integer_arrays,
    many_examples,
    pattern,
    spec_like,
)
from hypothesis import strategies as st

from laconic.codecs import TensorSpec
from laconic.codecs.coders._run_length import RunLength
from laconic.errors import DecodeError

PARAMETERS = 1_663_370


def sparse(size, share, seed=0, dtype=np.int32):
    """+-1 at this share of the places, at random."""
    generator = np.random.default_rng(seed)
    return ((generator.random(size) < share) * generator.choice([-1, 1], size)).astype(dtype)


@many_examples
@hypothesis.given(array=integer_arrays(max_magnitude=2**63))
def test_round_trips(array):
    """Any integers of any magnitude come back, in their dtype and shape."""
    assert_round_trip(RunLength(), array)
    assert_round_trip(RunLength(), array[: array.size // 2 * 2].reshape(2, -1)[:, ::-1])


@pytest.mark.parametrize(("size", "share", "excess"), [(PARAMETERS, 0.005, 0.01), (PARAMETERS, 0.01, 0.01),
                                                       (100_000, 0.005, 0.03), (100_000, 0.05, 0.03)])  # fmt: skip
def test_signs(size, share, excess):
    """Ternary numbers take at most so much more than the entropy of independent ones."""
    values = sparse(size, share, dtype=np.int8)
    assert len(assert_round_trip(RunLength(), values)) <= (1 + excess) * entropy_bytes(values)


def test_one_sign_takes_no_bits():
    """Where all others are equal, only their places cost."""
    values = np.abs(sparse(100_000, 0.01))
    assert len(assert_round_trip(RunLength(), values)) <= 1.03 * entropy_bytes(values)


def test_zeros_that_stand_together():
    """Runs that are not independent take less than the zero-order entropy."""
    values = np.zeros(100_000, np.int16)
    values[40_000:41_000] = 1
    assert len(assert_round_trip(RunLength(), values)) < 40 < entropy_bytes(values) / 20


def test_few_others():
    """All zeros take a byte; one integer among zeros a few."""
    values = np.zeros(10**6, np.int32)
    assert assert_round_trip(RunLength(), values) == b"\0"
    values[-1] = -(2**31)
    assert len(assert_round_trip(RunLength(), values)) <= 15


def test_golden():
    """The bytes do not change."""
    values = np.where(np.arange(60) % 7 == 3, pattern(60, 9), 0).astype(np.int16)
    many = np.where(pattern(5000, 50) > 18, pattern(5000, 3), 0)
    assert bytes(RunLength().encode(values)).hex() == "0906010206fcff03020257f60042360b"
    assert hashlib.sha256(bytes(RunLength().encode(many))).hexdigest()[:16] == "9829e67e6cfd15f9"


@many_examples
@hypothesis.given(array=integer_arrays(max_size=60), data=st.data())
def test_damage(array, data):
    """Damaged bytes, and bytes for another size, give an array or a DecodeError."""
    assert_total_when_damaged(RunLength(), array, data)


def test_rejects():
    """Counts and runs that do not fit the size are named."""
    spec = spec_like(np.zeros(5, np.int8))
    for data, message in [
        (b"\x06", "cannot hold 6 that are not zero"),
        (b"\x00\x00", "1 bytes follow the end"),
        (b"\x01\x03\x01\x00\x0a\x01\x00\x00", "holds a run of 5"),
        (b"\x02\x03\x01\x00\x04\x01\x00\x00", "runs of a run_length section are longer than its 5 integers"),
        (b"\x01\x03\x01\x00\x00\x01\x00\xfe\x01", "holds an integer that does not fit int8"),
        (b"\x01\x01\x04\x01\x00\x00", "unknown mode 4"),
    ]:
        with pytest.raises(DecodeError, match=message):
            RunLength().decode(memoryview(data), spec)
    huge = TensorSpec("", (2**48,), np.dtype(np.int8))
    with pytest.raises(DecodeError, match="truncated"):
        RunLength().decode(memoryview(b"\xff\xff\xff\xff\xff\xff\x1f\x03\x01\x04\x00\x01\x01\x00"), huge)
