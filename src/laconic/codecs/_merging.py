"""How what many clients send becomes one: sums that keep what each summand adds, minima, maxima and stacks.

All of it streams, on the host, and what parts of a cohort became can be merged again. Integers are added in 64 bits and
never wrap, floats in float32 or wider. A minimum or maximum starts from the first client's array, so it is right for
any sign.
"""

import enum
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from laconic.errors import ArgumentError

_SAMPLE = 2**12  # entries that tell whether it is worth looking at all
_FEW = 1 / 8  # of the entries: then they and their places take a quarter of all
_MOST_TERMS = 8  # that wait to be added up together
_MOST_ENTRIES = 2**25  # of all that wait
_BLOCK = 2**15  # entries that are added up at a time: 128 KiB in float32

_Terms = Any
"""A flat array, or a pair of terms whose sums are to be added."""
_Addition = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Accumulator(Protocol):
    """Takes the arrays of one shape and dtype that clients send, one after another."""

    def add(self, array: np.ndarray) -> None:
        """Takes one client's array."""

    def absorb(self, later: Any) -> None:
        """Takes what another accumulator of this kind has seen, of clients that come after."""

    def result(self) -> np.ndarray:
        """The arrays so far as one; at least one must have been added."""


class Merge(enum.Enum):
    """How the server merges one report of many clients; each is exact for any sign and any number of clients."""

    SUM = "sum"
    """In the report's dtype; a sum of integers that does not fit it is an error."""
    MIN = "min"
    MAX = "max"
    STACK = "stack"
    """A new leading axis, in cohort order."""

    def accumulator(self) -> Accumulator:
        """A merge that has seen no client yet."""
        match self:
            case Merge.SUM:
                return RunningSum()
            case Merge.MIN:
                return _Extreme(np.minimum)
            case Merge.MAX:
                return _Extreme(np.maximum)
            case Merge.STACK:
                return _Stack()

    def __call__(self, reports: Iterable[Any]) -> np.ndarray:
        """Merges one report of each client, arrays of one shape and dtype, at least one of them."""
        merged = self.accumulator()
        for report in reports:
            merged.add(np.asarray(report))
        return merged.result()


