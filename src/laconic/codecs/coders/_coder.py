"""Coders: the leaves of a codec, where arrays become bytes. They run on the host, on NumPy arrays."""

import abc
import dataclasses
from typing import Any, ClassVar

import numpy as np

from laconic.codecs._arguments import check_bits
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs.coders._bit_streams import little_endian, pack, unpack
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError

PACKINGS = ("dense", "tff")

_LIMB_BITS = 28  # a protobuf varint below 2**28 takes four bytes, which is why TFF cut there


class Coder(abc.ABC):
    """One array to bytes and back. Subclass it as a frozen dataclass of Python constants, like a stage.

    Attributes:
      name: the coder's name on the wire.
      uses_contexts: whether `encode` and `decode` want to be told each entry's context, where the stage above has any.
    """

    name: ClassVar[str]
    uses_contexts: ClassVar[bool] = False

    def check(self, spec: TensorSpec) -> None:  # noqa: B027 - raw takes everything
        """Raises ArgumentTypeError if the coder cannot take such an array."""

    @abc.abstractmethod
    def encode(self, array: np.ndarray, contexts: np.ndarray | None = None) -> Any:
        """The array as a bytes-like object.

        Args:
          array: what to code.
          contexts: for a coder that `uses_contexts`, a uint8 array of the array's shape that the decoder has too; None
            if there is none.

        Raises:
          ArgumentError: if a value is outside the coder's alphabet.
        """

    @abc.abstractmethod
    def decode(self, data: memoryview, spec: TensorSpec, contexts: np.ndarray | None = None) -> np.ndarray:
        """The array of this shape and dtype, from exactly the bytes and contexts that `encode` was given.

        Raises:
          DecodeError: for any other bytes. Nothing is allocated before the length is known to fit.
        """

    def size(self, spec: TensorSpec) -> int | None:
        """Bytes that any array of this shape and dtype takes, or None where that depends on its values."""
        del spec
        return None

    def tensor_bits(self, spec: TensorSpec, nbytes: int) -> int:
        """The traffic as TFF's sizing executor counts it, elements x dtype bits of what is moved."""
        del spec
        return 8 * nbytes


@register
@dataclasses.dataclass(frozen=True)
class Raw(Coder):
    """The array's own bytes, little-endian, in C order."""

    name: ClassVar[str] = "raw"

    def encode(self, array: np.ndarray, contexts: np.ndarray | None = None) -> Any:
        del contexts
        # As bytes, since the buffer protocol does not know bfloat16.
        return little_endian(np.ascontiguousarray(array)).reshape(-1).view(np.uint8).data

    def decode(self, data: memoryview, spec: TensorSpec, contexts: np.ndarray | None = None) -> np.ndarray:
        del contexts
        _check_length(data, spec.nbytes, self.name, spec)
        if spec.dtype == np.bool_ and np.any(np.frombuffer(data, np.uint8) > 1):
            raise DecodeError(f"{spec.name or 'array'} holds a truth value that is neither 0 nor 1")
        return little_endian(np.frombuffer(data, np.uint8).view(spec.dtype)).reshape(spec.shape)

    def size(self, spec: TensorSpec) -> int:
        return spec.nbytes

    def tensor_bits(self, spec: TensorSpec, nbytes: int) -> int:
        return spec.size if spec.dtype == np.bool_ else 8 * nbytes


