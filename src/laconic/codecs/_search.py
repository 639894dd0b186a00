"""Finding the step at which coded bytes come out as promised."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

_ATTEMPTS = 12
_TOLERANCE = 0.004
_LARGEST = 40.0  # of the natural logarithm of coarseness, either way
_STRIDE = 3.0


class _Point(NamedTuple):
    """One try: the logarithm of its coarseness, and of its size over the target."""

    coarseness: float
    miss: float


def find_coarseness(measure: Callable[[list[float]], Sequence[float]], targets: Sequence[float | None]) -> list[float]:
    """For each unit the coarseness at which it takes its target.

    A secant search on logarithms, where size against coarseness is nearly a straight line, kept inside brackets.

    Args:
      measure: from each unit's coarseness to the bytes that it takes.
      targets: each unit's bytes; None for a unit that promises none.
    """
    searches = [None if target is None else _Search(target) for target in targets]
    for _ in range(_ATTEMPTS):
        sizes = measure([1.0 if search is None else search.coarseness for search in searches])
        running = [
            search.update(size)
            for search, size in zip(searches, sizes, strict=True)
            if search is not None and not search.is_done
        ]
        if not any(running):
            break
    return [1.0 if search is None else search.best for search in searches]


class _Search:
    """One unit's search."""

    def __init__(self, target: float):
        self._target = math.log(max(target, 1.0))
        self._next = 0.0
        self._points: list[_Point] = []
        self.is_done = False

    @property
    def coarseness(self) -> float:
        """What to try next."""
        return float(np.float32(math.exp(self._next)))

    @property
    def best(self) -> float:
        """The one that came nearest."""
        return float(np.float32(math.exp(min(self._points, key=lambda point: abs(point.miss)).coarseness)))

    def update(self, size: float) -> bool:
        """Takes what the last try gave; returns whether there is more to try."""
        point = _Point(self._next, math.log(max(size, 1)) - self._target)
        self._points.append(point)
        self._next = min(max(self._proposal(point), -_LARGEST), _LARGEST)
        self.is_done = abs(point.miss) < _TOLERANCE or self._next == point.coarseness
        return not self.is_done

    def _proposal(self, point: _Point) -> float:
        too_large = [each for each in self._points if each.miss > 0]
        too_small = [each for each in self._points if each.miss <= 0]
        if too_large and too_small:
            left = min(too_large, key=lambda each: each.miss)
            right = max(too_small, key=lambda each: each.miss)
            share = left.miss / max(left.miss - right.miss, 1e-12)
            # Away from the ends, so that one bad line does not stall the search.
            return left.coarseness + (right.coarseness - left.coarseness) * min(max(share, 0.05), 0.95)
        # Overshooting a little gives the bracket.
        stride = 1.05 * point.miss / self._steepness()
        return point.coarseness + min(max(stride, -_STRIDE), _STRIDE)

    def _steepness(self) -> float:
        """How fast the size falls: as at low rates at first, then as the last two tries say."""
        if len(self._points) < 2:
            return 1.0
        before, last = self._points[-2:]
        return max((before.miss - last.miss) / (last.coarseness - before.coarseness), 0.05)
