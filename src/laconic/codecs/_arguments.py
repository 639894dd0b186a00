"""Checks of the constants that stages and coders are made with, each of which names the argument that is wrong."""

import math
import numbers
from collections.abc import Mapping

from laconic.errors import ArgumentError, ArgumentTypeError


def check_flag(value: object, name: str) -> None:
    """Raises ArgumentTypeError unless the argument is True or False."""
    if not isinstance(value, bool):
        raise ArgumentTypeError(f"{name} must be True or False, got {value!r:.60}")


def check_whole(value: object, name: str, low: int, high: int) -> None:
    """Raises unless the argument is a whole number in low..high."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(f"{name} must be a whole number, got {value!r:.60} of type {type(value).__name__}")
    if not low <= value <= high:
        raise ArgumentError(f"{name} must lie in {low}..{high}, got {value}")


def check_bits(bits: object, highest: int = 16) -> None:
    """Raises unless `bits` is a whole number from 1 to `highest`."""
    if isinstance(bits, bool) or not isinstance(bits, int):
        raise ArgumentTypeError(
            f"bits must be a whole number from 1 to {highest}, got {bits!r:.60} of type {type(bits).__name__}"
        )
    check_whole(bits, "bits", 1, highest)


def check_seed(seed: object) -> None:
    """Raises unless the seed is a whole number that can travel."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ArgumentTypeError(f"seed must be an integer, got {seed!r:.60} of type {type(seed).__name__}")
    if not 0 <= seed < 2**63:
        raise ArgumentError(f"seed must lie in 0..2**63-1, got {seed}")


def checked_number(value: object, name: str) -> float:
    """The value as a float.

    Raises:
      ArgumentTypeError: if it is not a number.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ArgumentTypeError(f"{name} must be a number, got {value!r:.60} of type {type(value).__name__}")
    return float(value)


def checked_positive(value: object, name: str) -> float:
    """The value as a finite float above zero.

    Raises:
      ArgumentError: if it is not above zero, or not finite.
      ArgumentTypeError: if it is not a number.
    """
    number = checked_number(value, name)
    if not (math.isfinite(number) and number > 0):
        raise ArgumentError(f"{name} must be finite and above zero, got {value}")
    return number


def checked_fraction(value: object, name: str) -> float:
    """The value as a float in (0, 1].

    Raises:
      ArgumentError: if it is not in there.
      ArgumentTypeError: if it is not a number.
    """
    number = checked_number(value, name)
    if not 0 < number <= 1:
        raise ArgumentError(f"{name} must be above 0 and at most 1, got {value}")
    return number


def only_one_given(owner: str, choices: Mapping[str, object]) -> str:
    """The name of the one choice that is not None.

    Args:
      owner: who needs it, for the message.
      choices: the values, by the arguments' names.

    Raises:
      ArgumentError: if there is none, or more than one.
    """
    given = [name for name, value in choices.items() if value is not None]
    if len(given) != 1:
        raise ArgumentError(f"{owner} needs exactly one of {', '.join(choices)}, got {', '.join(given) or 'none'}")
    return given[0]
