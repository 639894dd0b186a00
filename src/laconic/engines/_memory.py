"""Freed memory is kept for what comes next.

A client's training frees and takes buffers of a model's size many times in a round. glibc gives such memory back to the
system, which has to clear each page when it is taken again: with the tutorial's model between 4,000 and 40,000 pages a
round, as it happens. The more there are, the more a round gains; with few it gains nothing.
"""

import ctypes
import functools
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT = 2**30  # bytes at the end of the heap
_LARGEST = 2**25  # bytes of a block that comes from the heap; more is not possible
_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


@functools.cache
def keep_freed_memory() -> bool:
    """Has this process keep up to 1 GiB that it frees, once; returns whether it could be told so.

    Where the environment says how memory is to be managed (`GLIBC_TUNABLES`, `MALLOC_TRIM_THRESHOLD_`, another
    allocator in `LD_PRELOAD`), that holds, and where the C library is not glibc, nothing is done.
    """
    if not sys.platform.startswith("linux") or any(os.environ.get(name) for name in _OWN):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # Both, since telling either ends glibc's own adaptation of the other.
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))
