"""Universal codes for integers without any table: Elias gamma and Rice."""

import abc
import dataclasses
from typing import Any, ClassVar

import numpy as np

from laconic.codecs import _wire
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs.coders._bit_streams import BitReader, bits_to_bytes, pack, packed_size, planes, unary, unpack
from laconic.codecs.coders._coder import Coder
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError

MAX_RICE_PARAMETER = 63

_LONGEST_UNARY = 24  # a quotient from here on escapes to an Elias gamma code
_SAMPLE = 2**14  # how many numbers the choice of a Rice parameter looks at
_SMALL = 2**10  # numbers times parameters, which are tried faster than chosen from
_FEW = 48  # numbers, of which a loop is faster than arrays


class SectionReader(_wire.Reader):
    """Reads the parts of a section, from untrusted bytes."""

    def rice(self, count: int, parameter: int) -> np.ndarray:
        """The next numbers, in Rice codes."""
        numbers, length = read_rice(self._data[self.position :], count, parameter)
        self.take(length, "Rice codes")
        return numbers

    def finish(self) -> None:
        """Raises unless everything was read."""
        check_end(self.position, self._data, "coded")


class AnyIntegers(Coder):
    """A coder that takes integers of any width, in tensors of any shape."""

    def check(self, spec: TensorSpec) -> None:
        if spec.dtype.kind not in "ui":
            raise ArgumentTypeError(
                f"{spec.name or 'value'} is {spec}, but the coder {self.name!r} takes integers; quantize floats first, "
                "as in codecs.chain(codecs.UniformQuantizer(bits=8), coder)"
            )


class IntegerCoder(AnyIntegers):
    """A coder that takes integers of any width, whatever the shape of the tensor."""

    def encode(self, array: np.ndarray, contexts: np.ndarray | None = None) -> Any:
        values = np.ascontiguousarray(array).reshape(-1)
        return self._encode(values, flat_contexts(contexts, values.size)) if values.size else b""

    def decode(self, data: memoryview, spec: TensorSpec, contexts: np.ndarray | None = None) -> np.ndarray:
        if spec.size:
            return self._decode(data, spec.size, spec.dtype, flat_contexts(contexts, spec.size)).reshape(spec.shape)
        if len(data):
            raise DecodeError(f"a {self.name} section for {spec} must have 0 bytes, got {len(data)}")
        return np.zeros(spec.shape, spec.dtype)

    @abc.abstractmethod
    def _encode(self, values: np.ndarray, contexts: np.ndarray | None) -> bytes:
        """The bytes of one or more values."""

    @abc.abstractmethod
    def _decode(self, data: memoryview, count: int, dtype: np.dtype, contexts: np.ndarray | None) -> np.ndarray:
        """The values, one or more."""


@register
@dataclasses.dataclass(frozen=True)
class EliasGamma(IntegerCoder):
    """Elias's gamma code (1975, "Universal codeword sets and representations of the integers").

    2 floor(log2(m + 1)) + 1 bits for a number m >= 0; signed dtypes are zig-zag coded first (0, -1, 1, -2 ... become
    0, 1, 2, 3 ...). Takes any integer but the one whose m + 1 has 65 bits.
    """

    name: ClassVar[str] = "elias_gamma"

    def _encode(self, values: np.ndarray, contexts: np.ndarray | None) -> bytes:
        del contexts
        return bits_to_bytes(*gamma_bits(to_naturals(values)))

    def _decode(self, data: memoryview, count: int, dtype: np.dtype, contexts: np.ndarray | None) -> np.ndarray:
        del contexts
        reader = BitReader(data, "Elias gamma codes")
        numbers = read_gamma(reader, count)
        check_end(reader.finish(), data, self.name)
        return from_naturals(numbers, dtype)