@register
@dataclasses.dataclass(frozen=True)
class FixedWidth(Coder):
    """Whole numbers 0 .. 2**bits - 1, `bits` bits each, in one little-endian bit stream.

    Args:
      bits: width of a number, 1 to 16.
      packing: "dense" stores the stream's ceil(n * bits / 8) bytes. "tff" cuts it into 28-bit limbs, each in an int32,
        ceil(n * bits / 28) of them, exactly as `tensor_encoding`'s BitpackingEncodingStage; 12.5 % of it is unused.
    """

    name: ClassVar[str] = "fixed_width"

    bits: int = 8
    packing: str = "dense"

    def __post_init__(self) -> None:
        check_bits(self.bits)
        if self.packing not in PACKINGS:
            raise ArgumentError(f"packing must be one of {', '.join(map(repr, PACKINGS))}, got {self.packing!r}")

    def check(self, spec: TensorSpec) -> None:
        if spec.dtype.kind not in "ui":
            raise ArgumentTypeError(
                f"{spec.name or 'value'} is {spec}, but fixed-width coding takes integers; quantize floats first, as "
                "in codecs.chain(codecs.UniformQuantizer(bits=8), codecs.FixedWidth(bits=8))"
            )

    def encode(self, array: np.ndarray, contexts: np.ndarray | None = None) -> Any:
        del contexts
        codes = np.ascontiguousarray(array).reshape(-1)
        if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < 2**self.bits:
            raise ArgumentError(
                f"a code of {self.bits} bits must lie in 0..{2**self.bits - 1}, got values from {codes.min()} to "
                f"{codes.max()}; give the coder more bits"
            )
        stream = pack(codes, self.bits)
        return stream.data if self.packing == "dense" else _to_limbs(stream, codes.size * self.bits).data

    def decode(self, data: memoryview, spec: TensorSpec, contexts: np.ndarray | None = None) -> np.ndarray:
        del contexts
        _check_length(data, self.size(spec), self.name, spec)
        stream = np.frombuffer(data, np.uint8)
        if self.packing == "tff":
            stream = _from_limbs(stream, spec.size * self.bits)
        codes = unpack(stream, self.bits, spec.size)
        limit = np.iinfo(spec.dtype).max
        if 2**self.bits > limit + 1 and np.any(codes > limit):
            raise DecodeError(f"a {self.name} section for {spec} holds {codes.max()}, which does not fit it")
        return codes.astype(spec.dtype, copy=False).reshape(spec.shape)

    def size(self, spec: TensorSpec) -> int:
        total_bits = spec.size * self.bits
        return -(-total_bits // 8) if self.packing == "dense" else 4 * -(-total_bits // _LIMB_BITS)


def _to_limbs(stream: np.ndarray, total_bits: int) -> np.ndarray:
    """A bit stream in 28-bit limbs: seven bytes are two limbs."""
    pairs = -(-stream.size // 7)
    padded = np.zeros(pairs * 7, np.uint8)
    padded[: stream.size] = stream
    words = np.zeros((pairs, 8), np.uint8)
    words[:, :7] = padded.reshape(pairs, 7)
    word = words.view("<u8").reshape(-1)
    limbs = np.empty((pairs, 2), "<i4")
    limbs[:, 0] = word & np.uint64(2**_LIMB_BITS - 1)
    limbs[:, 1] = word >> np.uint64(_LIMB_BITS)
    return limbs.reshape(-1)[: -(-total_bits // _LIMB_BITS)].view(np.uint8)


def _from_limbs(data: np.ndarray, total_bits: int) -> np.ndarray:
    """The bytes of the bit stream that `_to_limbs` cut.

    Raises:
      DecodeError: if a limb is not below 2**28, or bits after the end of the stream are not zero.
    """
    limbs = data.view("<u4")
    if np.any(limbs >> _LIMB_BITS):
        raise DecodeError(f"a limb of a tff-packed section is not below 2**{_LIMB_BITS}")
    padded = np.zeros(-(-limbs.size // 2) * 2, np.uint64)
    padded[: limbs.size] = limbs
    words = (padded[0::2] | (padded[1::2] << np.uint64(_LIMB_BITS))).astype("<u8")
    stream = np.ascontiguousarray(words.view(np.uint8).reshape(-1, 8)[:, :7]).reshape(-1)
    length = -(-total_bits // 8)
    if np.any(stream[length:]):
        raise DecodeError("the unused bits at the end of a tff-packed section are not zero")
    return stream[:length]


def _check_length(data: memoryview, expected: int, coder: str, spec: TensorSpec) -> None:
    if len(data) != expected:
        raise DecodeError(f"a {coder} section for {spec} must have {expected} bytes, got {len(data)}")
