"""Integers of matrices whose rows and columns differ in scale."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from laconic.codecs import _wire
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs.coders._entropy_coder import EntropyCoder
from laconic.codecs.coders._histograms import BIT, information, log2
from laconic.codecs.coders._integer_coders import AnyIntegers, SectionReader
from laconic.errors import DecodeError

_LEVELS_PER_OCTAVE = 2
_GROUPS = 32  # of entries; the lowest is of all that is smaller still
_MOST = 2**16  # what a magnitude counts for at most, so that no sum overflows
_FEWEST = 2**12  # entries for which it may pay
_CLASSES = 8  # of magnitudes, by which the saving is estimated
_ENTROPY = EntropyCoder()
_PLAIN, _GROUPED = b"\0", b"\1"


@register
@dataclasses.dataclass(frozen=True)
class RowColumn(AnyIntegers):
    """Codes each integer of a matrix by the scale of its row and of its column.

    The matrix has the tensor's last axis as columns. The sums of magnitudes of each row and column travel, in half
    octaves. Their product is what to expect of an entry's magnitude: entries for which it lies in the same half octave
    are coded together, by `EntropyCoder`. Rows and columns of zeros take nothing more. Of a trained layer, where inputs
    and units differ widely in scale, this saves a tenth to a fifth of the bytes; where it would save nothing, all
    entries are coded together. Takes all integers.
    """

    name: ClassVar[str] = "row_column"

    def encode(self, array: np.ndarray, contexts: np.ndarray | None = None) -> Any:
        del contexts
        array = np.ascontiguousarray(array)
        if not array.size:
            return b""
        if array.size >= _FEWEST and 1 < array.shape[-1] < array.size:
            magnitudes = _magnitudes(array.reshape(-1, array.shape[-1]))
            levels = _levels(magnitudes.sum(axis=1, dtype=np.int64)), _levels(magnitudes.sum(axis=0, dtype=np.int64))
            groups = _groups(*levels)
            if _pays(magnitudes.reshape(-1), groups, sum(each.size for each in levels)):
                return b"".join((_GROUPED, *_encode_groups(array.reshape(-1), levels, groups)))
        return _PLAIN + _ENTROPY.encode(array)

    def decode(self, data: memoryview, spec: TensorSpec, contexts: np.ndarray | None = None) -> np.ndarray:
        del contexts
        if not spec.size:
            return _ENTROPY.decode(data, spec)
        reader = SectionReader(data)
        mode = reader.take(1, "a section's mode").tobytes()
        if mode == _PLAIN:
            return _ENTROPY.decode(data[1:], spec)
        if mode != _GROUPED or not spec.shape:
            raise DecodeError(f"a row_column section for {spec} cannot begin with {mode[0]}")
        columns = spec.shape[-1]
        levels = [_decode_part(reader, size, np.dtype(np.uint8)) for size in (spec.size // columns, columns)]
        groups = _groups(*levels)
        values = np.zeros(spec.size, spec.dtype)
        for members in _members(groups):
            values[members] = _decode_part(reader, members.size, spec.dtype)
        reader.finish()
        return values.reshape(spec.shape)


def _magnitudes(values: np.ndarray) -> np.ndarray:
    """Unsigned, since the smallest integer has none of its own dtype; `_MOST` for those above it."""
    magnitudes = np.abs(values).view(f"u{values.itemsize}")
    return magnitudes if values.itemsize <= 2 else np.minimum(magnitudes, _MOST)


def _levels(sums: np.ndarray) -> np.ndarray:
    """Sums in half octaves: 0 for none, 1 for a sum of one (uint8)."""
    octaves = (_LEVELS_PER_OCTAVE * log2(np.maximum(sums, 1)) + BIT // 2) // BIT
    return np.where(sums > 0, 1 + octaves, 0).astype(np.uint8)


def _groups(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """For each entry, in C order, its group: 0 if its row or column is of zeros, else 1 .. `_GROUPS` (uint8)."""
    top = int(rows.max()) + int(columns.max())
    sums = rows.astype(np.int16)[:, None] + columns.astype(np.int16)
    groups = np.clip(sums + np.int16(_GROUPS - top), 1, _GROUPS).astype(np.uint8)
    groups[rows == 0] = 0
    groups[:, columns == 0] = 0
    return groups.reshape(-1)


def _pays(magnitudes: np.ndarray, groups: np.ndarray, num_levels: int) -> bool:
    """Whether coding by groups takes less, about: a few classes of magnitudes stand for the integers."""
    classes = np.minimum(magnitudes, _CLASSES - 1).astype(np.uint16)
    pairs = groups * np.uint16(_CLASSES) + classes
    joint = np.bincount(pairs, minlength=(_GROUPS + 1) * _CLASSES).reshape(-1, _CLASSES)
    saved = information(joint.sum(axis=0)) - sum(information(counts) for counts in joint)
    return saved > 2 * num_levels * BIT


def _members(groups: np.ndarray) -> Iterator[np.ndarray]:
    """The entries of each group that has any but the first, in C order."""
    order = np.argsort(groups, kind="stable")
    counts = np.bincount(groups, minlength=_GROUPS + 1)
    stops = np.cumsum(counts)
    for start, stop in itertools.pairwise(stops):
        if stop > start:
            yield order[start:stop]


def _encode_groups(values: np.ndarray, levels: tuple[np.ndarray, np.ndarray], groups: np.ndarray) -> Iterator[bytes]:
    for part in (*levels, *(values[members] for members in _members(groups))):
        coded = _ENTROPY.encode(part)
        yield _wire.varint(len(coded))
        yield coded


def _decode_part(reader: SectionReader, count: int, dtype: np.dtype) -> np.ndarray:
    coded = reader.take(reader.varint("a part of a matrix"), "a part of a matrix")
    return _ENTROPY.decode(coded, TensorSpec("", (count,), dtype))