@register
@dataclasses.dataclass(frozen=True)
class Rice(IntegerCoder):
    """Rice's code, Golomb's (1966, "Run-length encodings") for the divisor 2**parameter.

    floor(m / 2**parameter) + 1 + parameter bits for a number m >= 0, which suits geometric distributions of a mean near
    2**parameter; signed dtypes are zig-zag coded first. A quotient of 24 or more goes on in an Elias gamma code, so
    that an outlier costs no more than 152 bits.

    Args:
      parameter: 0 to 63. None takes the best for the data, which travels in a byte.
    """

    name: ClassVar[str] = "rice"

    parameter: int | None = None

    def __post_init__(self) -> None:
        if self.parameter is None:
            return
        if isinstance(self.parameter, bool) or not isinstance(self.parameter, int):
            raise ArgumentTypeError(f"parameter must be a whole number or None, got {self.parameter!r}")
        if not 0 <= self.parameter <= MAX_RICE_PARAMETER:
            raise ArgumentError(f"parameter must lie in 0..{MAX_RICE_PARAMETER}, got {self.parameter}")

    def _encode(self, values: np.ndarray, contexts: np.ndarray | None) -> bytes:
        del contexts
        numbers = to_naturals(values)
        if self.parameter is not None:
            return write_rice(numbers, self.parameter)
        parameter, _ = best_rice_parameter(numbers)
        return bytes([parameter]) + write_rice(numbers, parameter)

    def _decode(self, data: memoryview, count: int, dtype: np.dtype, contexts: np.ndarray | None) -> np.ndarray:
        del contexts
        parameter = self.parameter
        if parameter is None:
            if not len(data):
                raise DecodeError("a rice section is empty")
            parameter, data = data[0], data[1:]
        numbers, length = read_rice(data, count, parameter)
        check_end(length, data, self.name)
        return from_naturals(numbers, dtype)


def flat_contexts(contexts: np.ndarray | None, size: int) -> np.ndarray | None:
    """Contexts in one dimension, if there are any.

    Raises:
      ArgumentError: if there are not as many as integers, or of another dtype.
    """
    if contexts is None:
        return None
    if contexts.dtype != np.uint8 or contexts.size != size:
        raise ArgumentError(
            f"contexts must be {size} uint8, one for each integer, got {contexts.size} {contexts.dtype}"
        )
    return np.ascontiguousarray(contexts).reshape(-1)


def check_end(length: int, data: memoryview, coder: str) -> None:
    """Raises DecodeError unless the data have this length."""
    if length != len(data):
        raise DecodeError(f"{len(data) - length} bytes follow the end of a {coder} section")


def to_naturals(values: np.ndarray) -> np.ndarray:
    """Unsigned numbers of the same width: 0, -1, 1, -2, 2 ... become 0, 1, 2, 3, 4 ...; unsigned ones stay."""
    if values.dtype.kind == "u":
        return values
    sign = values >> values.dtype.type(8 * values.itemsize - 1)
    return ((values << values.dtype.type(1)) ^ sign).view(f"u{values.itemsize}")


