"""What theory expects of quantizing and sparsifying vectors of independent Gaussian entries.

A Gaussian vector's direction is uniform on the sphere and independent of its length, so what depends on the direction
alone can be averaged over one coordinate, whose density is known for every dimension.
"""

import functools
import math
import statistics

import numpy as np

_NORMAL = statistics.NormalDist()
_POINTS = 2**15

MEAN_MAGNITUDE = math.sqrt(2 / math.pi)
"""E|z| of a standard normal z."""


@functools.lru_cache(maxsize=256)
def stochastic_rounding_nmse(size: int, levels: int) -> float:
    """E|x^ - x|^2 / |x|^2 where |x_i| / |x| is rounded at random to multiples of 1 / levels; exact.

    It is size E[f (1 - f)] / levels^2, f the fractional part of levels |t|, with t = sin(angle) one coordinate of a
    unit vector: the angle's density is proportional to cos(angle)^(size - 2).
    """
    if size <= 1:
        return 0.0  # one entry is its own norm
    widest = min(math.pi / 2, 14 / math.sqrt(size))
    angle = (np.arange(_POINTS) + 0.5) * (widest / _POINTS)
    logarithm = (size - 2) * np.log(np.cos(angle))
    weight = np.exp(logarithm - logarithm.max())
    position = levels * np.sin(angle)
    fraction = position - np.floor(position)
    return float(size * np.average(fraction * (1 - fraction), weights=weight) / levels**2)


@functools.lru_cache(maxsize=256)
def ternary_nmse(size: int) -> float:
    """E[max|x| |x|_1 / |x|^2] - 1: each |x_i| rounded at random to zero or the largest; exact.

    The ratio does not depend on |x|, so its mean is E[max|x| |x|_1] / size: given the largest m, the others are
    half-normal below m.
    """
    if size == 0:
        return 0.0
    largest = (np.arange(_POINTS) + 0.5) * (10 / _POINTS)
    below = np.vectorize(math.erf)(largest / math.sqrt(2))
    density = 2 * np.exp(-(largest**2) / 2) / math.sqrt(2 * math.pi)
    log_weight = np.log(density) + (size - 1) * np.log(below)
    weight = np.exp(log_weight - log_weight.max())
    mean_of_others = MEAN_MAGNITUDE * (1 - np.exp(-(largest**2) / 2)) / below
    product = largest * (largest + (size - 1) * mean_of_others)
    return float(np.average(product, weights=weight) / size - 1)


def clipped_ternary_nmse(size: int, clip: float) -> float | None:
    """As `ternary_nmse`, of entries first clipped to `clip` standard deviations; None if few vectors reach that far."""
    density, tail = _NORMAL.pdf(clip), _upper_tail(clip)
    if size * tail < 5:
        return None
    mean_magnitude = MEAN_MAGNITUDE - 2 * density + 2 * clip * tail
    energy = 1 - 2 * tail - 2 * clip * density + 2 * clip**2 * tail
    clipped_off = 2 * ((1 + clip**2) * tail - clip * density)
    return clipped_off + clip * mean_magnitude - energy


def largest_entries(share: float) -> tuple[float, float]:
    """Of the given share of entries that are largest: their part of the energy, and their mean magnitude."""
    if share >= 1:
        return 1.0, MEAN_MAGNITUDE
    bound = -_NORMAL.inv_cdf(share / 2)
    density = _NORMAL.pdf(bound)
    return share + 2 * bound * density, 2 * density / share


def _upper_tail(bound: float) -> float:
    return math.erfc(bound / math.sqrt(2)) / 2
