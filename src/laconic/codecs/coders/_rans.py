"""Asymmetric numeral systems with static frequencies."""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import constriction
import numpy as np

from laconic.codecs._registry import register
from laconic.codecs.coders._alphabets import FLAG_BITS, Alphabet, Fit, check_magnitude, fit_alphabet
from laconic.codecs.coders._bit_streams import little_endian
from laconic.codecs.coders._frequency_tables import (
    MAX_COUNT,
    PRECISION,
    RESERVED,
    Kind,
    Table,
    best_table,
    frequencies,
    geometric_table,
    read_table,
)
from laconic.codecs.coders._histograms import BIT, histogram, information, information_given_rows
from laconic.codecs.coders._integer_coders import IntegerCoder, SectionReader
from laconic.errors import ArgumentError, DecodeError

MAX_CONTEXTS = 64

_ONE_CONTEXT = MAX_CONTEXTS.bit_length() - 1  # so many bits of shift leave no contexts
_GAIN_OF_CONTEXTS = 1024  # contexts must save this part: grouping integers by them takes half as long as coding them
_SHARE_OF_TABLE = 256  # a table that takes less than this part of all is not worth trying to do without
_WORD_BITS = 32
_LOG2_ERROR = 40  # of what a symbol needs, in units of 1 / BIT, at most


