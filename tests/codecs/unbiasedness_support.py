"""What the tests of unbiased stages share: inputs that are hard to be unbiased on, and t-tests over keys."""

import functools

import jax
import numpy as np

from laconic.codecs import TensorSpec, random

SIZE = 64
SEEDS = 400
LARGEST_T = 5.0
"""A t statistic of 399 degrees of freedom exceeds it with probability 1e-6."""

_NORMAL = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)

# All of one size, so that a stage is compiled once for all.
ADVERSARIAL = {
    "normal": _NORMAL,
    "constant": np.full(SIZE, 0.1, np.float32),
    "spike": np.eye(1, SIZE, 7, dtype=np.float32)[0] * 100 + np.linspace(-1, 1, SIZE, dtype=np.float32),
    "alternating": np.tile([-1.0, 1.0, 0.3, -0.3], SIZE // 4).astype(np.float32),
    "heavy tails": np.random.default_rng(1).standard_t(1.5, SIZE).astype(np.float32),
    "tiny": _NORMAL * np.float32(1e-30),
    "huge": _NORMAL * np.float32(1e30),
    "near the end": np.clip(_NORMAL, -1, 1) * np.float32(1.6e38),
    "zero": np.zeros(SIZE, np.float32),
}


@functools.cache
def compiled(stage):
    """A stage's encoding, `(key, x) -> outputs`, and its decoding of that, `(key, x) -> array`, compiled."""

    def encode(key, x):
        return stage.encode(key, x, {})

    def reproduce(key, x):
        spec = TensorSpec("x", x.shape, np.dtype(x.dtype))
        arrays = encode(key, x) | stage.regenerate(key, spec)
        return stage.decode(arrays, {}, num_summands=1, spec=spec)

    return jax.jit(encode), jax.jit(reproduce), jax.jit(jax.vmap(reproduce, in_axes=(0, None)))


def encoded(stage, x, seed=3):
    """A stage's outputs, as NumPy arrays."""
    return {name: np.asarray(array) for name, array in compiled(stage)[0](random.key(seed), x).items()}


def reproduced(stage, x, seed=3):
    """What a stage decodes of its own encoding."""
    return np.asarray(compiled(stage)[1](random.key(seed), x))


def errors_over_seeds(stage, x, count=SEEDS, seed=0):
    """Errors of what a stage decodes, over the largest entry: one row a key, in double precision."""
    values = compiled(stage)[2](random.derive_each(random.key(seed), count), x)
    scale = float(np.abs(x).max()) or 1.0
    return np.asarray(values, np.float64) / scale - x.astype(np.float64) / scale


def mean_squared_error(stage, x, count=SEEDS, seed=0):
    """E|decoded - x|^2 / |x|^2, measured."""
    errors = errors_over_seeds(stage, x, count, seed)
    return (errors**2).sum(axis=1).mean() / ((x.astype(np.float64) / np.abs(x).max()) ** 2).sum()


def t_statistics(errors, x):
    """Of the errors' sum, their sum along the input's signs, with alternating signs, and in proportion to the input.

    The first shows a shift, the others shrinking and what cancels in a sum. Each sums over entries, which makes it
    nearly normal. A bias that rounding in float32 explains is none: of a sum of some thousand entries, added up in as
    few lanes as a processor has, 2**-22 of it with eight lanes, and up to four times that is allowed.
    """
    scale = float(np.abs(x).max()) or 1.0
    alternating = np.where(np.arange(x.size) % 2, -1.0, 1.0)
    directions = np.stack([np.ones(x.size), np.sign(x), alternating, x.astype(np.float64) / scale], axis=1)
    sums = errors @ directions
    allowed = 2.0**-20 * np.abs(directions).sum(axis=0)
    excess = np.maximum(np.abs(sums.mean(axis=0)) - allowed, 0)
    deviation = sums.std(axis=0, ddof=1) / np.sqrt(len(sums))
    return excess / np.maximum(deviation, 2.0**-30)
