"""The coder of points of E8, given the dither that they were found with."""

import dataclasses
import enum
from typing import ClassVar, NamedTuple, Self

import numpy as np

from laconic.codecs import _wire
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs.coders._entropy_coder import EntropyCoder
from laconic.codecs.coders._integer_coders import IntegerCoder, SectionReader
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError

DIMENSIONS = 8

_FEW = 2**12  # of fewer numbers, both modes are tried
_MOSTLY = 7 / 8  # from this share of zeros on, too


class Mode(enum.IntEnum):
    """The first byte of a section.

    PLAIN: the doubled points as an `entropy` section. BLOCKS: what a point is, given the dither, in three parts.
    """

    PLAIN = 0
    BLOCKS = 1


@register
@dataclasses.dataclass(frozen=True)
class E8Coder(IntegerCoder):
    """Codes points of the lattice E8, doubled, given the dither of `DitheredLattice`.

    Of each block a bit says whether the point is of D8 or of D8 + 1/2. An integer an entry follows, coded given the
    size of the dither's remainder; the entry with the largest comes last, coded given the parity of all others too, and
    without its own, which the lattice fixes. For Gaussian entries this comes within 0.01 bit of all that the dither
    tells.

    Takes arrays of a signed dtype whose n entries are n / 8 blocks: entries j, j + n / 8, ..., j + 7 n / 8 are twice a
    point of E8. Without contexts it gains nothing over `EntropyCoder`.
    """

    name: ClassVar[str] = "e8"
    uses_contexts: ClassVar[bool] = True

    def check(self, spec: TensorSpec) -> None:
        super().check(spec)
        if spec.dtype.kind != "i" or spec.size % DIMENSIONS:
            raise ArgumentTypeError(
                f"{spec.name or 'value'} is {spec}, but the coder {self.name!r} takes points of a lattice, signed "
                "integers in blocks of eight, as DitheredLattice makes them"
            )

    def _encode(self, values: np.ndarray, contexts: np.ndarray | None) -> bytes:
        self.check(TensorSpec("", values.shape, values.dtype))
        points = values.reshape(DIMENSIONS, -1)
        if not _is_lattice(points):
            raise ArgumentError(f"coder {self.name!r} takes points of the lattice E8, doubled; take EntropyCoder")
        sections = []
        limit = _largest(values.dtype)
        if contexts is not None and -limit <= int(values.min()) <= int(values.max()) <= limit:
            sections.append(bytes([Mode.BLOCKS]) + _encode_blocks(points, contexts))
        if not sections or values.size <= _FEW or np.count_nonzero(values) <= values.size * (1 - _MOSTLY):
            sections.append(bytes([Mode.PLAIN]) + bytes(EntropyCoder().encode(values)))
        return min(sections, key=len)

    def _decode(self, data: memoryview, count: int, dtype: np.dtype, contexts: np.ndarray | None) -> np.ndarray:
        if dtype.kind != "i" or count % DIMENSIONS:
            raise DecodeError(f"an e8 section cannot hold {count} {dtype}, which are not blocks of points")
        reader = SectionReader(data)
        mode = reader.take(1, "an e8 section's mode")[0]
        if mode == Mode.PLAIN:
            values = EntropyCoder().decode(data[1:], TensorSpec("", (count,), dtype))
            if not _is_lattice(values.reshape(DIMENSIONS, -1)):
                raise DecodeError("an e8 section holds what is no point of the lattice")
            return values
        if mode != Mode.BLOCKS:
            raise DecodeError(f"an e8 section has the unknown mode {mode}")
        if contexts is None:
            raise DecodeError("an e8 section needs contexts, but the stage above it has none")
        return _decode_blocks(reader, contexts, dtype).reshape(-1)


def _encode_blocks(points: np.ndarray, contexts: np.ndarray) -> bytes:
    given = contexts.reshape(DIMENSIONS, -1)
    halves = (points[0] & 1).astype(np.uint8)
    remainders = Remainders.of(given, halves)
    integers = points >> points.dtype.type(1)
    integers += remainders.rounded
    np.negative(integers, out=integers, where=remainders.is_negative)
    _exchange(integers, remainders.furthest)
    others, last = integers[:-1], integers[-1]
    parity = _parity(others) ^ remainders.parity
    # The last integer's parity is known, so half of it is coded.
    last_contexts = remainders.contexts_of_last(parity)
    parts = (
        bytes(EntropyCoder().encode(halves, _contexts_of_halves(given))),
        bytes(EntropyCoder().encode(others.reshape(-1), remainders.contexts_of_others())),
        bytes(EntropyCoder().encode(last >> last.dtype.type(1), last_contexts)),
    )
    return b"".join((_wire.varint(len(parts[0])), parts[0], _wire.varint(len(parts[1])), *parts[1:]))


