"""What the tests of entropy coders share: integers to code, damage to do, and the entropy to compare with."""

import hypothesis
import numpy as np
from codec_support import INTEGERS, few_examples, same_bits
from hypothesis import strategies as st

from laconic.codecs import TensorSpec
from laconic.errors import DecodeError

many_examples = hypothesis.settings(few_examples, max_examples=80)


def spec_like(array):
    """The array's spec, without a name."""
    return TensorSpec("", array.shape, array.dtype)


def assert_round_trip(coder, array, contexts=None):
    """Checks that the coder gives the array back, and returns the bytes."""
    coded = bytes(coder.encode(array, contexts))
    assert same_bits(coder.decode(memoryview(coded), spec_like(array), contexts), array)
    return coded


@st.composite
def integer_arrays(draw, max_magnitude=2**61, dtypes=INTEGERS, max_size=150):
    """Integers of any dtype: narrow or wide, few different ones or many, mostly zeros, with outliers, none at all."""
    dtype = draw(st.sampled_from(dtypes))
    info = np.iinfo(dtype)
    low, high = max(int(info.min), -max_magnitude), min(int(info.max), max_magnitude - 1)
    center = draw(st.integers(low, high)) if draw(st.booleans()) else 0
    width = 2 ** draw(st.integers(0, 62))
    inside = st.integers(max(low, center - width), min(high, center + width))
    usual = st.sampled_from(draw(st.lists(inside, min_size=1, max_size=5))) if draw(st.booleans()) else inside
    elements = st.one_of(usual, usual, st.integers(low, high)) if draw(st.booleans()) else usual
    if draw(st.booleans()):
        elements = st.one_of(*[st.just(0)] * 5, elements)
    return np.array(draw(st.lists(elements, max_size=max_size)), dtype)


@st.composite
def damaged(draw, coded):
    """Bytes that are not quite these, or not at all."""
    kind = draw(st.sampled_from(["cut", "flip", "replace", "grow", "random"]))
    data = bytearray(coded)
    if kind == "random" or not data:
        return draw(st.binary(max_size=60))
    if kind == "cut":
        return bytes(data[: draw(st.integers(0, len(data) - 1))])
    if kind == "grow":
        return bytes(data) + draw(st.binary(min_size=1, max_size=5))
    # The first bytes are headers: most of what can go wrong is there.
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.one_of(st.integers(0, min(12, len(data) - 1)), st.integers(0, len(data) - 1)))
        data[place] = draw(st.integers(0, 255)) if kind == "replace" else data[place] ^ 2 ** draw(st.integers(0, 7))
    return bytes(data)


def assert_total(coder, data, spec, contexts=None):
    """Checks that any bytes give an array of the spec, or a DecodeError."""
    try:
        array = coder.decode(memoryview(data), spec, contexts)
    except DecodeError:
        return
    assert array.shape == spec.shape
    assert array.dtype == spec.dtype


def assert_total_when_damaged(coder, array, data, contexts=None):
    """Checks that damage to the array's bytes, drawn from hypothesis' `data`, gives an array or a DecodeError."""
    damage = data.draw(damaged(bytes(coder.encode(array, contexts))))
    size = data.draw(st.sampled_from([array.size, array.size, 1, array.size + 1, 10**5]))
    given = contexts if size == array.size or contexts is None else np.zeros(size, np.uint8)
    assert_total(coder, damage, TensorSpec("", (size,), array.dtype), given)


def entropy_bytes(values, contexts=None):
    """The n H / 8 bytes that no coder of independent symbols goes below, given each value's context."""
    total = 0.0
    for context in [None] if contexts is None else np.unique(contexts):
        _, counts = np.unique(values if context is None else values[contexts == context], return_counts=True)
        total -= float(np.sum(counts * np.log2(counts / counts.sum())))
    return total / 8


def quantized(size, step, *, laplace=False, dither=None, seed=0):
    """Gaussian or Laplace numbers of variance 1 or 2, rounded to multiples of the step, with a dither or without."""
    generator = np.random.default_rng(seed)
    x = generator.laplace(size=size) if laplace else generator.normal(size=size)
    codes = np.rint(x / step - (0 if dither is None else dither))
    return codes.astype(np.int8 if np.abs(codes).max() < 128 else np.int16)


def pattern(size, scale):
    """Integers near zero, the same with every version of every library: sums of three terms of a linear sequence."""
    i = np.arange(size, dtype=np.uint64)
    noise = [(i * np.uint64(2654435761 + 40503 * j) >> np.uint64(7)) % np.uint64(1009) for j in range(3)]
    return ((sum(part.astype(np.int64) for part in noise) - 1512) * scale) // 1009
