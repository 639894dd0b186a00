"""Contributions of many senders at once: encoded together where their values are, packed one by one on the host."""

import functools
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import jax

T = TypeVar("T")


class Devices(Protocol):
    """Where a stack is computed: arrays whose first axis goes over senders or clients. Equal ones compile once."""

    def share(self, tree: Any) -> Any:
        """The arrays, which are the same for all of the stack, on each device."""
        ...

    def split(self, tree: Any) -> Any:
        """The arrays, whose first axis goes over the stack, spread over the devices."""
        ...

    def parallel(self, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """The function of (shared, split) trees, computed on each device for its part of the stack; it is traced.

        All results have the stack's axis first.
        """
        ...

    def __hash__(self) -> int: ...


class Fetched:
    """Arrays of a stack on their way to the host: waited for when first asked for, and brought over once."""

    def __init__(self, stacked: Any):
        self._stacked = stacked
        self._lock = threading.Lock()
        self._is_here = False

    def row(self, index: int) -> Any:
        """The tree of NumPy arrays of one of the stack. Safe to call from several threads."""
        with self._lock:
            if not self._is_here:
                self._stacked = jax.device_get(self._stacked)
                self._is_here = True
        return jax.tree.map(lambda array: array[index], self._stacked)


def compiled_over(function: Callable[[Any, Any], Any]) -> Callable[[Devices, Any, Any], Any]:
    """Compiles a function of (shared, own) values of one of a stack as one of (devices, shared, split) values."""
    stacked = jax.vmap(function, in_axes=(None, 0))

    @functools.partial(jax.jit, static_argnums=0)
    def run(devices: Devices, shared: Any, split: Any) -> Any:
        return devices.parallel(stacked)(shared, split)

    return run
