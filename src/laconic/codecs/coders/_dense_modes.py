"""The ways to code integers of which not most are zero, and the choice between them."""

import dataclasses
import enum
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from laconic.codecs import _wire
from laconic.codecs._specs import TensorSpec
from laconic.codecs.coders._alphabets import fit_alphabet, has_magnitude
from laconic.codecs.coders._bit_streams import pack, packed_size, unpack
from laconic.codecs.coders._coder import Raw
from laconic.codecs.coders._histograms import MAX_MAGNITUDE, Histogram, histogram
from laconic.codecs.coders._integer_coders import (
    Rice,
    SectionReader,
    best_rice_parameter,
    from_zigzag,
    to_naturals,
    zigzag,
)
from laconic.codecs.coders._rans import RANS, Plan
from laconic.errors import DecodeError

_RICE_MOST = 2**12  # of more integers a table takes less than what Rice codes waste


class Mode(enum.IntEnum):
    """The first byte of a section, which says how the rest is coded."""

    RAW = 0
    FIXED_WIDTH = 1
    RICE = 2
    RANS = 3
    RUN_LENGTH = 4


@dataclasses.dataclass(frozen=True)
class Choice:
    """A mode, the bytes that integers take in it (of rANS a close estimate), and what makes them, in parts."""

    mode: Mode
    nbytes: int
    make: Callable[[], Sequence[Any]]

    def encode(self) -> bytes:
        """The section."""
        return b"".join((bytes([self.mode]), *self.make()))


def choose_dense(values: np.ndarray, contexts: np.ndarray | None = None) -> Choice:
    """The mode that takes least for one or more integers. Of many, sizes follow from one histogram."""
    raw = Choice(Mode.RAW, values.nbytes, lambda: [Raw().encode(values)])
    if not has_magnitude(values):
        return raw
    counted = histogram(values)
    choices = [_fixed_width(values, counted), raw]
    if counted.low == counted.high:
        return min(choices, key=lambda choice: choice.nbytes)
    if values.size <= _RICE_MOST:
        _, bits = best_rice_parameter(to_naturals(values))
        choices.append(Choice(Mode.RICE, 1 + -(-bits // 8), lambda: [Rice().encode(values)]))
    plan = Plan.of(values, contexts, fit_alphabet(counted))
    if values.size <= _RICE_MOST:  # where an estimate's few bytes could tip the balance
        coded = plan.parts()
        choices.append(Choice(Mode.RANS, sum(map(len, coded)), lambda: coded))
    else:
        choices.append(Choice(Mode.RANS, plan.nbytes, plan.parts))
    return min(choices, key=lambda choice: choice.nbytes)


def encode_dense(values: np.ndarray) -> bytes:
    """One or more integers, in the mode that takes least."""
    return choose_dense(values).encode()


def decode_dense(data: memoryview, count: int, dtype: np.dtype, contexts: np.ndarray | None = None) -> np.ndarray:
    """The inverse of `Choice.encode`, in one dimension.

    Raises:
      DecodeError: if the bytes are not one or more integers of this dtype.
    """
    reader = SectionReader(data)
    mode = reader.take(1, "a section's mode")[0]
    spec = TensorSpec("", (count,), dtype)
    match mode:
        case Mode.RAW:
            return Raw().decode(data[1:], spec)
        case Mode.FIXED_WIDTH:
            return _decode_fixed_width(reader, count, dtype)
        case Mode.RICE:
            return Rice().decode(data[1:], spec)
        case Mode.RANS:
            return RANS().decode(data[1:], spec, contexts)
    raise DecodeError(f"a section has the unknown mode {mode}")


def _fixed_width(values: np.ndarray, counted: Histogram) -> Choice:
    """Bits of a number, the smallest as a varint, and what each exceeds it by."""
    bits = (counted.high - counted.low).bit_length()
    head = bytes([bits]) + _wire.varint(zigzag(counted.low))

    def make() -> Sequence[Any]:
        offsets = values - values.dtype.type(counted.low)  # wraps around, to the right one
        return head, pack(offsets.view(f"u{values.itemsize}"), bits).data

    return Choice(Mode.FIXED_WIDTH, len(head) + packed_size(values.size, bits), make)


def _decode_fixed_width(reader: SectionReader, count: int, dtype: np.dtype) -> np.ndarray:
    bits = reader.take(1, "a width in bits")[0]
    low = from_zigzag(reader.varint("a smallest integer"))
    info = np.iinfo(dtype)
    if bits > 62 or not max(info.min, -MAX_MAGNITUDE) <= low <= min(info.max, MAX_MAGNITUDE - 1):
        raise DecodeError(f"integers of {bits} bits above {low} do not fit {dtype}")
    stream = np.frombuffer(reader.take(packed_size(count, bits), "fixed-width integers"), np.uint8)
    reader.finish()
    if not bits:
        return np.full(count, low, dtype)
    offsets = unpack(stream, bits, count)
    if low + 2**bits - 1 > info.max and low + int(offsets.max()) > info.max:
        raise DecodeError(f"a section holds {low + int(offsets.max())}, which does not fit {dtype}")
    return offsets.astype(dtype) + np.array(low).astype(dtype)
