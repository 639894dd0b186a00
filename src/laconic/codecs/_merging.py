"""How what many clients send becomes one: sums that keep what each summand adds, minima, maxima and stacks.

All of it streams, on the host, and what parts of a cohort became can be merged again. Integers are added in 64 bits and
never wrap, floats in float32 or wider. A minimum or maximum starts from the first client's array, so it is right for
any sign.
"""

import enum
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from laconic.errors import ArgumentError

_SAMPLE = 2**12  # entries that tell whether it is worth looking at all
_FEW = 1 / 8  # of the entries: then they and their places take a quarter of all


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
    """A sum of arrays; memory does not grow with their number, and the arrays are not changed."""

    def __init__(self) -> None:
        self._total: np.ndarray | None = None
        self._dtype = np.dtype(np.float32)
        self._is_own = False

    def add(self, array: np.ndarray) -> None:
        """Adds one array.

        Raises:
          ArgumentError: if a sum of integers leaves 64 bits. A sum of floats may become infinite, which shows.
        """
        self._add(array, array.dtype)

    def absorb(self, later: "RunningSum") -> None:
        """Adds what another sum has added up.

        Raises:
          ArgumentError: see `add`.
        """
        self._add(later.total, later._dtype)

    @property
    def total(self) -> np.ndarray:
        """The sum in `summed_dtype`."""
        assert self._total is not None
        return self._total

    def result(self) -> np.ndarray:
        """The sum in the dtype of its summands.

        Raises:
          ArgumentError: if a sum of integers does not fit it.
        """
        return fitted(self.total, self._dtype, "the sum")

    def _add(self, array: np.ndarray, summand: np.dtype) -> None:
        if self._total is None:
            # A single summand is not copied: most parts of a small cohort are one client's.
            self._total, self._dtype = np.asarray(array, summed_dtype(summand)), summand
            return
        # Narrower summands do not fill 64 bits, however many there are.
        if summand.kind in "iu" and summand.itemsize == 8:
            _check_overflow(self._total, array)
        out = self._total if self._is_own else np.empty_like(self._total)
        with np.errstate(over="ignore", invalid="ignore"):
            self._total = np.add(self._total, array, out=out, casting="unsafe")
        self._is_own = True

    def __getstate__(self) -> tuple[Any, np.dtype]:
        """In few bytes, with a long way to go perhaps: sums of codes are small, those of coarse grids mostly zeros."""
        total = self.total
        return (_narrowed(total) if total.dtype.kind in "iu" else _sparse(total)), self._dtype

    def __setstate__(self, state: tuple[Any, np.dtype]) -> None:
        sent, self._dtype = state
        total = _dense(*sent) if isinstance(sent, tuple) else sent
        self._total, self._is_own = np.asarray(total, summed_dtype(self._dtype)), False


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


def _check_overflow(total: np.ndarray, array: np.ndarray) -> None:
    limits = np.iinfo(total.dtype)
    # Rearranged so that nothing computed here leaves the dtype, as total + array may.
    above = total > limits.max - np.maximum(array, 0)
    below = total < limits.min - np.minimum(array, 0)
    if np.any(above | below):
        raise ArgumentError(f"the sum must fit {total.dtype}; use floats, or fewer summands")