@register
@dataclasses.dataclass(frozen=True)
class RANS(IntegerCoder):
    """Range asymmetric numeral systems (Duda 2013, arXiv:1311.2540), by constriction (Bamler 2022, arXiv:2201.01741).

    Takes n H + o(n) bits, H being the zero-order entropy of the integers, or their conditional entropy given the
    contexts, where these help. The frequencies travel: as a table, or, where that takes less, as the scale of a
    two-sided geometric distribution; a few integers far from all others are coded by themselves, and low bits in which
    there is nothing to gain are stored. Neighbouring contexts share a table where their own would not pay.

    Takes integers from -2**61 to 2**61 - 1, at most 2**38 of them, and contexts below 64.
    """

    name: ClassVar[str] = "rans"
    uses_contexts: ClassVar[bool] = True

    def _encode(self, values: np.ndarray, contexts: np.ndarray | None) -> bytes:
        check_magnitude(values, self.name)
        return b"".join(Plan.of(values, contexts).parts())

    def _decode(self, data: memoryview, count: int, dtype: np.dtype, contexts: np.ndarray | None) -> np.ndarray:
        reader = SectionReader(data)
        head = reader.take(1, "a rans section")[0]
        kind, context_shift, flags = Kind(head & 3), (head >> 2) & 7, head >> 5
        if flags >> FLAG_BITS or context_shift > _ONE_CONTEXT:
            raise DecodeError(f"a rans section cannot begin with {head}")
        alphabet = Alphabet.read(reader, flags, dtype)
        if count > MAX_COUNT:
            raise DecodeError(f"a rans section holds {MAX_COUNT} integers at most, not {count}")
        if context_shift == _ONE_CONTEXT:
            grouped = None
            totals = np.array([count])
        elif contexts is None:
            raise DecodeError("a rans section needs contexts, but the stage above it has none")
        else:
            grouped = contexts >> context_shift
            totals = np.bincount(grouped)
        totals = totals[totals > 0]
        if alphabet.num_symbols == 1:
            weights = np.ones((len(totals), 1), np.int64)
        else:
            weights = read_table(reader, kind, totals, alphabet.num_symbols)
        rest = alphabet.read_rest(reader, count)
        symbols = _decode_symbols(reader.take(reader.remaining, "rans words"), weights, totals)
        if grouped is not None:
            order = np.argsort(grouped, kind="stable")
            ordered, symbols = symbols, np.empty(count, np.int32)
            symbols[order] = ordered
        return alphabet.join(symbols, rest, dtype)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How integers will be coded, and what that will take.

    Attributes:
      alphabet: of the integers.
      symbols: theirs plus one, int32, since the model's symbol 0 is reserved.
      rest: what goes beside the symbols.
      table: of the frequencies.
      contexts: what selects a row of the table, or None.
      context_shift: bits of the contexts that are ignored.
      cost: of symbols and table, in units of 1 / BIT.
    """

    alphabet: Alphabet
    symbols: np.ndarray
    rest: bytes
    table: Table
    contexts: np.ndarray | None
    context_shift: int
    cost: int

    @classmethod
    def of(cls, values: np.ndarray, contexts: np.ndarray | None, fit: Fit | None = None) -> Self:
        """The best plan for one or more integers of small magnitude.

        Args:
          values: in one dimension.
          contexts: a uint8 for each, or None.
          fit: the alphabet and its counts, where they are known.

        Raises:
          ArgumentError: if a context is too large.
        """
        if values.size > MAX_COUNT:
            raise ArgumentError(f"coder 'rans' takes at most {MAX_COUNT} integers, got {values.size}")
        num_contexts = 1 if contexts is None else int(contexts.max()) + 1
        if num_contexts > MAX_CONTEXTS:
            raise ArgumentError(f"contexts must be below {MAX_CONTEXTS}, got {num_contexts - 1}")
        if fit is None:
            fit = fit_alphabet(histogram(values))
        symbols, rest = fit.alphabet.split(values, first=1)
        if len(fit.counts) == 1:
            table = Table(Kind.PLAIN, np.ones((1, 1), np.int64))
            return cls(fit.alphabet, symbols, rest, table, None, _ONE_CONTEXT, 0)
        by_context = None
        if num_contexts > 1:
            assert contexts is not None
            shift, its_table, its_cost = _best_by_context(_joint_counts(symbols, contexts, fit.counts))
            by_context = cls(fit.alphabet, symbols, rest, its_table, contexts, shift, its_cost)
            if by_context._pays_beside(information(fit.counts) - _LOG2_ERROR * values.size):
                return by_context
        table, cost = _best_without_contexts(fit.counts)
        if by_context is not None and by_context._pays_beside(cost):
            return by_context
        return cls(fit.alphabet, symbols, rest, table, None, _ONE_CONTEXT, cost)

    def _pays_beside(self, cost: int) -> bool:
        """Whether contexts save enough of this cost without them."""
        return self.cost + self.cost // _GAIN_OF_CONTEXTS < cost

    @property
    def nbytes(self) -> int:
        """About what the section takes."""
        return 2 + len(self.alphabet.write()) + len(self.rest) + self.cost // (8 * BIT)

    def parts(self) -> tuple[Any, ...]:
        """The section, as bytes-like objects to join."""
        # Of coding bytes with a million symbols, the library takes 3/5, the histogram 1/6 and low bits 1/6; of decoding
        # them, the library takes 9/10, in proportion to the halvings that find a symbol in the alphabet.
        symbols, totals = self.symbols, np.array([self.symbols.size])
        if self.contexts is not None:
            grouped = self.contexts >> self.context_shift
            if not (grouped[1:] >= grouped[:-1]).all():
                symbols = symbols[np.argsort(grouped, kind="stable")]
            totals = np.bincount(grouped)
            totals = totals[totals > 0]
        coder = constriction.stream.stack.AnsCoder()
        for _, model, start, stop in reversed(list(_models(self.table.weights, totals))):
            if model is not None:
                coder.encode_reverse(symbols[start:stop], model)
        words = _without_zeros(little_endian(coder.get_compressed()).view(np.uint8))
        head = self.table.kind | (self.context_shift << 2) | (self.alphabet.flags << 5)
        return bytes([head]), self.alphabet.write(), self.table.write(), self.rest, words


def _without_zeros(data: np.ndarray) -> memoryview:
    """The bytes, but for zeros at the end."""
    size = data.size
    while size and not data[size - 1]:
        size -= 1
    return data[:size].data


def _joint_counts(symbols: np.ndarray, contexts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Counts of symbols, given plus one, by context: contexts x symbols."""
    totals = np.bincount(contexts)
    mode = int(np.argmax(counts))
    if counts[mode] > symbols.size * 7 // 8:  # counting the others takes less
        others = np.flatnonzero(symbols != mode + 1)
        symbols, contexts = symbols[others], contexts[others]
    narrow = np.dtype(np.uint16 if totals.size * counts.size <= 2**16 else np.int32)
    pairs = contexts * narrow.type(counts.size) + (symbols - np.int32(1)).astype(narrow, copy=False)
    joint = np.bincount(pairs, minlength=totals.size * counts.size)
    joint = joint.reshape(totals.size, counts.size)
    joint[:, mode] = totals - (joint.sum(axis=1) - joint[:, mode])
    return joint


