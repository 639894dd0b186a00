"""What an optimizer does to its gradients, found by trying."""

import jax
import jax.numpy as jnp
import optax
import pytest

from laconic.learning._probe import keeps_size, scales_entries

TREE = {
    "matrix": jax.ShapeDtypeStruct((3, 4), jnp.float32),
    "kernel": jax.ShapeDtypeStruct((2, 2, 3, 4), jnp.bfloat16),
    "vector": jax.ShapeDtypeStruct((5,), jnp.float32),
    "scalar": jax.ShapeDtypeStruct((), jnp.float32),
}


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(1.0),
        optax.sgd(0.3, momentum=0.9, nesterov=True),
        optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(1.0)),
        optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(1.0)),
        optax.sgd(optax.linear_schedule(0.0, 1.0, 10)),
        optax.lars(0.1),
        optax.normalize_by_update_norm(),
        optax.set_to_zero(),
    ],
    ids=["sgd", "momentum", "clipped", "decayed", "warm-up", "lars", "normalized", "zero"],
)
def test_steps_along_the_gradient(optimizer):
    """Rates, momentum, clipping and norms of whole tensors leave an entry's share as it is."""
    assert not scales_entries(optimizer)(TREE)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adam(0.01, eps=1e-3),
        optax.adamw(0.01),
        optax.adagrad(0.1, initial_accumulator_value=1e-3),
        optax.yogi(0.01),
        optax.rmsprop(0.01),
        optax.sign_sgd(0.01),
        optax.lamb(0.01),
        optax.adam(optax.linear_schedule(0.0, 0.01, 10)),
        optax.contrib.muon(0.01),
    ],
    ids=["adam", "adamw", "adagrad", "yogi", "rmsprop", "sign", "lamb", "warm-up", "muon"],
)
def test_steps_of_another_direction(optimizer):
    """What divides entry by entry, or makes rows orthogonal, does not."""
    assert scales_entries(optimizer)(TREE)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (optax.sgd(1.0), False),
        (optax.sgd(0.3, momentum=0.9, nesterov=True), False),
        (optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(1.0)), False),
        (optax.sgd(optax.linear_schedule(0.0, 1.0, 10)), False),
        (optax.set_to_zero(), False),
        (optax.chain(optax.clip_by_global_norm(1000.0), optax.sgd(1.0)), False),
        (optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0)), True),
        (optax.chain(optax.clip(2.0), optax.sgd(1.0)), True),
        (optax.normalize_by_update_norm(), True),
        (optax.adam(0.01), True),
        (optax.sign_sgd(0.01), True),
    ],
)
def test_steps_that_keep_their_size(optimizer, expected):
    """Clipping that takes hold, norms and Adam do not step an eighth as far for an eighth of the gradient."""
    assert keeps_size(optimizer)(TREE) is expected


def test_a_part_of_the_model():
    """One tensor is enough, found by its name in the tree."""
    labels = {"matrix": "adam", "kernel": "sgd", "vector": "sgd", "scalar": "sgd"}
    parts = optax.partition({"adam": optax.adam(0.01), "sgd": optax.sgd(1.0)}, labels)
    assert scales_entries(parts)(TREE)
    assert not scales_entries(optax.partition({"adam": optax.sgd(0.1), "sgd": optax.sgd(1.0)}, labels))(TREE)


def test_tensors_of_one_entry_and_none():
    """There is no proportion to change."""
    assert not scales_entries(optax.adam(0.1))([jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((), (0, 4))])


class Unhashable:
    """A function that no cache can take as a key."""

    __hash__ = None

    def __call__(self, updates, state, weights=None):
        return jax.tree.map(jnp.sign, updates), state


def test_optimizers_need_no_hash():
    """An optimizer of one's own may be any callables."""
    probe = scales_entries(optax.GradientTransformation(lambda _: optax.EmptyState(), Unhashable()))
    assert probe(TREE)
    assert probe(TREE)


def test_infinite_steps_are_not_this_function_s_error():
    """An optimizer that diverges at once is asked without a warning."""
    assert not scales_entries(optax.scale(float("inf")))(TREE)
