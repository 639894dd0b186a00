"""Matrices are coded by the scales of their rows and columns."""

import hashlib

import hypothesis
import numpy as np
import pytest
from coder_support import assert_round_trip, assert_total, damaged, entropy_bytes, integer_arrays, many_examples
from hypothesis import strategies as st

from laconic import codecs
from laconic.codecs import EntropyCoder, TensorSpec
from laconic.codecs.coders._row_column import RowColumn
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError


def scaled(rows, columns, octaves, seed=0, step=1.0, dtype=np.int32):
    """Rounded Gaussian numbers whose rows and columns differ in scale by so many octaves."""
    generator = np.random.default_rng(seed)
    scales = 2 ** generator.uniform(-octaves, 0, (rows, 1)) * 2 ** generator.uniform(-octaves, 0, columns)
    return np.rint(generator.standard_normal((rows, columns)) * scales / step).astype(dtype)


@many_examples
@hypothesis.given(array=integer_arrays(max_magnitude=2**63))
def test_round_trips(array):
    """Any integers in any shape come back."""
    assert_round_trip(RowColumn(), array)
    assert_round_trip(RowColumn(), array[: array.size // 3 * 3].reshape(-1, 3)[::-1])
    assert_round_trip(RowColumn(), array[: array.size // 4 * 4].reshape(2, -1, 2))


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (1, 5000), (5000, 1), (5000,), (70, 70)])
def test_odd_shapes(shape):
    """Scalars, empty tensors, single rows and columns, all zeros."""
    for dtype in (np.int8, np.uint16, np.int64):
        assert_round_trip(RowColumn(), np.ones(shape, dtype))
        assert_round_trip(RowColumn(), np.zeros(shape, dtype))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint64])
def test_large_matrices(dtype):
    """In groups, the widest numbers of the dtype and rows and columns of zeros among them."""
    info = np.iinfo(dtype)
    matrix = np.maximum(scaled(200, 100, 3, step=0.02), 0 if info.min == 0 else -100).astype(dtype)
    matrix[3], matrix[:, 7] = 0, 0
    assert assert_round_trip(RowColumn(), matrix)[0] == 1
    matrix[5, 5], matrix[6, 6] = info.min, info.max
    assert assert_round_trip(RowColumn(), matrix)[0] == (info.bits < 64)  # wider ones are coded without contexts


@pytest.mark.parametrize("columns", [5, 25])
def test_sees_all_columns_of_tall_matrices(columns):
    """The estimate of what contexts save looks at every column, also where there are few and many rows."""
    scales = np.array([40, *[0.3] * (columns - 1)])
    matrix = np.rint(np.random.default_rng(0).standard_normal((2**17, columns)) * scales).astype(np.int32)
    plain = len(EntropyCoder().encode(matrix))
    assert len(assert_round_trip(RowColumn(), matrix)) < 0.97 * plain


def test_saves_what_scales_tell():
    """Entries take what they would if each one's expected magnitude were known, but for a few percent."""
    matrix = scaled(1000, 500, 4, step=0.05)
    plain = len(EntropyCoder().encode(matrix))
    coded = len(assert_round_trip(RowColumn(), matrix))
    generator = np.random.default_rng(0)
    rows, columns = generator.uniform(-4, 0, (1000, 1)), generator.uniform(-4, 0, 500)
    known = entropy_bytes(matrix.reshape(-1), np.floor(4 * (rows + columns) + 32).astype(np.uint8).reshape(-1))
    assert coded <= 1.04 * known <= 0.85 * plain


def test_takes_no_groups_where_they_save_nothing():
    """Entries of one scale are coded together, for a byte more."""
    matrix = np.random.default_rng(0).poisson(0.3, (300, 200)).astype(np.int16)
    coded = assert_round_trip(RowColumn(), matrix)
    assert coded == b"\0" + EntropyCoder().encode(matrix)