def _best_without_contexts(counts: np.ndarray) -> tuple[Table, int]:
    """The table that takes least for symbols that occur so often, and its cost."""
    table, cost = best_table(counts[None])
    if table.bits * BIT <= cost // _SHARE_OF_TABLE:
        return table, cost
    return min((table, cost), geometric_table(counts) or (table, cost), key=lambda choice: choice[1])


def _best_by_context(joint: np.ndarray) -> tuple[int, Table, int]:
    """The shift of the contexts that takes least, with its table and cost."""
    best: tuple[int, Table, int] | None = None
    for shift, counts in _merged(joint):
        # Symbols need more the less is known of them, so what takes more without a table is not made up for later.
        if best is not None and information_given_rows(counts) > best[2] + _LOG2_ERROR * int(joint.sum()):
            break
        table, cost = best_table(counts)
        if best is None or cost < best[2]:
            best = shift, table, cost
    assert best is not None, "there are several contexts"
    return best


def _merged(joint: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Shifts of the contexts that leave several, and the counts by those that occur."""
    shift = 0
    while len(joint) > 1:
        yield shift, joint[joint.any(axis=1)]
        joint = np.concatenate([joint, np.zeros((len(joint) % 2, joint.shape[1]), np.int64)])
        joint = joint.reshape(-1, 2, joint.shape[1]).sum(axis=1)
        shift += 1


def _models(weights: np.ndarray, totals: np.ndarray) -> Iterator[tuple[int, Any, int, int]]:
    """For each context its likeliest symbol, its model, or None if there is only one symbol, and where its symbols are.

    Symbol s is the model's symbol s + 1. The reserved symbol 0 keeps the coder's state, zero at first, from staying
    zero, where symbols would take nothing, however many.
    """
    stops = np.cumsum(totals)
    for row, total, stop, shares in zip(weights, totals, stops, frequencies(weights), strict=True):
        model = None
        if np.count_nonzero(row) > 1:
            # The library gives each symbol one unit and the others by these numbers, whose sum is exactly what there is
            # to give: nothing is rounded, and all versions build the same model.
            probabilities = np.concatenate([[RESERVED], shares]).astype(np.float64) - 1
            model = constriction.stream.model.Categorical(probabilities, perfect=False, lazy=False)
        yield int(row.argmax()), model, int(stop - total), int(stop)


def _decode_symbols(data: memoryview, weights: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """The symbols, int32, context by context."""
    if len(data) and not data[-1]:
        raise DecodeError("the last byte of rans words is zero")
    # A symbol takes at least -log2(1 - x) > x bits, where x is what its likeliest rival leaves to the others.
    shares = frequencies(weights)
    coded = np.count_nonzero(weights, axis=1) > 1
    least = sum(
        int(total) * (2**PRECISION - int(row.max())) for total, row in zip(totals[coded], shares[coded], strict=True)
    )
    if least > (8 * len(data) + 2 * _WORD_BITS) << PRECISION:
        raise DecodeError(f"a rans section of {len(data)} bytes of words cannot hold {totals.sum()} integers")
    words = np.frombuffer(bytes(data) + bytes(-len(data) % 4), "<u4").astype(np.uint32)
    coder = constriction.stream.stack.AnsCoder(words)
    parts = []
    for only, model, start, stop in _models(weights, totals):
        if model is None:
            parts.append(np.full(stop - start, only, np.int32))
        else:
            parts.append(coder.decode(model, stop - start))
            parts[-1] -= 1
            if parts[-1].min() < 0:
                raise DecodeError("a rans section holds the reserved symbol")
    if not coder.is_empty():
        raise DecodeError("a rans section has more words than its integers need")
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
