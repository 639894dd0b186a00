"""Zstandard, for floats that must arrive exactly."""

import dataclasses
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs.coders._bit_streams import little_endian
from laconic.codecs.coders._coder import Coder, Raw
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError, require

MAX_LEVEL = 22

_MOST_PER_BLOCK = 2**17  # bytes that a block of a frame, itself of 4 bytes at least, decompresses to


@register
@dataclasses.dataclass(frozen=True)
class ShuffledZstd(Coder):
    """The array's bytes, the first of all elements, then the second of all and so on, through Zstandard (RFC 8878).

    Takes any dtype, and is exact. The bytes of sign and exponent, which vary little, come to stand together. Needs the
    extra `zstd`. The same array may give other bytes with another release of the library; every release reads them.

    Args:
      level: of compression, 1 (fast) to 22 (small); it does not travel with the bytes.
    """

    name: ClassVar[str] = "shuffled_zstd"

    level: int = 3

    def __post_init__(self) -> None:
        if isinstance(self.level, bool) or not isinstance(self.level, int):
            raise ArgumentTypeError(f"level must be a whole number, got {self.level!r}")
        if not 1 <= self.level <= MAX_LEVEL:
            raise ArgumentError(f"level must lie in 1..{MAX_LEVEL}, got {self.level}")

    def encode(self, array: np.ndarray, contexts: np.ndarray | None = None) -> Any:
        del contexts
        if not array.size:
            return b""
        elements = little_endian(np.ascontiguousarray(array)).reshape(-1)
        shuffled = np.ascontiguousarray(elements.view(np.uint8).reshape(-1, array.dtype.itemsize).T)
        return _zstandard().ZstdCompressor(level=self.level, write_content_size=False).compress(shuffled.data)

    def decode(self, data: memoryview, spec: TensorSpec, contexts: np.ndarray | None = None) -> np.ndarray:
        del contexts
        if not spec.size:
            return Raw().decode(data, spec)
        zstandard = _zstandard()
        if spec.nbytes > (len(data) // 4 + 1) * _MOST_PER_BLOCK:
            raise DecodeError(f"a {self.name} section of {len(data)} bytes cannot hold {spec}")
        try:
            if zstandard.frame_content_size(data) != -1:
                raise DecodeError(f"a {self.name} section says its length, which the array's shape does")
            shuffled = zstandard.ZstdDecompressor().decompress(
                data, max_output_size=spec.nbytes, allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise DecodeError(f"a {self.name} section for {spec} is damaged: {error}") from error
        if len(shuffled) != spec.nbytes:
            raise DecodeError(f"a {self.name} section for {spec} holds {len(shuffled)} bytes, not {spec.nbytes}")
        elements = np.ascontiguousarray(np.frombuffer(shuffled, np.uint8).reshape(spec.dtype.itemsize, -1).T)
        return Raw().decode(elements.reshape(-1).data, spec)


def _zstandard() -> ModuleType:
    return require("zstandard", extra="zstd", purpose="the coder 'shuffled_zstd'")