class RunningSum:
    """A sum of arrays; the arrays are not changed, and memory does not grow with their number.

    Some are kept until they can be added up together, a block that stays in the cache at a time: each is read once, and
    what they add up to on the way is not written to memory. Ten float32 arrays of 1.7 million entries, far more than a
    cache holds, take half the time of adding one after another, and give the same bits. Arrays must not change after
    they are added.
    """

    def __init__(self) -> None:
        self._terms: _Terms = None
        self._num_terms = 0
        self._shape: tuple[int, ...] = ()
        self._dtype = np.dtype(np.float32)

    def add(self, array: np.ndarray) -> None:
        """Adds one array.

        Raises:
          ArgumentError: if a sum of integers leaves 64 bits, here or in whatever needs the sum. A sum of floats may
            become infinite, which shows.
        """
        self._add(array.reshape(-1), 1, array.shape, array.dtype)

    def absorb(self, later: "RunningSum") -> None:
        """Adds what another sum has added up.

        Raises:
          ArgumentError: see `add`.
        """
        self._add(later._terms, later._num_terms, later._shape, later._dtype)

    @property
    def total(self) -> np.ndarray:
        """The sum in `summed_dtype`."""
        self._add_up()
        assert isinstance(self._terms, np.ndarray)
        return self._terms.reshape(self._shape)

    def result(self) -> np.ndarray:
        """The sum in the dtype of its summands.

        Raises:
          ArgumentError: if a sum of integers does not fit it.
        """
        return fitted(self.total, self._dtype, "the sum")

    def _add(self, terms: _Terms, count: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        if self._terms is None:
            self._terms, self._num_terms, self._shape, self._dtype = terms, count, shape, dtype
            return
        self._terms = (self._terms, terms)
        self._num_terms += count
        if self._num_terms > _MOST_TERMS or self._num_terms * math.prod(shape) > _MOST_ENTRIES:
            self._add_up()

    def _add_up(self) -> None:
        self._terms, self._num_terms = _added_up(self._terms, math.prod(self._shape), self._dtype), 1

    def __getstate__(self) -> tuple[Any, np.dtype]:
        """In few bytes, with a long way to go perhaps: sums of codes are small, those of coarse grids mostly zeros."""
        total = self.total
        return (_narrowed(total) if total.dtype.kind in "iu" else _sparse(total)), self._dtype

    def __setstate__(self, state: tuple[Any, np.dtype]) -> None:
        sent, self._dtype = state
        total = _dense(*sent) if isinstance(sent, tuple) else sent
        self._terms, self._num_terms, self._shape = total.reshape(-1), 1, total.shape


class _Extreme:
    """An element-wise minimum or maximum."""

    def __init__(self, combine: Callable[[np.ndarray, np.ndarray], np.ndarray]):
        self._combine = combine
        self._so_far: np.ndarray | None = None

    def add(self, array: np.ndarray) -> None:
        self._so_far = array if self._so_far is None else self._combine(self._so_far, array)

    def absorb(self, later: "_Extreme") -> None:
        self.add(later.result())

    def result(self) -> np.ndarray:
        assert self._so_far is not None
        return self._so_far


class _Stack:
    """A new leading axis."""

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []

    def add(self, array: np.ndarray) -> None:
        self._arrays.append(array)

    def absorb(self, later: "_Stack") -> None:
        self._arrays += later._arrays

    def result(self) -> np.ndarray:
        return np.stack(self._arrays)


def _narrowed(integers: np.ndarray) -> np.ndarray:
    """In the smallest dtype that holds them."""
    if not integers.size:
        return integers
    fitting = np.result_type(*map(np.min_scalar_type, (integers.min(), integers.max())))
    # No integer but their own holds a negative and a very large one, and a float would round.
    return integers.astype(fitting) if fitting.kind in "iu" else integers


def _sparse(floats: np.ndarray) -> np.ndarray | tuple[tuple[int, ...], np.ndarray, np.ndarray]:
    """The shape, and where and what the entries other than zero are, if they are few; else all as they are."""
    bits = floats.reshape(-1).view(f"u{floats.itemsize}")  # of which only a positive zero has none
    sample = bits[:: bits.size // _SAMPLE + 1]
    if np.count_nonzero(sample) > sample.size * _FEW:
        return floats
    places = np.flatnonzero(bits != 0)
    if places.size > bits.size * _FEW:
        return floats
    return floats.shape, places.astype(np.uint32 if bits.size < 2**32 else np.uint64), floats.reshape(-1)[places]


def _dense(shape: tuple[int, ...], places: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """The inverse of `_sparse`."""
    floats = np.zeros(shape, entries.dtype)
    floats.reshape(-1)[places] = entries
    return floats


def summed_dtype(dtype: np.dtype) -> np.dtype:
    """What sums are kept in: half precision and small integers would lose summands."""
    if jnp.issubdtype(dtype, jnp.floating):
        return np.dtype(jnp.promote_types(dtype, jnp.float32))
    return np.dtype(np.uint64 if dtype == np.uint64 else np.int64)


def fitted(array: np.ndarray, dtype: np.dtype, what: str) -> np.ndarray:
    """The array as a narrower dtype.

    Raises:
      ArgumentError: if an integer does not fit. A float may become infinite, which shows.
    """
    if array.dtype == dtype:
        return array
    if array.dtype.kind in "iu" and array.size:
        low, high = (0, 1) if dtype == np.bool_ else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if not low <= int(array.min()) <= int(array.max()) <= high:
            raise ArgumentError(
                f"{what} must fit {dtype}, got values from {array.min()} to {array.max()}; "
                "use a wider dtype, fewer bits or fewer summands"
            )
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def _added_up(terms: _Terms, size: int, summand: np.dtype) -> np.ndarray:
    """The sum of terms of this many entries each, all made of summands of this dtype."""
    dtype = summed_dtype(summand)
    if isinstance(terms, np.ndarray):
        return np.asarray(terms, dtype)
    # Narrower integers do not fill 64 bits, however many there are.
    add = _add_checked if summand.kind in "iu" and summand.itemsize == 8 else _add
    total = np.empty(size, dtype)
    partial = np.empty((2 * _MOST_TERMS, min(size, _BLOCK)), dtype)  # no tree is deeper
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, size, _BLOCK):
            block = slice(start, min(start + _BLOCK, size))
            _block_sum(add, terms, block, [total[block], *partial])
    return total


def _block_sum(add: _Addition, terms: _Terms, block: slice, rooms: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of one block of the terms: an array's own entries, or what is now in the first of the rooms."""
    if isinstance(terms, np.ndarray):
        return terms[block]
    first, second = _block_sum(add, terms[0], block, rooms), _block_sum(add, terms[1], block, rooms[1:])
    return add(first, second, rooms[0][: len(first)])


def _add(first: np.ndarray, second: np.ndarray, out: np.ndarray) -> np.ndarray:
    return np.add(first, second, out=out, dtype=out.dtype, casting="unsafe")


def _add_checked(first: np.ndarray, second: np.ndarray, out: np.ndarray) -> np.ndarray:
    limits = np.iinfo(out.dtype)
    first, second = first.astype(out.dtype, copy=False), second.astype(out.dtype, copy=False)
    # Rearranged so that nothing computed here leaves the dtype, as first + second may.
    above = first > limits.max - np.maximum(second, 0)
    below = first < limits.min - np.minimum(second, 0)
    if np.any(above | below):
        raise ArgumentError(f"the sum must fit {out.dtype}; use floats, or fewer summands")
    return np.add(first, second, out=out)
