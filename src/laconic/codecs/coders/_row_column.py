"""Integers of matrices whose rows and columns differ in scale."""

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from laconic.codecs import _wire
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs.coders import _grouped_runs
from laconic.codecs.coders._alphabets import has_magnitude
from laconic.codecs.coders._entropy_coder import EntropyCoder
from laconic.codecs.coders._histograms import BIT, information_given_rows, log2
from laconic.codecs.coders._integer_coders import AnyIntegers, SectionReader, flat_contexts
from laconic.codecs.coders._rans import MAX_CONTEXTS, RANS
from laconic.errors import DecodeError

_LEVELS_PER_OCTAVE = 2
_GROUPS = 32  # of entries; the lowest is of all that is smaller still
_MOST = 2**16  # what a magnitude counts for at most, so that no sum overflows
_FEWEST = 2**12  # entries for which it may pay
_MOST_BANDS = 16  # of groups, an octave each, beside the contexts of the stage above
_CLASSES = 8  # of magnitudes, by which the saving is estimated
_SAMPLE = 2**15  # entries that the estimate looks at, about
_ENTROPY, _RANS = EntropyCoder(), RANS()
_PLAIN, _GROUPED, _GROUPED_RUNS = b"\0", b"\1", b"\2"
# Zeros among the entries, from which runs are coded: in less than half the time, and a few thousandths more bytes.
_MOSTLY = 4 / 5
_FEWEST_COLUMNS = 64  # and columns, so that what is known of each row takes no more than its entries


