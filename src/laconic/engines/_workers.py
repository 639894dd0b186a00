"""How many workers there are, where nobody says."""

import os

from laconic.errors import ArgumentError, ArgumentTypeError

_VARIABLE = "LACONIC_WORKERS"


def number_of_workers(workers: int | None) -> int:
    """The number given; None takes the environment's LACONIC_WORKERS, or one for each processor of this process.

    Raises:
      ArgumentTypeError: if workers is not a whole number.
      ArgumentError: if it is not positive, or the environment variable is not a positive whole number.
    """
    wanted = wanted_workers(workers)
    return _processors() if wanted is None else wanted


def wanted_workers(workers: int | None) -> int | None:
    """The number given, or else the environment's LACONIC_WORKERS; None where there is neither. Errors as above."""
    if workers is None:
        wanted = os.environ.get(_VARIABLE, "").strip()
        return _from_environment(wanted) if wanted else None
    if isinstance(workers, bool) or not isinstance(workers, int):
        raise ArgumentTypeError(f"workers must be a whole number, got {workers!r} of type {type(workers).__name__}")
    if workers < 1:
        raise ArgumentError(f"workers must be at least 1, got {workers}")
    return workers


def _from_environment(wanted: str) -> int:
    if not wanted.isdecimal() or int(wanted) < 1:
        raise ArgumentError(
            f"the environment variable {_VARIABLE} must be a whole number, at least 1, got {wanted!r}; "
            "unset it to take one for each processor"
        )
    return int(wanted)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
