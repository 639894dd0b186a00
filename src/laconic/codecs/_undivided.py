"""Compiled functions for threads that each do their own work: XLA does not divide one call among processors."""

import functools
from collections.abc import Callable
from typing import Any

import jax

# On CPU, XLA cuts loops over large arrays into as many pieces as there are processors. Where all of these are busy with
# clients of their own, that gains nothing, and loops over pieces, whose bounds are only known at run time, took up to
# twice the processor time. Matrix products and convolutions are divided by another part of XLA, and still are.
_UNDIVIDED = {"xla_disable_hlo_passes": "cpu-parallel-task-assigner"}


class Undivided:
    """Like `jax.jit`, for what runs on several threads at a time; for calls from outside compiled functions alone.

    The bits are those of `jax.jit`. On accelerators nothing differs.

    Args:
      function: as `jax.jit` takes it.
      options: as `jax.jit` takes them.
    """

    def __init__(self, function: Callable[..., Any], **options: Any):
        self._function = function
        self._options = options

    @functools.cached_property
    def _compiled(self) -> Callable[..., Any]:
        # Not before it is called, since asking for the devices is what chooses them.
        return jax.jit(self._function, compiler_options=_compiler_options(), **self._options)

    def __call__(self, *arguments: Any, **static: Any) -> Any:
        """What the function gives."""
        return self._compiled(*arguments, **static)


@functools.cache
def _compiler_options() -> dict[str, str] | None:
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=_UNDIVIDED).lower().compile()
    except jax.errors.JaxRuntimeError:  # an XLA without this option: slower, and nothing else
        return None
    return _UNDIVIDED
