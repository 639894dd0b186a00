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

    def __getstate__(self) -> tuple[np.ndarray, np.dtype]:
        """Integers in as few bytes as they fit, since sums of codes are small and may have a long way to go."""
        narrow = self.total
        if narrow.dtype.kind in "iu" and narrow.size:
            fitting = np.result_type(*map(np.min_scalar_type, (narrow.min(), narrow.max())))
            # No integer but their own holds a negative and a very large one, and a float would round.
            narrow = narrow.astype(fitting) if fitting.kind in "iu" else narrow
        return narrow, self._dtype

    def __setstate__(self, state: tuple[np.ndarray, np.dtype]) -> None:
        narrow, self._dtype = state
        self._total, self._is_own = np.asarray(narrow, summed_dtype(self._dtype)), False


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
