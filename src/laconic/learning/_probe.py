"""What a server's optimizer does to its gradients, found by trying."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

_UPDATES = 2  # since a rate that warms up may begin at zero
_TOLERANCE = 0.1  # of the largest share: beyond what bfloat16 rounds
_SEED = 0


def scales_entries(optimizer: optax.GradientTransformation) -> Callable[[Any], bool]:
    """Whether steps within a tensor are not in proportion to its gradient, as with Adam, Adagrad or Yogi.

    Tried with the same gradient, of entries between 1 and 4, in a few updates. That takes a compilation and the memory
    of a server's update, once for each model.

    Args:
      optimizer: an optax transformation.

    Returns:
      A function that is asked for a model, a tree of arrays or of their shapes and dtypes.
    """
    tried = _Tried(optimizer)

    def asked(model: Any) -> bool:
        leaves, structure = jax.tree.flatten(model)
        return _answer(tried, structure, tuple((tuple(leaf.shape), leaf.dtype) for leaf in leaves))

    return asked


@dataclasses.dataclass(frozen=True, eq=False)
class _Tried:
    """An optimizer known by identity, since its functions may have no hash."""

    optimizer: optax.GradientTransformation


# Beside the function that asks, which Ray's workers are sent: a cache of its own could not be.
@functools.lru_cache(maxsize=64)
def _answer(tried: _Tried, structure: Any, kinds: tuple[tuple[tuple[int, ...], Any], ...]) -> bool:
    generator = np.random.default_rng(_SEED)
    # Not a pattern: rows that repeat would be of rank one, with which Muon steps along the gradient.
    gradients = [jnp.asarray(generator.uniform(1, 4, shape), dtype) for shape, dtype in kinds]
    total = jax.jit(functools.partial(_total, tried.optimizer))(jax.tree.unflatten(structure, gradients))
    return any(map(_is_out_of_proportion, gradients, jax.tree.leaves(total)))


def _total(optimizer: optax.GradientTransformation, gradients: Any) -> Any:
    weights = jax.tree.map(jnp.zeros_like, gradients)
    state = optimizer.init(weights)
    total = weights
    for _ in range(_UPDATES):
        steps, state = optimizer.update(gradients, state, weights)
        total = optax.apply_updates(total, steps)
    return total


def _is_out_of_proportion(gradient: Any, step: Any) -> bool:
    # By NumPy: compiling a model's worth of reductions takes longer than all of this.
    share = np.asarray(step, np.float32) / np.asarray(gradient, np.float32)
    with np.errstate(invalid="ignore"):  # what is infinite shows when it trains
        return share.size > 0 and bool(np.ptp(share) > _TOLERANCE * np.max(np.abs(share)))
