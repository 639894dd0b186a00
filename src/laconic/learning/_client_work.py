"""What clients do: train on their batches."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from laconic.codecs import random
from laconic.codecs.random import Key
from laconic.errors import ArgumentError, ArgumentTypeError
from laconic.federated import ClientWork as Fold
from laconic.federated import Value, federated_client_key, federated_map
from laconic.learning._model import Model, Weights, finalize_metrics, metric_sums, zero_sums
from laconic.learning._parts import LEFT_OUT, ClientResult, ClientWork, all_finite, check_optimizer, zero_unless
from laconic.learning._pooling import with_fast_pooling

Weighting = Literal["examples", "uniform"] | Callable[[Any, Any], Any]


class _Carry(NamedTuple):
    weights: Weights
    optimizer: Any
    metrics: Any
    examples: Any
    key: Any


def local_training(
    model: Model, client_optimizer: optax.GradientTransformation, *, weighting: Weighting = "examples"
) -> ClientWork:
    """One step of the optimizer for each batch, from a fresh optimizer state.

    The update is the trained minus the received weights.
    Metrics are those of the predictions made while training, before each step.

    Args:
      model: what to train.
      client_optimizer: an optax transformation.
      weighting: how much a client's update counts: "examples" as many as it trained on, "uniform" all alike, or a
        function of (examples, metric sums) to a scalar that is not negative.

    Raises:
      ArgumentError: if weighting is an unknown name.
      ArgumentTypeError: if an argument is of the wrong kind.
    """
    if not isinstance(model, Model):
        raise ArgumentTypeError(
            f"model must be a learning.Model, got {model!r:.60} of type {type(model).__name__}; "
            "wrap a Keras model with learning.from_keras"
        )
    check_optimizer(client_optimizer, "client_optimizer")
    weigh = _weighting(weighting)
    predict_train = model.predict_train
    predict = with_fast_pooling(model.predict if predict_train is None else predict_train)

    def loss(weights: Weights, batch: Any, key: Key) -> tuple[Any, Any]:
        outputs = predict(weights, batch.x) if predict_train is None else predict(weights, batch.x, key)
        # A padded row's loss may be anything: it is replaced before it can reach the gradient, not multiplied by zero.
        losses = jnp.where(batch.mask > 0, model.loss(outputs, batch.y), 0)
        return losses.sum() / jnp.maximum(batch.mask.sum(), 1), outputs

    def step(carry: _Carry, batch: Any) -> _Carry:
        key, own = random.derive(carry.key, 0), random.derive(carry.key, 1)
        (_, outputs), gradient = jax.value_and_grad(loss, has_aux=True)(carry.weights, batch, own)
        steps, optimizer = client_optimizer.update(gradient, carry.optimizer, carry.weights)
        sums = metric_sums(model, outputs, batch.y, batch.mask)
        return _Carry(
            optax.apply_updates(carry.weights, steps),
            optimizer,
            jax.tree.map(jnp.add, carry.metrics, sums),
            carry.examples + batch.mask.sum(),
            key,
        )

    def final(carry: _Carry, received: Weights, key: Key) -> ClientResult:
        del key
        update = jax.tree.map(jnp.subtract, carry.weights, received)
        weight = jnp.asarray(weigh(carry.examples, carry.metrics), jnp.float32)
        finite = all_finite((update, carry.metrics, weight)) & (weight >= 0)
        return ClientResult(
            zero_unless(finite, update), jnp.where(finite, weight, LEFT_OUT), zero_unless(finite, carry.metrics)
        )

    def next_(state: Value, received: Value, data: Value) -> tuple[Value, Value]:
        batch = data.type.member.element.structs

        def init(weights: Weights, key: Key) -> _Carry:
            sums = zero_sums(model, weights, batch)
            return _Carry(weights, client_optimizer.init(weights), sums, jnp.zeros((), jnp.float32), key)

        fold = Fold(init, step, final)
        return state, federated_map(fold, (received, federated_client_key(), data))

    return ClientWork(
        initial_weights=model.init,
        initialize=lambda weights: (),  # noqa: ARG005 - nothing is kept between rounds
        next=next_,
        finalize_metrics=lambda sums: finalize_metrics(model, sums),
    )


def _weighting(weighting: Weighting) -> Callable[[Any, Any], Any]:
    if callable(weighting):
        return weighting
    if weighting == "examples":
        return lambda examples, metrics: examples  # noqa: ARG005
    if weighting == "uniform":
        return lambda examples, metrics: jnp.ones((), jnp.float32)  # noqa: ARG005
    raise ArgumentError(f"weighting must be 'examples', 'uniform' or a function, got {weighting!r}")
