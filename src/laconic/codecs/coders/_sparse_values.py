"""The coder for floats that are mostly zero."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from laconic.codecs import _wire
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs.coders._coder import Coder, Raw
from laconic.codecs.coders._entropy_coder import EntropyCoder
from laconic.errors import DecodeError

_RAW = Raw()
_GAPS = EntropyCoder()


@register
@dataclasses.dataclass(frozen=True)
class SparseValues(Coder):
    """Any array, in fewer bytes where most of its entries are zero.

    How many are not, the gaps between them by `EntropyCoder`, and they themselves, raw; or all entries raw where that
    is smaller. Zero is what has no bit set: a negative zero is kept.
    """

    name: ClassVar[str] = "sparse_values"

    def encode(self, array: np.ndarray, contexts: np.ndarray | None = None) -> Any:
        del contexts
        flat = np.ascontiguousarray(array).reshape(-1)
        positions = np.flatnonzero(flat.view(f"u{flat.itemsize}"))
        if positions.size * flat.itemsize < flat.nbytes:
            gaps = np.diff(positions, prepend=-1) - 1
            coded = bytes(_GAPS.encode(gaps.astype(_gap_spec(positions.size, flat.size).dtype)))
            head = _wire.varint(positions.size + 1) + _wire.varint(len(coded))
            if len(head) + len(coded) + positions.size * flat.itemsize < flat.nbytes:
                return b"".join((head, coded, _RAW.encode(flat[positions])))
        return b"".join((_wire.varint(0), _RAW.encode(flat)))

    def decode(self, data: memoryview, spec: TensorSpec, contexts: np.ndarray | None = None) -> np.ndarray:
        del contexts
        reader = _wire.Reader(data)
        what = f"a {self.name} section of {spec.name or 'the array'}"
        count = reader.varint(what) - 1
        if count < 0:
            return _RAW.decode(reader.take(reader.remaining, what), spec)
        if count > spec.size:
            raise DecodeError(f"{what} holds {count} values, but {spec} has {spec.size}")
        coded = reader.take(reader.varint(what), what)
        # The values are there, so a hostile count has paid for the room that it asks for.
        values = _RAW.decode(reader.take(reader.remaining, what), TensorSpec(spec.name, (count,), spec.dtype))
        gaps = _GAPS.decode(coded, _gap_spec(count, spec.size))
        try:
            array = np.zeros(spec.size, spec.dtype)
        except MemoryError:
            raise DecodeError(f"there is no room for {spec}, {spec.nbytes} bytes") from None
        array[_positions(gaps, spec, what)] = values
        return array.reshape(spec.shape)


def _positions(gaps: np.ndarray, spec: TensorSpec, what: str) -> np.ndarray:
    """Where the values go.

    Raises:
      DecodeError: if that is beyond the array's end.
    """
    # With each gap below 2**48, a sum that wraps around has been beyond the end before.
    if gaps.size and int(gaps.max()) >= spec.size:
        raise DecodeError(f"{what} leaves {gaps.max()} entries out, but {spec} has {spec.size}")
    positions = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if positions.size and not 0 <= int(positions.min()) <= int(positions.max()) < spec.size:
        raise DecodeError(f"{what} goes on beyond the end of {spec}")
    return positions


def _gap_spec(count: int, size: int) -> TensorSpec:
    return TensorSpec("gaps", (count,), np.dtype(np.uint32 if size <= 2**32 else np.uint64))
