"""Quantizers for a standard normal variable: Lloyd-Max codebooks, and uniform thresholds with centroids.

Of all quantizers with 2**b levels Lloyd-Max's have the least mean squared error: Lloyd 1982, "Least squares
quantization in PCM"; Max 1960, "Quantizing for minimum distortion". Each centroid is the mean of the entries nearest to
it. Decoding depends on them, so they are float32 constants; a test derives them anew.
"""

import dataclasses
import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

MAX_BITS = 8

_CELLS_PER_UNIT = 64  # narrower than the distance between any two thresholds
_FARTHEST = 9.0  # standard deviations, beyond which a cell's centroid is taken to be its middle

# The positive centroids of 1 to 8 bits; the others are their negatives.
_POSITIVE = (
    "0.7978846",
    "0.45278004 1.5104176",
    "0.24509418 0.7560053 1.3439093 2.1519456",
    """
    0.12839504 0.3880483 0.65675914 0.94234043 1.2562312 1.6180464 2.0690172 2.7325895
    """,
    """
    0.06588966 0.19805183 0.3313783 0.4666995 0.6049336 0.7471357 0.8945651 1.0487833 1.2118044 1.3863404 1.576228
    1.7872332 2.0287285 2.3177395 2.6911197 3.2607324
    """,
    """
    0.033409506 0.10027829 0.1672969 0.23456699 0.30219284 0.37028265 0.43894967 0.5083138 0.578503 0.6496556
    0.7219219 0.7954677 0.8704766 0.94715494 1.0257363 1.1064882 1.1897202 1.2757945 1.365141 1.4582764 1.5558312
    1.6585889 1.7675419 1.8839773 2.0096111 2.1468103 2.2989812 2.471305 2.6722739 2.9174068 3.240437 3.7441013
    """,
    """
    0.01682817 0.050490864 0.08417264 0.11788628 0.15164465 0.18546072 0.21934764 0.25331873 0.28738755 0.32156795
    0.35587403 0.3903203 0.42492166 0.45969343 0.49465147 0.5298122 0.56519264 0.6008105 0.6366843 0.6728333
    0.70927787 0.74603915 0.78313965 0.82060295 0.8584542 0.89671993 0.9354285 0.97461 1.0142967 1.0545232 1.0953267
    1.1367474 1.1788286 1.2216175 1.2651651 1.3095276 1.3547662 1.4009485 1.448149 1.49645 1.5459437 1.5967331
    1.6489339 1.702677 1.7581115 1.8154078 1.8747625 1.9364046 2.0006018 2.0676715 2.1379933 2.2120275 2.2903392
    2.3736343 2.4628115 2.5590405 2.6638865 2.7795143 2.9090471 3.0572462 3.231933 3.4474304 3.7349367 4.189694
    """,
    """
    0.008446193 0.025339384 0.042234983 0.059134603 0.07603986 0.092952356 0.10987372 0.12680559 0.14374956
    0.16070732 0.17768049 0.19467075 0.21167976 0.2287092 0.24576078 0.26283622 0.27993724 0.2970656 0.31422305
    0.3314114 0.34863243 0.365888 0.38317996 0.40051022 0.41788065 0.4352932 0.45274988 0.47025266 0.4878036
    0.5054048 0.5230583 0.5407663 0.55853105 0.5763547 0.5942396 0.6121881 0.6302026 0.6482855 0.6664394 0.68466675
    0.70297027 0.72135264 0.7398166 0.75836504 0.77700084 0.795727 0.8145467 0.833463 0.8524793 0.8715989 0.8908253
    0.91016203 0.92961293 0.9491818 0.9688726 0.98868936 1.0086365 1.0287182 1.0489392 1.0693042 1.0898181 1.110486
    1.1313132 1.1523054 1.1734682 1.1948076 1.2163299 1.2380418 1.2599499 1.2820615 1.304384 1.3269253 1.3496937
    1.3726976 1.3959464 1.4194493 1.4432166 1.4672587 1.491587 1.5162132 1.5411496 1.5664098 1.5920075 1.6179578
    1.6442765 1.6709803 1.6980875 1.7256169 1.7535894 1.7820269 1.8109531 1.8403933 1.8703752 1.900928 1.9320842
    1.9638784 1.9963485 2.0295358 2.0634851 2.0982466 2.1338742 2.1704283 2.2079754 2.24659 2.2863545 2.3273618
    2.3697171 2.4135387 2.4589622 2.5061426 2.5552595 2.6065214 2.660174 2.7165077 2.7758706 2.8386858 2.905473
    2.9768822 3.053742 3.1371326 3.2285001 3.3298485 3.4440718 3.575588 3.7316663 3.9256377 4.1865954 4.6035357
    """,
)


@functools.cache
def centroids(bits: int) -> np.ndarray:
    """The 2**bits centroids in ascending order, float32; of no bits, zero."""
    if bits == 0:
        return np.zeros(1, np.float32)
    positive = np.array(_POSITIVE[bits - 1].split(), np.float32)
    return np.concatenate([-positive[::-1], positive])


