"""Integers of which most are zero."""

import dataclasses
from typing import ClassVar

import numpy as np

from laconic.codecs import _wire
from laconic.codecs._registry import register
from laconic.codecs.coders._dense_modes import decode_dense, encode_dense
from laconic.codecs.coders._integer_coders import IntegerCoder, SectionReader
from laconic.errors import DecodeError


@register
@dataclasses.dataclass(frozen=True)
class RunLength(IntegerCoder):
    """The lengths of the runs of zeros, and the integers between them, each coded as takes least (see `EntropyCoder`).

    Comes as near to n H as `RANS` where zeros are independent, and nearer where they stand together, but takes no step
    for each zero. Takes all integers.
    """

    name: ClassVar[str] = "run_length"

    def _encode(self, values: np.ndarray, contexts: np.ndarray | None) -> bytes:
        del contexts
        return self.encode_others(values, values != 0)

    @staticmethod
    def encode_others(values: np.ndarray, is_other: np.ndarray) -> bytes:
        """The section of integers of which it is known which are not zero (bool)."""
        indices = np.flatnonzero(is_other)  # six times as fast as flatnonzero(values)
        if not indices.size:
            return _wire.varint(0)
        runs = np.diff(indices, prepend=-1) - 1
        others = values[indices]
        others -= others > 0  # there is no zero among them: close the gap
        coded = encode_dense(runs.astype(_run_dtype(values.size)))
        return b"".join((_wire.varint(indices.size), _wire.varint(len(coded)), coded, encode_dense(others)))

    def _decode(self, data: memoryview, count: int, dtype: np.dtype, contexts: np.ndarray | None) -> np.ndarray:
        del contexts
        reader = SectionReader(data)
        size = reader.varint("the number of integers that are not zero")
        if size > count:
            raise DecodeError(f"a run_length section of {count} integers cannot hold {size} that are not zero")
        if not size:
            reader.finish()
            return np.zeros(count, dtype)
        coded = reader.take(reader.varint("the runs of zeros"), "the runs of zeros")
        others = decode_dense(reader.take(reader.remaining, "what is not zero"), size, dtype)
        if int(others.max()) == np.iinfo(dtype).max:
            raise DecodeError(f"a run_length section holds an integer that does not fit {dtype}")
        runs = decode_dense(coded, size, _run_dtype(count))
        # A run longer than the array is caught before the sum, which then cannot pass from the allowed over the
        # largest int64 to the allowed.
        if int(runs.max()) >= count:
            raise DecodeError(f"a run_length section of {count} integers holds a run of {runs.max()}")
        indices = np.cumsum(runs.astype(np.int64) + 1) - 1
        if int(indices.min()) < 0 or int(indices.max()) >= count:
            raise DecodeError(f"the runs of a run_length section are longer than its {count} integers")
        values = np.zeros(count, dtype)
        values[indices] = others + (others >= 0).astype(dtype)
        return values


def _run_dtype(count: int) -> np.dtype:
    return np.dtype(np.uint32 if count < 2**32 else np.uint64)