def from_naturals(numbers: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The inverse of `to_naturals`.

    Raises:
      DecodeError: if a number does not fit the dtype.
    """
    unsigned = np.dtype(f"u{dtype.itemsize}")
    largest = int(numbers.max(initial=0))
    if largest > np.iinfo(unsigned).max:
        raise DecodeError(f"a section of {dtype} holds the number {largest}, which does not fit it")
    numbers = numbers.astype(unsigned, copy=False)
    if dtype.kind == "u":
        return numbers
    one = unsigned.type(1)
    return ((numbers >> one) ^ (~(numbers & one) + one)).view(dtype)


def zigzag(value: int) -> int:
    """What `to_naturals` makes of a signed number."""
    return 2 * value if value >= 0 else -1 - 2 * value


def from_zigzag(natural: int) -> int:
    """The inverse of `zigzag`."""
    return -1 - (natural >> 1) if natural % 2 else natural >> 1


def gamma_bits(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two parts, as bits one a byte, of the gamma codes of numbers >= 0: all lengths, then all remaining bits.

    Raises:
      ArgumentError: if a number is 2**64 - 1.
    """
    if int(numbers.max(initial=0)) == 2**64 - 1:
        raise ArgumentError(
            "Elias gamma codes numbers up to 2**64 - 2; take another coder for this tensor, such as Raw"
        )
    numbers = numbers.astype(np.uint32 if numbers.itemsize < 4 else np.uint64) + 1
    widths = floor_log2(numbers)
    return unary(widths), planes(numbers, widths)


def gamma_sizes(numbers: np.ndarray) -> np.ndarray:
    """Bits of the gamma codes of numbers >= 0, below 2**64 - 1."""
    return 2 * floor_log2(numbers + numbers.dtype.type(1)) + 1


def read_gamma(reader: BitReader, count: int) -> np.ndarray:
    """What `gamma_bits` wrote, as uint64."""
    widths = reader.unary(count, 63)
    return (reader.planes(widths) | (np.uint64(1) << widths.astype(np.uint64))) - np.uint64(1)


def floor_log2(numbers: np.ndarray) -> np.ndarray:
    """Of unsigned numbers >= 1."""
    if numbers.itemsize < 8:
        return np.frexp(numbers.astype(np.float64))[1] - 1
    # A float64 does not hold 64 bits: 2**64 - 1 would be rounded up.
    high = numbers >> np.uint64(32)
    parts = np.where(high, high, numbers & np.uint64(2**32 - 1))
    return np.frexp(parts.astype(np.float64))[1] - 1 + np.int32(32) * (high > 0)


def best_rice_parameter(numbers: np.ndarray) -> tuple[int, int]:
    """The parameter that takes the fewest bits, for a sample of the numbers where there are many, and these bits."""
    if numbers.size <= _FEW:
        return _best_of_few(numbers.tolist())
    sample = numbers[:: -(-numbers.size // _SAMPLE)]
    size = sample.size
    num_parameters = int(sample.max()).bit_length() or 1
    if num_parameters * size > _SMALL:
        # With the parameter p a number takes p + 1 bits at least, so only those below another one's bits can be better.
        near = min(int(sample.sum(dtype=np.float64) / size).bit_length(), num_parameters - 1)
        num_parameters = min(num_parameters, int(_rice_bits(sample, near, near + 1)[0]) // size)
    bits = _rice_bits(sample, 0, num_parameters)
    best = int(np.argmin(bits))
    return best, int(bits[best]) * numbers.size // size


def _best_of_few(numbers: list[int]) -> tuple[int, int]:
    """The same for few numbers, of which arrays take longer than a loop."""
    best, least = 0, -1
    for parameter in range(max(numbers, default=0).bit_length() or 1):
        bits = len(numbers) * (parameter + 1)
        if 0 <= least <= bits:  # and more with larger ones
            break
        for number in numbers:
            quotient = number >> parameter
            if quotient < _LONGEST_UNARY:
                bits += quotient
            else:
                bits += _LONGEST_UNARY + 2 * (quotient - _LONGEST_UNARY + 1).bit_length() - 1
        if least < 0 or bits < least:
            best, least = parameter, bits
    return best, least


def _rice_bits(numbers: np.ndarray, first: int, stop: int) -> np.ndarray:
    """Bits of the Rice codes of unsigned numbers with each of these parameters, int64."""
    parameters = np.arange(first, stop)
    quotients = numbers >> parameters.astype(numbers.dtype)[:, None]
    escaped = quotients >= _LONGEST_UNARY
    bits: np.ndarray = numbers.size * (parameters + 1)
    if not escaped.any():
        return bits + quotients.sum(axis=1, dtype=np.int64)
    bits += np.minimum(quotients, _LONGEST_UNARY).sum(axis=1, dtype=np.int64)
    rows, columns = np.nonzero(escaped)
    beyond = quotients[rows, columns].astype(np.uint64) - np.uint64(_LONGEST_UNARY - 1)
    return bits + np.bincount(rows, 2 * floor_log2(beyond) + 1, parameters.size).astype(np.int64)


def write_rice(numbers: np.ndarray, parameter: int) -> bytes:
    """Rice codes of numbers >= 0: all remainders in one fixed-width stream, then all quotients in unary."""
    if parameter >= 8 * numbers.itemsize:
        numbers = numbers.astype(np.uint64)
    quotients = numbers >> numbers.dtype.type(parameter)
    remainders = numbers & numbers.dtype.type(2**parameter - 1)
    escaped = quotients[quotients >= _LONGEST_UNARY]
    parts = [unary(np.minimum(quotients, _LONGEST_UNARY))]
    if escaped.size:
        parts += gamma_bits(escaped - escaped.dtype.type(_LONGEST_UNARY))
    return pack(remainders, parameter).tobytes() + bits_to_bytes(*parts)


def read_rice(data: memoryview, count: int, parameter: int) -> tuple[np.ndarray, int]:
    """The numbers (uint64) that begin the data, and the bytes that they took.

    Raises:
      DecodeError: if the data do not begin with `count` Rice codes.
    """
    if parameter > MAX_RICE_PARAMETER:
        raise DecodeError(f"a Rice parameter must lie in 0..{MAX_RICE_PARAMETER}, got {parameter}")
    start = packed_size(count, parameter)
    if start > len(data):
        raise DecodeError("a section is truncated: it ends within the remainders of Rice codes")
    reader = BitReader(data[start:], "Rice codes")
    quotients = reader.unary(count, _LONGEST_UNARY).astype(np.uint64)
    escaped = quotients == _LONGEST_UNARY
    beyond = read_gamma(reader, int(escaped.sum()))
    largest = _LONGEST_UNARY + int(beyond.max()) if beyond.size else int(quotients.max(initial=0))
    if largest > (2**64 - 1) >> parameter:
        raise DecodeError("a Rice code stands for a number of more than 64 bits")
    quotients[escaped] += beyond
    remainders = unpack(np.frombuffer(data[:start], np.uint8), parameter, count)
    return (quotients << np.uint64(parameter)) | remainders, start + reader.finish()