@functools.cache
def distortion(bits: int) -> float:
    """The mean squared error for a standard normal variable: 1, 0.3634, 0.1175, 0.0345, 0.0095 for 0 to 4 bits."""
    levels = centroids(bits).astype(np.float64)
    between = (levels[1:] + levels[:-1]) / 2
    edges = [-math.inf, *between, math.inf]
    below = [math.erfc(-edge / math.sqrt(2)) / 2 for edge in edges]
    density = [math.exp(-edge * edge / 2) / math.sqrt(2 * math.pi) for edge in edges]
    # E z c less half of E c^2, twice: E (z - c)^2 = 1 - 2 E z c + E c^2.
    products = sum(level * (density[i] - density[i + 1]) for i, level in enumerate(levels))
    squares = sum(level * level * (below[i + 1] - below[i]) for i, level in enumerate(levels))
    return float(1 - 2 * products + squares)


def quantize(z: Array, bits: int) -> Array:
    """The index, uint8, of the centroid next to each entry; of no bits, zero."""
    if bits == 0:
        return jnp.zeros(z.shape, jnp.uint8)
    cells, thresholds = _tables(bits)
    magnitude = jnp.abs(z)
    # Two look-ups and one comparison, whatever the number of levels.
    cell = jnp.minimum(magnitude * _CELLS_PER_UNIT, len(cells) - 1).astype(jnp.int32)
    below = jnp.take(jnp.asarray(cells), cell, mode="clip")
    level = below + (magnitude > jnp.take(jnp.asarray(thresholds, z.dtype), below, mode="clip"))
    half = 2 ** (bits - 1)
    return jnp.where(z < 0, half - 1 - level, half + level).astype(jnp.uint8)


def values(codes: Array, bits: int, dtype: jnp.dtype) -> Array:
    """The centroids with these indices; the last one for indices beyond."""
    return jnp.take(jnp.asarray(centroids(bits), dtype), codes.astype(jnp.int32), mode="clip")


@functools.cache
def _tables(bits: int) -> tuple[np.ndarray, np.ndarray]:
    """For each cell of magnitudes how many thresholds lie below it; and the thresholds, after the last one infinity."""
    levels = centroids(bits)[2 ** (bits - 1) :].astype(np.float64)
    between = (levels[1:] + levels[:-1]) / 2
    thresholds = np.append(between, np.inf).astype(np.float32)
    highest = int(np.ceil(between[-1] * _CELLS_PER_UNIT)) if len(between) else 0
    edges = np.arange(highest + 1) / _CELLS_PER_UNIT
    return np.searchsorted(thresholds, edges).astype(np.int32), thresholds


def uniform_values(codes: Array, step: float, dtype: jnp.dtype) -> Array:
    """The centroid of the cell (k - 1/2) step .. (k + 1/2) step for each code k."""
    table = jnp.asarray(uniform_centroids(step), dtype)
    index = jnp.abs(codes.astype(jnp.int32))
    near = jnp.take(table, index, mode="clip") * jnp.sign(codes).astype(dtype)
    return jnp.where(index < table.size, near, codes.astype(dtype) * jnp.asarray(step, dtype))


@functools.lru_cache(maxsize=64)
def uniform_centroids(step: float) -> np.ndarray:
    """The centroids of the cells 0, 1, 2, ... of this width, float64; zero's is zero."""
    return np.array([0.0, *(cell.centroid for cell in _cells(step))])


@functools.lru_cache(maxsize=64)
def uniform_distortion(step: float) -> float:
    """The mean squared error of centroids of cells of this width."""
    return 1 - 2 * sum(cell.mass * cell.centroid**2 for cell in _cells(step))


def uniform_entropy(step: float) -> float:
    """The entropy, in bits, of which cell of this width a standard normal variable is in."""
    inner = math.erf(step / 2 / math.sqrt(2))
    masses = [inner, *(cell.mass for cell in _cells(step) for _ in range(2))]
    return -sum(mass * math.log2(mass) for mass in masses if mass > 0)


@functools.lru_cache(maxsize=64)
def uniform_step(bits: float) -> float:
    """The cells' width at which that entropy is `bits`, to six digits, so that all machines find the same."""
    low, high = 2.0**-10, 16.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if uniform_entropy(middle) > bits else (low, middle)
    return float(f"{low:.6g}")


@dataclasses.dataclass(frozen=True)
class _Cell:
    mass: float
    centroid: float


def _cells(step: float) -> tuple[_Cell, ...]:
    """The cells 1, 2, ... up to nine standard deviations, one at least."""
    edges = [(k + 0.5) * step for k in range(max(math.ceil(_FARTHEST / step), 1) + 1)]
    masses = [math.erfc(edge / math.sqrt(2)) / 2 for edge in edges]
    densities = [math.exp(-edge * edge / 2) / math.sqrt(2 * math.pi) for edge in edges]
    cells = []
    for k in range(len(edges) - 1):
        mass = masses[k] - masses[k + 1]
        cells.append(_Cell(mass, (densities[k] - densities[k + 1]) / mass if mass > 0 else (k + 1) * step))
    return tuple(cells)
