"""rANS takes the entropy and hardly more, its tables are small, and its bytes are those that the wire format says."""

import hashlib

import hypothesis
import numpy as np
import pytest
from codec_support import few_examples
from coder_support import (
    assert_round_trip,
    assert_total_when_damaged,
    entropy_bytes,
    integer_arrays,
    many_examples,
    pattern,
    quantized,
    spec_like,
)
from hypothesis import strategies as st

from laconic.codecs import TensorSpec
from laconic.codecs.coders._frequency_tables import (
    PRECISION,
    RESERVED,
    Kind,
    best_table,
    frequencies,
    geometric_table,
    read_table,
)
from laconic.codecs.coders._histograms import BIT
from laconic.codecs.coders._integer_coders import SectionReader
from laconic.codecs.coders._rans import RANS, Plan
from laconic.errors import ArgumentError, DecodeError

RATES = {0.05: 100, 0.1: 39.3, 0.25: 11.3, 0.5: 5.3, 1: 2.58, 2: 1.08, 3: 0.522, 4: 0.259, 8: 0.0158}
"""Bits of entropy given eight bins of the dither, and the step at which dithered Gaussian numbers have about these."""


def dithered(size, step, *, laplace=False, contexts=8):
    """Codes of dithered rounding, and the dither's bins."""
    dither = np.random.default_rng(7).random(size) - 0.5
    bins = np.minimum((dither + 0.5) * contexts, contexts - 1).astype(np.uint8)
    return quantized(size, step, laplace=laplace, dither=dither), bins


def contexts_of(array, data):
    """No contexts, one, some, or all 64."""
    number = data.draw(st.sampled_from([None, 1, 3, 64]))
    return (
        None if number is None else np.random.default_rng(array.size).integers(0, number, array.size).astype(np.uint8)
    )