def sparse(dtype=np.int16, shape=(500, 300)):
    """Of each scale a few rows and columns, so that most entries are zero."""
    matrix = scaled(*shape, 4, step=0.7).astype(dtype)
    matrix[7], matrix[:, 9] = 0, 0
    return matrix


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint16])
def test_sparse_matrices(dtype):
    """Where most entries are zero their runs are coded, within a few percent of what scales let expect."""
    matrix = np.abs(sparse(np.int32)).astype(dtype) if np.dtype(dtype).kind == "u" else sparse(dtype)
    assert 0.02 < np.mean(matrix != 0) < 1 / 8
    coded = assert_round_trip(RowColumn(), matrix)
    assert coded[0] == 2
    assert len(coded) < 0.9 * len(EntropyCoder().encode(matrix))
    shaped = assert_round_trip(RowColumn(), matrix.reshape(50, 10, 300))
    assert shaped == coded


def test_sparse_matrices_take_what_scales_let_expect():
    """The runs of zeros cost no more than coding each entry in its context would."""
    generator = np.random.default_rng(1)
    rows, columns = generator.uniform(-4, 0, (1000, 1)), generator.uniform(-4, 0, 500)
    matrix = np.rint(generator.standard_normal((1000, 500)) * 2 ** (rows + columns)).astype(np.int32)
    known = entropy_bytes(matrix.reshape(-1), np.floor(4 * (rows + columns) + 32).astype(np.uint8).reshape(-1))
    coded = assert_round_trip(RowColumn(), matrix)
    assert coded[0] == 2
    assert len(coded) <= 1.04 * known + 1000  # and the levels


@pytest.mark.parametrize("extreme", [-1, 1])
def test_sparse_matrices_of_wide_integers(extreme):
    """The ends of the dtype are integers like others."""
    matrix = sparse(np.int16)
    matrix[3, 4] = np.iinfo(np.int16).max if extreme > 0 else np.iinfo(np.int16).min
    assert assert_round_trip(RowColumn(), matrix)[0] == 2


def test_runs_that_are_too_long_are_refused():
    """Counts above a group's size, and matrices that have no room for runs."""
    coded = bytes(RowColumn().encode(sparse()))
    for shape in ((500, 299), (499, 300), (300, 500), (150000, 1), (1, 150000)):
        with pytest.raises(DecodeError):
            RowColumn().decode(memoryview(coded), TensorSpec("", shape, np.dtype(np.int16)))


@many_examples
@hypothesis.given(data=st.data())
def test_decoding_of_runs_is_total(data):
    """Damaged bytes give an array or a DecodeError."""
    matrix = sparse(np.int16, (100, 80))
    coded = bytes(RowColumn().encode(matrix))
    assert coded[0] == 2
    shape = data.draw(st.sampled_from([(100, 80), (80, 100), (8000,), (1000, 80), (100, 81), (2, 80)]))
    assert_total(RowColumn(), data.draw(damaged(coded)), TensorSpec("", shape, matrix.dtype))


def dithered(rows, columns, octaves, step, seed=0):
    """Numbers of rows and columns of several scales, rounded less a dither, and in which eighth that is."""
    generator = np.random.default_rng(seed)
    scales = 2 ** generator.uniform(-octaves, 0, (rows, 1)) * 2 ** generator.uniform(-octaves, 0, columns)
    dither = generator.uniform(-0.5, 0.5, (rows, columns))
    codes = np.rint(generator.standard_normal((rows, columns)) * scales / step - dither).astype(np.int32)
    return codes, ((dither + 0.5) * 8).astype(np.uint8), scales


@pytest.mark.parametrize("step", [0.02, 0.2, 2.0])
def test_scales_and_contexts_together(step):
    """Where the dither lies and what the scales let expect both tell, within a few percent of all that they could."""
    codes, contexts, scales = dithered(1000, 500, 4, step)
    coded = assert_round_trip(RowColumn(), codes, contexts)
    assert coded[0] == 1
    flat = contexts.reshape(-1)
    assert assert_round_trip(RowColumn(), codes.reshape(50, 20, 500), flat) == coded
    octave = np.clip(np.floor(np.log2(scales / step)) + 8, 0, 30).astype(np.uint8).reshape(-1)
    known = entropy_bytes(codes.reshape(-1), 8 * octave + flat)
    assert len(coded) < 1.06 * known + 2000  # and the levels
    assert len(coded) < 0.9 * len(EntropyCoder().encode(codes, contexts))
    assert step < 0.1 or len(coded) < 0.97 * len(RowColumn().encode(codes))  # dithers tell nothing of large codes