@register
@dataclasses.dataclass(frozen=True)
class RowColumn(AnyIntegers):
    """Codes each integer of a matrix by the scale of its row and of its column.

    The matrix has the tensor's last axis as columns. The sums of magnitudes of each row and column travel, in half
    octaves. Their product is what to expect of an entry's magnitude: the half octave in which it lies is the entry's
    context for `RANS`; where most entries are zero, the runs of zeros in each of these groups are coded instead. Rows
    and columns of zeros take nothing more. Of a trained layer, where inputs and units differ
    widely in scale, this saves a tenth to a quarter of the bytes; where it would save nothing, `EntropyCoder` codes all
    entries alike. Where the stage above gives contexts, such as where in its cell a dither lies, each is divided by
    the expected octave. Takes all integers.
    """

    name: ClassVar[str] = "row_column"
    uses_contexts: ClassVar[bool] = True

    def encode(self, array: np.ndarray, contexts: np.ndarray | None = None) -> Any:
        array = np.ascontiguousarray(array)
        contexts = flat_contexts(contexts, array.size)
        if not array.size:
            return b""
        if array.size >= _FEWEST and 1 < array.shape[-1] < array.size:
            magnitudes = _magnitudes(array.reshape(-1, array.shape[-1]))
            wide = np.uint32 if max(magnitudes.shape) < 2**32 // _MOST else np.int64  # narrow ones take half the time
            levels = _levels(magnitudes.sum(axis=1, dtype=wide)), _levels(magnitudes.sum(axis=0, dtype=wide))
            if has_magnitude(array) and _pays(magnitudes, *levels, contexts):
                coded = [_ENTROPY.encode(each) for each in levels]
                head = b"".join(part for each in coded for part in (_wire.varint(len(each)), each))
                if (
                    contexts is None
                    and _allows_runs(array.size, *levels)
                    and np.count_nonzero(array) < (1 - _MOSTLY) * array.size
                ):
                    return b"".join((_GROUPED_RUNS, head, *_grouped_runs.encode(array.reshape(-1), _grid(*levels))))
                return b"".join((_GROUPED, head, _RANS.encode(array, _with_contexts(_groups(*levels), contexts))))
        return _PLAIN + _ENTROPY.encode(array, contexts)

    def decode(self, data: memoryview, spec: TensorSpec, contexts: np.ndarray | None = None) -> np.ndarray:
        contexts = flat_contexts(contexts, spec.size)
        if not spec.size:
            return _ENTROPY.decode(data, spec)
        reader = SectionReader(data)
        mode = reader.take(1, "a section's mode").tobytes()
        if mode == _PLAIN:
            return _ENTROPY.decode(data[1:], spec, contexts)
        if mode not in (_GROUPED, _GROUPED_RUNS) or not spec.shape:
            raise DecodeError(f"a row_column section for {spec} cannot begin with {mode[0]}")
        columns = spec.shape[-1]
        levels = [_decode_levels(reader, size) for size in (spec.size // columns, columns)]
        if mode == _GROUPED_RUNS:
            if contexts is not None or not _allows_runs(spec.size, *levels):
                raise DecodeError(
                    f"a row_column section for {spec} cannot hold runs: it has contexts, or too few rows or columns"
                )
            return _grouped_runs.decode(reader, spec, _grid(*levels)).reshape(spec.shape)
        groups = _with_contexts(_groups(*levels), contexts)
        return _RANS.decode(reader.take(reader.remaining, "a matrix"), spec, groups)


def _magnitudes(values: np.ndarray) -> np.ndarray:
    """Unsigned, since the smallest integer has none of its own dtype; `_MOST` for those above it."""
    magnitudes = np.abs(values).view(f"u{values.itemsize}")
    return magnitudes if values.itemsize <= 2 else np.minimum(magnitudes, _MOST)


def _levels(sums: np.ndarray) -> np.ndarray:
    """Sums in half octaves: 0 for none, 1 for a sum of one (uint8)."""
    octaves = (_LEVELS_PER_OCTAVE * log2(np.maximum(sums, 1)) + BIT // 2) // BIT
    return np.where(sums > 0, 1 + octaves, 0).astype(np.uint8)


def _groups(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Each entry's context, in C order: 0 if its row or column is of zeros, else 1 .. `_GROUPS` (uint8)."""
    return _groups_of(rows[:, None], columns, _top(rows, columns)).reshape(-1)


def _top(rows: np.ndarray, columns: np.ndarray) -> int:
    """What belongs to the highest group."""
    return int(rows.max()) + int(columns.max())


def _groups_of(rows: np.ndarray, columns: np.ndarray, top: int) -> np.ndarray:
    """The same of entries whose row and column have these levels."""
    sums = rows.astype(np.int16) + columns.astype(np.int16)
    groups = np.clip(sums + np.int16(_GROUPS - top), 1, _GROUPS).astype(np.uint8)
    groups *= rows > 0
    groups *= columns > 0
    return groups


def _with_contexts(groups: np.ndarray, contexts: np.ndarray | None) -> np.ndarray:
    """The groups by themselves, or bands of them in each context, as many as there are contexts left (uint8)."""
    if contexts is None:
        return groups
    kinds = int(contexts.max()) + 1
    bands = max(1, min(_MOST_BANDS, MAX_CONTEXTS // kinds))
    lowest = np.int16(_GROUPS + 1 - _LEVELS_PER_OCTAVE * bands)
    band = np.clip((np.arange(_GROUPS + 1, dtype=np.int16) - lowest) // _LEVELS_PER_OCTAVE, 0, bands - 1)
    return (band * kinds).astype(np.uint8)[groups] + contexts


def _grid(rows: np.ndarray, columns: np.ndarray) -> _grouped_runs.Grid:
    """The same groups, by the level of a row instead of the row."""
    levels = np.arange(int(rows.max()) + 1)
    return _grouped_runs.Grid(rows, _groups_of(levels[:, None], columns, _top(rows, columns)))


def _allows_runs(size: int, rows: np.ndarray, columns: np.ndarray) -> bool:
    """Whether tables for each row, and for each level of a row, are small beside the matrix."""
    return columns.size >= _FEWEST_COLUMNS and (int(rows.max()) + 1) * columns.size <= size


def _pays(magnitudes: np.ndarray, rows: np.ndarray, columns: np.ndarray, contexts: np.ndarray | None) -> bool:
    """Whether groups save more than their levels take, about: classes of magnitudes stand for the integers."""
    stride = max(1, magnitudes.size // _SAMPLE)
    while math.gcd(stride, magnitudes.shape[1]) > 1:  # or it would not meet all columns
        stride += 1
    sample = np.arange(0, magnitudes.size, stride)
    classes = np.minimum(magnitudes.reshape(-1)[sample], _CLASSES - 1).astype(np.uint16)
    groups = _groups_of(rows[sample // columns.size], columns[sample % columns.size], _top(rows, columns))
    contexts = None if contexts is None else contexts[sample]

    def bits(of: np.ndarray | None) -> int:
        pairs = classes if of is None else of * np.uint16(_CLASSES) + classes
        counts = np.bincount(pairs)
        by_group = np.append(counts, np.zeros(-len(counts) % _CLASSES, counts.dtype)).reshape(-1, _CLASSES)
        return information_given_rows(by_group)

    saved = bits(contexts) - bits(_with_contexts(groups, contexts))
    return stride * saved > 2 * (rows.size + columns.size) * BIT


def _decode_levels(reader: SectionReader, count: int) -> np.ndarray:
    coded = reader.take(reader.varint("the levels of a matrix"), "the levels of a matrix")
    return _ENTROPY.decode(coded, TensorSpec("", (count,), np.dtype(np.uint8)))
