"""The coder of E8's points: all points come back, bytes are few, and no bytes make anything else."""

import hashlib

import hypothesis
import numpy as np
import pytest
from coder_support import assert_round_trip, damaged, many_examples, spec_like
from hypothesis import strategies as st

from laconic.codecs import TensorSpec
from laconic.codecs.coders._e8_coder import E8Coder, Mode
from laconic.codecs.coders._entropy_coder import EntropyCoder
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError

SIGNED = [np.dtype(f"i{size}") for size in (1, 2, 4, 8)]


def lattice_points(integers, halves):
    """Twice a point of E8 for each column of eight integers, the last of which gives way, and each half."""
    points = 2 * integers + halves
    points[7] += 2 * (integers.sum(axis=0) % 2)
    return points


def assert_lattice(points):
    """Checks that each column is twice a point of E8."""
    points = points.reshape(8, -1).astype(np.int64)
    assert not np.any((points ^ points[0]) & 1)
    assert not np.any((points >> 1).sum(axis=0) & 1)


def quantized_points(num_blocks, step, seed=0):
    """Gaussian numbers over a step less a dither, in whole numbers, roughly to the nearest point; and the contexts."""
    generator = np.random.default_rng(seed)
    u = generator.uniform(-0.6, 0.6, (8, num_blocks))
    y = generator.normal(size=(8, num_blocks)) / step - u
    halves = generator.integers(0, 2, num_blocks)
    points = lattice_points(np.rint(y - halves / 2).astype(np.int64), halves)
    return points.reshape(-1).astype(np.int32), ((u + 1) * 128).astype(np.uint8).reshape(-1)


