"""Which clients are computed together, so that little of the computation is padding and few programs are compiled."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from laconic.errors import ArgumentError

MOST_PADDING = 0.15
_NUMERATOR, _DENOMINATOR = 11, 10  # each number of steps is at most this many times the one before, in whole numbers


@dataclasses.dataclass(frozen=True)
class Stack:
    """Clients that are computed together.

    Attributes:
      members: their positions in the cohort, larger clients first.
      rows: of the stack; those beyond the members are dummies.
      steps: to which each row is padded.
      devices: how many devices share the rows, evenly.
    """

    members: tuple[int, ...]
    rows: int
    steps: int
    devices: int


def stacks(sizes: Sequence[int], *, devices: int, clients_per_device: int) -> list[Stack]:
    """Every client in one stack, at most 15 % of each stack's rows x steps padding; a pure function of its arguments.

    Larger clients come first. Each stack begins with the largest client left and takes as many rows as the limit
    allows, with clients that are next in size. Rows are powers of two or three times such, and numbers of steps grow by
    tenths, so that rounds with other clients find programs compiled. A stack with fewer rows than there are devices
    leaves devices idle rather than to compute dummies.

    Args:
      sizes: each client's steps, at least 1.
      devices: how many there are.
      clients_per_device: the most rows of a stack on each device.

    Raises:
      ArgumentError: if a size is below 1.
    """
    if any(size < 1 for size in sizes):
        raise ArgumentError(f"sizes must be at least 1, got {min(sizes)}")
    # A stable sort: clients of one size stay in the cohort's order.
    left = sorted(range(len(sizes)), key=lambda position: -sizes[position])
    choices = _rows(devices, clients_per_device)
    found = []
    while left:
        steps = padded_steps(sizes[left[0]])
        rows = next(rows for rows in choices if _fits([sizes[position] for position in left[:rows]], rows, steps))
        found.append(Stack(tuple(left[:rows]), rows, steps, min(rows, devices)))
        left = left[rows:]
    return found


def padding_share(found: Sequence[Stack], sizes: Sequence[int]) -> float:
    """The part of all rows x steps that is padding, dummies included, in 0..1."""
    computed = sum(stack.rows * stack.steps for stack in found)
    own = sum(sizes[position] for stack in found for position in stack.members)
    return 1 - own / computed if computed else 0.0


def padded_steps(size: int) -> int:
    """The lowest rung of a fixed ladder that is not below `size`; rungs grow by one, then by tenths."""
    return next(steps for steps in _ladder() if steps >= size)


def _ladder() -> Iterator[int]:
    return itertools.accumulate(
        itertools.repeat(1), lambda steps, _: max(steps + 1, steps * _NUMERATOR // _DENOMINATOR)
    )


def _rows(devices: int, clients_per_device: int) -> list[int]:
    """Numbers of rows that devices can share, descending: fewer than there are devices, or a multiple."""
    idle = [rows for rows in _few_factors(devices) if rows < devices]
    full = [rows * devices for rows in _few_factors(clients_per_device)]
    return sorted({*idle, *full, 1}, reverse=True)


def _few_factors(most: int) -> list[int]:
    """`most`, and the powers of two, and three times such, below it."""
    powers = [2**i for i in range(most.bit_length())]
    return sorted({rows for power in powers for rows in (power, 3 * power) if rows <= most} | {most})


def _fits(own: Sequence[int], rows: int, steps: int) -> bool:
    return sum(own) >= (1 - MOST_PADDING) * rows * steps
