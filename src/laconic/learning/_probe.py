"""What an optimizer does to its gradients, found by trying."""

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
_SMALLER = 0.125  # exact in all floats

Asked = Callable[[Any], bool]
"""A question about an optimizer, for a model: a tree of arrays or of their shapes and dtypes."""


def scales_entries(optimizer: optax.GradientTransformation) -> Asked:
    """Whether steps within a tensor are not in proportion to its gradient, as with Adam, Adagrad or Yogi.

    Tried with the same gradient, of entries between 1 and 4, in a few updates. That takes a compilation and the memory
    of an update, once for each model.
    """
    return _asked(_Tried(optimizer), _scales_entries)


def keeps_size(optimizer: optax.GradientTransformation) -> Asked:
    """Whether steps do not shrink in proportion to the gradient, as with a clipped norm, a normalized one, or Adam.

    Tried like `scales_entries`, with gradients of two sizes.
    """
    return _asked(_Tried(optimizer), _keeps_size)


@dataclasses.dataclass(frozen=True, eq=False)
class _Tried:
    """An optimizer known by identity, since its functions may have no hash."""

    optimizer: optax.GradientTransformation


_Steps = Callable[[Any], list[Any]]


def _asked(tried: _Tried, question: Callable[[_Steps, list[Any]], bool]) -> Asked:
    def asked(model: Any) -> bool:
        leaves, structure = jax.tree.flatten(model)
        return _answer(tried, question, structure, tuple((tuple(leaf.shape), leaf.dtype) for leaf in leaves))

    return asked


# Beside the function that asks, which Ray's workers are sent: a cache of its own could not be.
@functools.lru_cache(maxsize=64)
def _answer(
    tried: _Tried,
    question: Callable[[_Steps, list[Any]], bool],
    structure: Any,
    kinds: tuple[tuple[tuple[int, ...], Any], ...],
) -> bool:
    generator = np.random.default_rng(_SEED)
    # Not a pattern: rows that repeat would be of rank one, with which Muon steps along the gradient.
    gradients = [jnp.asarray(generator.uniform(1, 4, shape), dtype) for shape, dtype in kinds]
    total = jax.jit(functools.partial(_total, tried.optimizer))

    def steps(given: Any) -> list[Any]:
        return jax.tree.leaves(total(jax.tree.unflatten(structure, given)))

    return question(steps, gradients)


def _scales_entries(steps: _Steps, gradients: list[Any]) -> bool:
    return any(map(_is_out_of_proportion, gradients, steps(gradients)))


def _keeps_size(steps: _Steps, gradients: list[Any]) -> bool:
    smaller = steps([np.asarray(gradient) * _SMALLER for gradient in gradients])
    return any(map(_differ, [np.asarray(step) * _SMALLER for step in steps(gradients)], smaller))


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


def _differ(expected: Any, step: Any) -> bool:
    expected, step = (np.asarray(each, np.float32) for each in (expected, step))
    with np.errstate(invalid="ignore"):
        return step.size > 0 and bool(np.max(np.abs(step - expected)) > _TOLERANCE * np.max(np.abs(step)))