@st.composite
def points_and_contexts(draw):
    """Points of any signed dtype, few or many, near or far, mostly zero, none; contexts of any kind, or none."""
    dtype = draw(st.sampled_from(SIGNED))
    num_blocks = draw(st.integers(0, 12))
    bits = draw(st.integers(0, 8 * dtype.itemsize - 3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    integers = generator.integers(-(2**bits), 2**bits, (8, num_blocks))
    integers[generator.random(integers.shape) < draw(st.sampled_from([0.0, 0.5, 1.0]))] = 0
    halves = generator.integers(0, 2, num_blocks) * draw(st.integers(0, 1))
    points = lattice_points(integers, halves).reshape(-1)
    contexts = generator.integers(0, 256, points.size).astype(np.uint8) if draw(st.booleans()) else None
    return points.astype(dtype), contexts


@many_examples
@hypothesis.given(points_and_contexts())
def test_round_trips(drawn):
    """All points come back, given the contexts."""
    points, contexts = drawn
    assert_lattice(points)
    assert_round_trip(E8Coder(), points, contexts)


@pytest.mark.parametrize("dtype", SIGNED, ids=str)
def test_edges(dtype):
    """No points take no bytes; the largest points, blocks of zeros and all contexts come back."""
    info = np.iinfo(dtype)
    contexts = np.arange(256, dtype=np.uint8)
    assert assert_round_trip(E8Coder(), np.zeros(0, dtype), contexts[:0]) == b""
    largest = 2 ** (8 * dtype.itemsize - 2)
    for value, mode in [(largest, Mode.BLOCKS), (-largest, Mode.BLOCKS), (info.min, Mode.PLAIN), (1, Mode.BLOCKS)]:
        points = np.full(4096 * 8, value, dtype)
        points[: points.size // 2] = np.array(value).astype(dtype) + (2 if value < 0 else -2)
        assert assert_round_trip(E8Coder(), points, np.resize(contexts, points.size))[0] == mode
        assert_round_trip(E8Coder(), np.full(256, value, dtype), contexts)


def test_zeros_take_little():
    """Points that are mostly zero, and thus not worth their dither, are coded by themselves."""
    contexts = quantized_points(10_000, 1.0)[1]
    points = np.zeros(contexts.size, np.int32)
    assert len(assert_round_trip(E8Coder(), points, contexts)) < 10
    points[[5, 10_005]] = 2
    assert len(assert_round_trip(E8Coder(), points, contexts)) < 30


@pytest.mark.parametrize("num_blocks", [1, 2, 6, 13, 50, 300])
def test_few_blocks(num_blocks):
    """Never more than a byte above the plain integers."""
    points, contexts = quantized_points(num_blocks, 0.4)
    coded = assert_round_trip(E8Coder(), points, contexts)
    assert len(coded) <= len(EntropyCoder().encode(points, contexts >> 5)) + 1


@pytest.mark.parametrize("step", [3.0, 1.0, 0.3, 0.01])
def test_gain(step):
    """A block takes at least 6 bits less than its doubled integers one by one: they say the half eight times."""
    points, contexts = quantized_points(20_000, step)
    coded = assert_round_trip(E8Coder(), points, contexts)
    assert coded[0] == Mode.BLOCKS
    assert 8 * (len(EntropyCoder().encode(points, contexts >> 2)) - len(coded)) > 6 * 20_000


def test_without_contexts():
    """Points whose dither nobody tells are coded as they are; then nothing else decodes."""
    points, contexts = quantized_points(500, 0.3)
    coded = assert_round_trip(E8Coder(), points)
    assert coded == bytes([Mode.PLAIN]) + bytes(EntropyCoder().encode(points))
    assert_round_trip(E8Coder(), points.reshape(8, -1))
    with pytest.raises(DecodeError, match="an e8 section needs contexts, but the stage above it has none"):
        E8Coder().decode(memoryview(E8Coder().encode(points, contexts)), spec_like(points))


def slow_decode(data, contexts, dtype):
    """What the wire format's words say of mode 1, one column after the other, but for the `entropy` sections."""

    def varint(place):
        value = shift = 0
        while True:
            value |= (data[place] & 127) << shift
            place, shift = place + 1, shift + 7
            if data[place - 1] < 128:
                return value, place

    def entropy(part, dtype, given):
        given = np.array(given, np.uint8)
        return EntropyCoder().decode(memoryview(part), TensorSpec("", given.shape, dtype), given).tolist()

    assert data[0] == 1
    g = contexts.reshape(8, -1).tolist()
    m = len(g[0])
    columns = range(m)
    given = []
    for j in columns:
        d = [abs(2 * row[j] - 255) for row in g]
        o = sum(row[j] < 128 for row in g) % 2
        given.append(min(31, max(0, (512 - sum(d) + o * (256 - 2 * max(abs(each - 128) for each in d))) // 16)))
    length, place = varint(1)
    c = entropy(data[place : place + length], np.dtype(np.uint8), given)
    v = [[2 * row[j] - 255 + 128 * c[j] for j in columns] for row in g]
    r = [[(each + 128) // 256 for each in row] for row in v]
    w = [[v[i][j] - 256 * r[i][j] for j in columns] for i in range(8)]
    # Which entry is at each place after the exchange.
    order = [list(range(8)) for _ in columns]
    for j in columns:
        sizes = [abs(w[i][j]) for i in range(8)]
        first = sizes.index(max(sizes))
        order[j][first], order[j][7] = 7, first
    length, place = varint(place + length)
    given = [abs(w[order[j][i]][j]) // 8 for i in range(7) for j in columns]
    k = entropy(data[place : place + length], dtype, given)
    q = [(sum(row[j] for row in r) + sum(k[i * m + j] for i in range(7))) % 2 for j in columns]
    h = entropy(data[place + length :], dtype, [abs(w[order[j][7]][j]) // 4 + 32 * q[j] for j in columns])
    k += [2 * h[j] + q[j] for j in columns]
    points = np.zeros((8, m), np.int64)
    for j in columns:
        for i in range(8):
            at, integer = order[j][i], k[i * m + j]
            integer = integer if w[at][j] > 0 else -integer
            points[at, j] = 2 * (integer - r[at][j]) + c[j]
    return points.reshape(-1)


@pytest.mark.parametrize("step", [8.0, 1.0, 0.1])
def test_a_reader_that_follows_the_wire_format(step):
    """A program written from the specification reads the same points."""
    points, contexts = quantized_points(800, step)
    coded = assert_round_trip(E8Coder(), points, contexts)
    np.testing.assert_array_equal(slow_decode(coded, contexts, points.dtype), points)


def test_golden():
    """The bytes do not change."""
    generator = np.arange(8 * 700, dtype=np.int64)
    integers = ((generator * 2654435761 >> 7) % 1009 * ((generator * 40503 >> 5) % 997) >> 18).reshape(8, -1) - 1
    halves = np.arange(700) * 7 // 3 % 2
    points = lattice_points(integers, halves).reshape(-1).astype(np.int32)
    contexts = ((generator * 48271 >> 3) % 256).astype(np.uint8)
    coded = [assert_round_trip(E8Coder(), part, contexts[: part.size]) for part in (points, points[:16] // 4 * 4)]
    assert [hashlib.sha256(each).hexdigest()[:16] for each in coded] == ["eba777ce4cdac260", "8a2660cbb51923e2"]


# What is refused.


def test_what_it_does_not_take():
    """What is no point is refused, and dtypes and sizes that hold none."""
    points, contexts = quantized_points(20, 0.5)
    for change in ([1, 0], [2, 0], [1, 1]):
        wrong = points.copy()
        wrong[[3, 9]] += np.int32(change)
        for given in (contexts, None):
            with pytest.raises(ArgumentError, match="coder 'e8' takes points of the lattice E8, doubled"):
                E8Coder().encode(wrong, given)
    for wrong in (points.astype(np.uint32), points[:12], points.astype(np.float32)):
        with pytest.raises(ArgumentTypeError, match="the coder 'e8' takes"):
            E8Coder().check(TensorSpec("w", wrong.shape, wrong.dtype))


@many_examples
@hypothesis.given(drawn=points_and_contexts(), data=st.data())
def test_damage(drawn, data):
    """Damaged bytes, and bytes for another size, give points of the lattice or a DecodeError."""
    points, contexts = drawn
    damage = data.draw(damaged(bytes(E8Coder().encode(points, contexts))))
    size = data.draw(st.sampled_from([points.size, points.size, 8, points.size + 1, points.size + 8, 80_000]))
    given = None if contexts is None else np.resize(np.append(contexts, np.uint8(3)), size)
    try:
        decoded = E8Coder().decode(memoryview(damage), TensorSpec("", (size,), points.dtype), given)
    except DecodeError:
        return
    assert decoded.shape == (size,)
    assert decoded.dtype == points.dtype
    assert_lattice(decoded)


def test_rejects():
    """What cannot be is named."""
    points, contexts = quantized_points(100, 0.5)
    coded = bytes(E8Coder().encode(points, contexts))
    spec = spec_like(points)

    def assert_rejects(data, message, spec=spec):
        given = np.resize(contexts, spec.size)
        with pytest.raises(DecodeError, match=message):
            E8Coder().decode(memoryview(data), spec, given)

    def plain(values):
        return bytes(EntropyCoder().encode(values))

    halves, others, last = (
        plain(np.zeros(100, np.uint8)),
        plain(np.zeros(700, np.int32)),
        plain(np.zeros(100, np.int32)),
    )
    assert_rejects(b"", "an e8 section's mode needs 1 bytes")
    assert_rejects(b"\2" + coded[1:], "an e8 section has the unknown mode 2")
    assert_rejects(b"\0" + plain(points + 1 - 2 * (np.arange(800) < 9)), "holds what is no point of the lattice")
    assert_rejects(coded, "cannot hold 12 int32", TensorSpec("", (12,), points.dtype))
    assert_rejects(coded, "cannot hold 800 uint32", TensorSpec("", (800,), np.dtype(np.uint32)))
    for parts, message in [
        ((plain(np.full(100, 2, np.uint8)), others, last), "must hold integers from 0 to 1"),
        ((halves, plain(np.full(700, 2**29 + 2, np.int32)), last), "must hold integers from -536870913 to 536870913"),
        ((halves, others, plain(np.full(100, 2**28 + 1, np.int32))), "must hold integers from -268435457 to 268435456"),
        ((halves, others, plain(np.full(99, 7, np.int32))[:2]), "truncated"),
    ]:
        data = b"\1" + b"".join(bytes([len(part)]) + part for part in parts[:2]) + parts[2]
        assert_rejects(data, message)