def _decode_blocks(reader: SectionReader, contexts: np.ndarray, dtype: np.dtype) -> np.ndarray:
    given = contexts.reshape(DIMENSIONS, -1)
    limit = _largest(dtype) // 2 + 1
    length = reader.varint("the halves of blocks")
    halves = _read(reader.take(length, "the halves of blocks"), 0, 1, np.dtype(np.uint8), _contexts_of_halves(given))
    remainders = Remainders.of(given, halves)
    integers = np.empty(given.shape, dtype)
    length = reader.varint("the integers of blocks")
    coded = reader.take(length, "the integers of blocks")
    others = _read(coded, -limit, limit, dtype, remainders.contexts_of_others())
    integers[:-1] = others.reshape(DIMENSIONS - 1, -1)
    parity = _parity(integers[:-1]) ^ remainders.parity
    coded = reader.take(reader.remaining, "the last integers of blocks")
    last = _read(coded, -(limit // 2) - 1, limit // 2, dtype, remainders.contexts_of_last(parity))
    integers[-1] = 2 * last + parity
    _exchange(integers, remainders.furthest)
    np.negative(integers, out=integers, where=remainders.is_negative)
    integers -= remainders.rounded
    integers <<= dtype.type(1)
    integers |= halves.astype(dtype)
    return integers


def _read(coded: memoryview, low: int, high: int, dtype: np.dtype, contexts: np.ndarray) -> np.ndarray:
    """The numbers of one part, one for each context."""
    numbers = EntropyCoder().decode(coded, TensorSpec("", contexts.shape, dtype), contexts)
    if int(numbers.min()) < low or int(numbers.max()) > high:
        raise DecodeError(f"a part of an e8 section must hold integers from {low} to {high}")
    return numbers


class Remainders(NamedTuple):
    """What the dither and the half of a block say of its integers, each array 8 x blocks or one number a block.

    With c the half and u the dither, x / step is near k + c / 2 + u, k being the integers of the point. Whole numbers
    r are taken out of c / 2 + u, and signs turned, so that |w| <= 1/2 is left, of which the integers' distribution
    depends: small w go with an integer near 0, and at 1/2 there are 0 and -1 that are as likely.

    Attributes:
      rounded: r.
      is_negative: whether the sign turns.
      size: |w|, from 0 to 127 for 0 to 1/2; the entry with the largest is exchanged for the last.
      furthest: which entry that is, of several the first.
      parity: of the sum of r, which is that of the sum of all integers.
    """

    rounded: np.ndarray
    is_negative: np.ndarray
    size: np.ndarray
    furthest: np.ndarray
    parity: np.ndarray

    @classmethod
    def of(cls, contexts: np.ndarray, halves: np.ndarray) -> Self:
        """From the contexts, which part of [-1, 1] the dither is in, and the halves."""
        # In units of 1/256, where the middles of the parts are odd: neither 0 nor 1/2 can be left.
        remainders = 2 * contexts.astype(np.int16) + (128 * halves.astype(np.int16) - 255)
        rounded = (remainders + np.int16(128)) >> np.int16(8)
        remainders -= rounded << np.int16(8)
        size = np.abs(remainders).astype(np.uint8)
        parity = _parity(rounded)
        rounded = rounded.astype(np.int8)
        furthest = np.zeros(size.shape[1], np.uint8)
        largest = size[0].copy()
        for row in range(1, DIMENSIONS):
            furthest[size[row] > largest] = row
            np.maximum(largest, size[row], out=largest)
        _exchange(size, furthest)
        return cls(rounded, remainders < 0, size, furthest, parity)

    def contexts_of_others(self) -> np.ndarray:
        """For all integers but the last, row by row: below 16."""
        return (self.size[:-1] >> np.uint8(3)).reshape(-1)

    def contexts_of_last(self, parity: np.ndarray) -> np.ndarray:
        """For the last integers, given their parities: below 64."""
        contexts: np.ndarray = (self.size[-1] >> np.uint8(2)) | (parity.astype(np.uint8) << np.uint8(5))
        return contexts


def _contexts_of_halves(contexts: np.ndarray) -> np.ndarray:
    """How much nearer the dither is to 0 than to any point of D8 + 1/2: the difference of squares, below 32."""
    distance = np.abs(2 * contexts.astype(np.int16) - np.int16(255))  # 256 |u|
    # Those from the points all whose entries are +-1/2 with the signs of u; if this takes an odd number of negative
    # ones, one sign is wrong.
    is_odd = np.bitwise_xor.reduce(contexts, axis=0) >= 128  # whose highest bits say which are not
    furthest = np.abs(distance - np.int16(128)).max(axis=0)
    difference = 512 - distance.sum(axis=0, dtype=np.int16) + is_odd * (256 - 2 * furthest)
    contexts_of_halves: np.ndarray = np.clip(difference >> np.int16(4), 0, 31).astype(np.uint8)
    return contexts_of_halves


def _exchange(rows: np.ndarray, furthest: np.ndarray) -> None:
    """Exchanges the entry of that number in each column for the last; done twice, it is undone."""
    columns = np.arange(rows.shape[1])
    last = rows[-1].copy()
    rows[-1] = rows[furthest, columns]
    rows[furthest, columns] = last


def _parity(rows: np.ndarray) -> np.ndarray:
    """Of the sum of each column."""
    parity: np.ndarray = np.bitwise_xor.reduce(rows, axis=0) & rows.dtype.type(1)
    return parity


def _is_lattice(points: np.ndarray) -> bool:
    """Whether each column is twice a point of E8: all even or all odd, and the floors of their halves even in sum."""
    odd = points[0] & points.dtype.type(1)
    return not np.any((points ^ odd) & points.dtype.type(1)) and not np.any(_parity(points >> points.dtype.type(1)))


def _largest(dtype: np.dtype) -> int:
    """The largest magnitude of a doubled point's entries in blocks, of which nothing that is computed overflows."""
    return int(2 ** (8 * dtype.itemsize - 2))