@many_examples
@hypothesis.given(array=integer_arrays(), data=st.data())
def test_round_trips(array, data):
    """Any integers come back, with contexts and without."""
    assert_round_trip(RANS(), array, contexts_of(array, data))
    assert_round_trip(RANS(), array[: array.size // 2 * 2].reshape(2, -1)[:, ::-1])


@pytest.mark.parametrize("laplace", [False, True], ids=["normal", "laplace"])
@pytest.mark.parametrize(("rate", "step"), RATES.items(), ids=str)
def test_overhead_of_100_000(rate, step, laplace):
    """At every rate, the whole section is at most 3 % above the empirical entropy given the contexts, and without."""
    codes, contexts = dithered(100_000, step * (1.3 if laplace else 1), laplace=laplace)
    least = entropy_bytes(codes, contexts)
    assert 0.9 * rate < 8 * least / codes.size < 1.1 * rate
    assert len(assert_round_trip(RANS(), codes, contexts)) <= 1.03 * least
    assert len(RANS().encode(codes)) <= 1.03 * entropy_bytes(codes)


@pytest.mark.parametrize("step", [RATES[0.05], RATES[1], RATES[8]], ids=str)
def test_overhead_of_a_million(step):
    """Where there are a million integers, 1 %."""
    codes, contexts = dithered(2**20, step)
    assert len(assert_round_trip(RANS(), codes, contexts)) <= 1.01 * entropy_bytes(codes, contexts)


def test_contexts_are_used_where_they_help():
    """Contexts that tell nothing cost nothing but their try, and those that tell all leave almost nothing to code."""
    codes = quantized(20_000, 0.3)
    plain = len(RANS().encode(codes))
    noise = np.random.default_rng(1).integers(0, 64, codes.size).astype(np.uint8)
    assert len(assert_round_trip(RANS(), codes, noise)) <= 1.01 * plain
    telling = np.clip(codes + 32, 0, 63).astype(np.uint8)
    assert len(assert_round_trip(RANS(), codes, telling)) < plain / 20
    shuffled = np.random.default_rng(1).permutation(codes.size)
    coarse = np.zeros(codes.size, np.uint8)
    coarse[shuffled[: codes.size // 2]] = 63  # two contexts far apart
    codes[coarse == 63] = 0
    assert len(assert_round_trip(RANS(), codes, coarse)) < 0.95 * entropy_bytes(codes)


def test_few_integers_with_many_contexts():
    """Neighbouring contexts share tables that none could pay for alone."""
    codes, contexts = dithered(1000, RATES[1], contexts=64)
    assert 0 < Plan.of(codes, contexts).context_shift < 6
    assert len(assert_round_trip(RANS(), codes, contexts)) < len(RANS().encode(codes))


def test_outliers_do_not_blow_up_the_table():
    """A huge integer among many small ones costs a few bytes; so do two, at both ends."""
    codes = quantized(10_000, 0.3).astype(np.int64)
    plain = len(RANS().encode(codes))
    codes[5000] = 2**60
    assert len(assert_round_trip(RANS(), codes)) <= plain + 30
    codes[0] = -(2**60)
    assert len(assert_round_trip(RANS(), codes)) <= plain + 50


@pytest.mark.parametrize("scale", [30, 3000, 3e5, 3e8, 3e15])
def test_low_bits_are_stored(scale):
    """Integers of any width take their differential entropy, log2(scale sqrt(2 pi e)) bits each, and 1 % at most."""
    codes = np.rint(np.random.default_rng(3).normal(size=20_000) * scale).astype(np.int64)
    least = 20_000 / 8 * np.log2(scale * np.sqrt(2 * np.pi * np.e))
    assert least * 0.99 < len(assert_round_trip(RANS(), codes)) < least * 1.01


@pytest.mark.parametrize("size", [50, 300])
def test_small_tensors_go_without_a_table(size):
    """Few integers take a geometric distribution, whose cost is a scale and what it differs from the truth."""
    codes = np.rint(np.random.default_rng(size).laplace(size=size) * 20).astype(np.int32)
    coded = assert_round_trip(RANS(), codes)
    assert coded[0] & 3 == Kind.GEOMETRIC
    truth = size / 8 * np.log2(2 * np.e * np.abs(codes).mean())  # the Laplace distribution's differential entropy
    assert len(coded) < truth * 1.05 + 8


def test_plan_knows_its_size():
    """The estimate by which coders are compared is within a few bytes of the truth."""
    for size, step in ((10, 1.0), (100, 0.1), (5000, 2.0), (5000, 0.01), (100_000, 0.3)):
        codes, contexts = dithered(size, step)
        for given in (None, contexts):
            plan = Plan.of(codes, given)
            assert abs(plan.nbytes - len(b"".join(plan.parts()))) <= 8 + plan.nbytes // 1000


# The tables.


@hypothesis.settings(few_examples, max_examples=100)
@hypothesis.given(
    counts=st.integers(1, 12).flatmap(
        lambda width: st.lists(
            st.lists(st.integers(0, 2**20), min_size=width, max_size=width).filter(any), min_size=1, max_size=5
        )
    )
)
def test_tables_come_back(counts):
    """What a table says is what the encoder used, symbols that occur can be coded, and frequencies fill the unit."""
    counts = np.array(counts, np.int64)
    tables = [best_table(counts)]
    if len(counts) == 1 and counts.size > 1:
        tables.append(geometric_table(counts[0]))
    for table, cost in tables:
        shares = frequencies(table.weights)
        assert shares.min() >= 1
        assert (shares.sum(axis=1) == 2**PRECISION - RESERVED).all()
        assert (table.weights[counts > 0] > 0).all() or table.kind == Kind.GEOMETRIC
        written = table.write()
        reader = SectionReader(memoryview(written))
        again = read_table(reader, table.kind, counts.sum(axis=1), counts.shape[1])
        reader.finish()
        np.testing.assert_array_equal(again, table.weights)
        assert 0 <= len(written) - table.bits / 8 < 2
        assert cost >= table.bits * BIT


def test_roots_are_as_precise_as_counts():
    """Coding by the roots of counts costs about half a bit for each symbol."""
    counts = np.random.default_rng(0).poisson(np.exp(np.linspace(0, 12, 200)))[None]
    shares = frequencies(np.rint(np.sqrt(counts)).astype(np.int64) ** 2) / 2**PRECISION
    loss = (counts * np.log2(np.maximum(counts, 1) / counts.sum() / shares)).sum()
    assert 0 < loss < 0.6 * counts.size


# The wire format.


class Slow:
    """Reads a section as the wire format's words say, one step after the other; for tables without escapes."""

    def __init__(self, data):
        self.data, self.place = data, 0

    def take(self, count=1):
        """So many bytes, as a number."""
        self.place += count
        return int.from_bytes(self.data[self.place - count : self.place], "little")

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def packed(self, count, bits):
        if bits > 16:
            low = self.packed(count, 16)
            return [a | b << 16 for a, b in zip(low, self.packed(count, bits - 16), strict=True)]
        stream = self.take(-(-count * bits // 8))
        return [stream >> (i * bits) & (2**bits - 1) for i in range(count)]

    def rice(self, count):
        k = self.take()
        remainders = self.packed(count, k)
        stream, used = int.from_bytes(self.data[self.place :], "little"), 0
        quotients = []
        for _ in range(count):
            zeros = 0
            while not stream >> (used + zeros) & 1:
                zeros += 1
            used += zeros + 1
            assert zeros < 24
            quotients.append(zeros)
        self.place += -(-used // 8)
        return [q << k | r for q, r in zip(quotients, remainders, strict=True)]

    def alphabet(self, flags):
        shift = self.take() if flags & 2 else 0
        base = self.varint()
        return shift, base // 2 if base % 2 == 0 else -1 - base // 2, self.varint() + 1

    def table(self, kind, totals, size):
        if kind == 0:
            center, scale = self.varint(), self.take()
            g, r = [2**36], 2**32 - (31 - scale % 16) * 2 ** (27 - scale // 16)
            for _ in range(size):
                g.append(g[-1] * r // 2**32)
            return [[g[abs(s - center)] for s in range(size)]] * len(totals)
        reference = self.varint() if kind == 3 else None
        per_row = size - (kind == 3)
        numbers = self.rice(per_row * len(totals))
        rows = [numbers[i * per_row : (i + 1) * per_row] for i in range(len(totals))]
        if kind == 2:
            signed = [[-1 - m // 2 if m % 2 else m // 2 for m in row] for row in rows]
            rows = [[sum(row[: i + 1]) for i in range(size)] for row in signed]
        rows = [[root**2 for root in row] for row in rows]
        if reference is not None:
            for row, total in zip(rows, totals, strict=True):
                row.insert(reference, max(0, total - sum(row)))
        return rows

    def symbols(self, tables, totals):
        data = self.data[self.place :]
        words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
        x = words.pop() if words else 0
        x = x << 32 | words.pop() if words else x
        for weights, total in zip(tables, totals, strict=True):
            if sum(w > 0 for w in weights) == 1:
                yield from [weights.index(max(weights))] * total
                continue
            f = [1 + w * (2**24 - 256 - len(weights)) // sum(weights) for w in weights]
            f[weights.index(max(weights))] += 2**24 - 256 - sum(f)
            for _ in range(total):
                z = x % 2**24
                s, start = 0, 256
                while not start <= z < start + f[s]:
                    start += f[s]
                    s += 1
                x = f[s] * (x >> 24) + z - start
                if x < 2**32 and words:
                    x = x << 32 | words.pop()
                yield s
        assert x == 0
        assert not words

    def section(self, count, contexts):
        head = self.take()
        groups = [0] * count if (head >> 2) & 7 == 6 else [c >> ((head >> 2) & 7) for c in contexts]
        shift, base, size = self.alphabet(head >> 5)
        totals = [groups.count(group) for group in sorted(set(groups))]
        tables = self.table(head & 3, totals, size) if size > 1 else [[1]] * len(totals)
        low_bits = self.packed(count, shift)
        order = sorted(range(count), key=lambda i: groups[i])
        values = [0] * count
        for i, symbol in zip(order, self.symbols(tables, totals), strict=True):
            values[i] = (symbol + base) * 2**shift + low_bits[i]
        return values


def test_a_reader_that_follows_the_wire_format():
    """All kinds of tables, with contexts and without, are read by a program written from the specification."""
    seen = set()
    for size, step, dtype in [(1, 1, np.int8), (40, 0.05, np.int32), (400, 2.5, np.int8), (2000, 0.8, np.int16),
                              (2000, 0.004, np.int32), (2000, 0.0002, np.int64), (30, 100, np.int8)]:  # fmt: skip
        dither = np.random.default_rng(1).random(size) - 0.5
        codes = quantized(size, step, dither=dither).astype(dtype)
        for contexts in (None, ((dither + 0.5) * 8).astype(np.uint8)):
            coded = assert_round_trip(RANS(), codes, contexts)
            seen.add((coded[0] & 3, coded[0] >> 2 & 7 != 6))
            assert Slow(coded).section(size, contexts) == codes.tolist()
    assert {kind for kind, _ in seen} == {0, 1, 2, 3}
    assert {uses_contexts for _, uses_contexts in seen} == {False, True}


def test_golden():
    """The bytes do not change."""
    values = pattern(40, 6).astype(np.int8)
    contexts = (np.arange(3000) % 5).astype(np.uint8)
    many = pattern(3000, 30) + 10 * contexts
    many[77] = 10**9
    assert bytes(RANS().encode(values)).hex() == "58020504020b5fffa982f6dd2788507d9e59917568137e3add5700dd02"
    digests = [
        hashlib.sha256(bytes(RANS().encode(array, given))).hexdigest()[:16]
        for array in (many.astype(np.int32), (many // 16).astype(np.int64), many.astype(np.int64) << 20)
        for given in (None, contexts)
    ]
    assert digests == [
        "ca22eee89d7cd23a",
        "6d66199ac162a901",
        "e813109566dc8aa8",
        "e694d34f3d6ac800",
        "c2e655dbd3ada644",
        "c2e655dbd3ada644",
    ]


# What is refused.


def test_what_it_does_not_take():
    """Integers and contexts out of range are named."""
    for wrong in (np.array([0, 2**61]), np.array([-(2**61) - 1]), np.array([2**63], np.uint64)):
        with pytest.raises(ArgumentError, match=r"coder 'rans' takes integers from -2\*\*61 to 2\*\*61 - 1, got"):
            RANS().encode(wrong)
    with pytest.raises(ArgumentError, match="contexts must be below 64, got 64"):
        RANS().encode(np.arange(3), np.array([0, 1, 64], np.uint8))


@many_examples
@hypothesis.given(array=integer_arrays(max_size=40), data=st.data())
def test_damage(array, data):
    """Damaged bytes, and bytes for another size, give an array or a DecodeError."""
    assert_total_when_damaged(RANS(), array, data, contexts_of(array, data))


def test_rejects():
    """What cannot be is named; an announced size makes nothing large that the words could not hold."""
    codes = quantized(200, 0.5)
    coded = bytes(RANS().encode(codes))
    for count in (10**9, 2**38, 2**48):
        with pytest.raises(DecodeError, match=r"cannot hold \d+ integers|holds 2?\d+ integers at most"):
            RANS().decode(memoryview(coded), TensorSpec("", (count,), codes.dtype))
    with pytest.raises(DecodeError, match="a rans section cannot begin with 255"):
        RANS().decode(memoryview(b"\xff" + coded[1:]), spec_like(codes))
    with pytest.raises(DecodeError, match="needs contexts, but the stage above it has none"):
        RANS().decode(memoryview(bytes([coded[0] & 3]) + coded[1:]), spec_like(codes))
    with pytest.raises(DecodeError, match="has more words than its integers need"):
        RANS().decode(memoryview(coded + b"\x01\x02\x03\x04"), TensorSpec("", (2,), codes.dtype))
    with pytest.raises(DecodeError, match="the last byte of rans words is zero"):
        RANS().decode(memoryview(coded + b"\0"), spec_like(codes))
    with pytest.raises(DecodeError, match="is not within int8"):
        RANS().decode(memoryview(RANS().encode(np.array([300, 301]))), spec_like(np.zeros(2, np.int8)))