def test_contexts_alone_where_scales_tell_nothing():
    """As `EntropyCoder` codes them, for a byte more."""
    codes, contexts, _ = dithered(300, 200, 0, 1.0)
    assert assert_round_trip(RowColumn(), codes, contexts) == b"\0" + EntropyCoder().encode(codes, contexts)


@many_examples
@hypothesis.given(data=st.data())
def test_any_contexts(data):
    """However many there are, in sections that are small or large, whole or damaged."""
    shape = data.draw(st.sampled_from([(3, 4), (70, 70), (1, 5000), (5000, 1), (40, 128)]))
    kinds = data.draw(st.integers(1, 64))
    codes = np.resize(scaled(70, 70, data.draw(st.integers(0, 4)), step=0.05), shape)
    contexts = np.random.default_rng(kinds).integers(0, kinds, shape).astype(np.uint8)
    coded = assert_round_trip(RowColumn(), codes, contexts)
    assert_total(RowColumn(), data.draw(damaged(coded)), TensorSpec("", shape, codes.dtype), contexts)
    with pytest.raises(ArgumentError, match="contexts must be"):
        RowColumn().encode(codes, contexts[:1, :1])


def test_runs_have_no_contexts():
    """A section of runs is refused where there are some."""
    coded = memoryview(bytes(RowColumn().encode(sparse())))
    with pytest.raises(DecodeError, match="cannot hold runs: it has contexts"):
        RowColumn().decode(coded, TensorSpec("", (500, 300), np.dtype(np.int16)), np.zeros((500, 300), np.uint8))


def test_zero_rows_take_nothing():
    """Of rows of zeros only their level travels."""
    matrix = scaled(400, 100, 2, step=0.1)
    sparse = np.zeros((4000, 100), np.int32)
    sparse[::10] = matrix
    assert len(RowColumn().encode(sparse)) <= len(RowColumn().encode(matrix)) + 400


@many_examples
@hypothesis.given(data=st.data())
def test_decoding_is_total(data):
    """Damaged bytes give an array or a DecodeError."""
    matrix = scaled(70, 70, 3, step=0.05)
    coded = bytes(RowColumn().encode(matrix))
    shape = data.draw(st.sampled_from([(70, 70), (70, 71), (4900,), (1,), (), (0, 5), (1000, 1000)]))
    assert_total(RowColumn(), data.draw(damaged(coded)), TensorSpec("", shape, matrix.dtype))


def test_rejects():
    """Other modes, a group for a scalar, floats, and bytes too many."""
    with pytest.raises(DecodeError, match="cannot begin with 3"):
        RowColumn().decode(memoryview(b"\3"), TensorSpec("", (2, 2), np.dtype(np.int8)))
    with pytest.raises(DecodeError, match="cannot begin with 1"):
        RowColumn().decode(memoryview(b"\1"), TensorSpec("", (), np.dtype(np.int8)))
    coded = bytes(RowColumn().encode(scaled(70, 70, 3, step=0.05)))
    with pytest.raises(DecodeError):
        RowColumn().decode(memoryview(coded + b"\0"), TensorSpec("", (70, 70), np.dtype(np.int32)))
    with pytest.raises(ArgumentTypeError, match="takes integers"):
        codecs.encode(np.zeros((2, 2), np.float32), codecs.chain(codecs.Identity(), RowColumn()), seed=0)


def test_golden():
    """The bytes do not change."""
    matrix = np.outer(np.arange(80) % 9, np.arange(64) % 5).astype(np.int16)
    matrix[::3] *= np.int16(-1)
    coded = assert_round_trip(RowColumn(), matrix)
    assert hashlib.sha256(coded).hexdigest()[:16] == "af7b16cca764e5b4"
    contexts = (np.arange(matrix.size, dtype=np.uint16) * 7 % 8).astype(np.uint8)
    assert hashlib.sha256(assert_round_trip(RowColumn(), matrix, contexts)).hexdigest()[:16] == "60daf59141ec696f"
    assert assert_round_trip(RowColumn(), np.array([[1, -2], [0, 3]], np.int8)).hex() == "000201021a01"
