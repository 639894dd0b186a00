"""The default coder: it chooses another by what the integers are."""

import dataclasses
from typing import ClassVar

import numpy as np

from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs.coders._dense_modes import Choice, Mode, choose_dense, decode_dense
from laconic.codecs.coders._integer_coders import IntegerCoder
from laconic.codecs.coders._run_length import RunLength

_MOSTLY = 7 / 8  # zeros among the integers, from which runs are faster to code than symbols
_SMALL = 2**12  # of fewer integers, even mostly zeros, all modes are compared


@register
@dataclasses.dataclass(frozen=True)
class EntropyCoder(IntegerCoder):
    """Codes integers in whichever way takes least, and says in one byte which.

    Fixed width above the smallest, `Rice`, `RANS` with and without contexts, `RunLength`, or as they are. The sizes to
    compare follow from one histogram. Any integers take at most 16 bytes more than ceil(n b / 8), where b is the bits
    that their range needs, or one byte more than they take in memory.
    """

    name: ClassVar[str] = "entropy"
    uses_contexts: ClassVar[bool] = True

    def _encode(self, values: np.ndarray, contexts: np.ndarray | None) -> bytes:
        is_other = values != 0
        if np.count_nonzero(is_other) > values.size * (1 - _MOSTLY):
            return choose_dense(values, contexts).encode()
        coded = RunLength.encode_others(values, is_other)
        runs = Choice(Mode.RUN_LENGTH, len(coded), lambda: [coded])
        if values.size >= _SMALL and contexts is None:
            return runs.encode()
        dense = choose_dense(values, contexts)
        # Runs are decoded so much faster that they may take a little more.
        return (dense if dense.nbytes + dense.nbytes // 64 < runs.nbytes else runs).encode()

    def _decode(self, data: memoryview, count: int, dtype: np.dtype, contexts: np.ndarray | None) -> np.ndarray:
        if len(data) and data[0] == Mode.RUN_LENGTH:
            return RunLength().decode(data[1:], TensorSpec("", (count,), dtype))
        return decode_dense(data, count, dtype, contexts)
