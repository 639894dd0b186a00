"""The four parts of a learning process. Each has `initialize` and `next`, and each can be replaced.

`initialize` takes the model's weights and gives the part's state, a tree of arrays that the server holds; `next` is
written in the federated language: it takes and gives placed values.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from laconic.codecs import CodecFor, bind, identity
from laconic.codecs.random import Key
from laconic.errors import ArgumentTypeError
from laconic.federated import (
    CLIENTS,
    Value,
    federated_aggregate,
    federated_broadcast,
    federated_map,
    federated_sum,
    federated_value,
)
from laconic.federated._intrinsics import divide_or_zero
from laconic.learning._model import Weights

State = Any
Memory = Any

LEFT_OUT = -1.0
"""The weight that a client sends to say that it is to be left out: it says so at no extra byte."""


class ClientResult(NamedTuple):
    """What one client's work gives.

    Attributes:
      update: trained weights minus received weights, zero if the client is left out.
      weight: float32, how much the update counts; `LEFT_OUT` if it holds NaN or infinity.
      metrics: each metric's sums over the client's examples.
    """

    update: Weights
    weight: Any
    metrics: Any


class Aggregated(NamedTuple):
    """What an aggregator gives at the server.

    Attributes:
      update: the mean update.
      left_out: float32, how many clients did not count.
    """

    update: Weights
    left_out: Any


@dataclasses.dataclass(frozen=True)
class Distributor:
    """Brings the model to the clients.

    Attributes:
      initialize: weights -> state.
      next: state@SERVER, weights@SERVER -> state@SERVER, {weights}@CLIENTS.
      received: state, weights -> the weights that clients would train from. None where these are random, or as good
        as the server's.
      cached_rounds: for how many rounds a client keeps what it received, where the broadcast has a `since`.
    """

    initialize: Callable[[Weights], State]
    next: Callable[[Value, Value], tuple[Value, Value]]
    received: Callable[[State, Weights], Weights] | None = None
    cached_rounds: int = 0


@dataclasses.dataclass(frozen=True)
class ClientWork:
    """What clients do with the model and their data.

    Attributes:
      initial_weights: key -> the model's weights before the first round.
      initialize: weights -> state.
      next: state@SERVER, {weights}@CLIENTS, {batches}@CLIENTS -> state@SERVER, {ClientResult}@CLIENTS.
      finalize_metrics: metrics' sums over all clients -> numbers.
    """

    initial_weights: Callable[[Key], Weights]
    initialize: Callable[[Weights], State]
    next: Callable[[Value, Value, Value], tuple[Value, Value]]
    finalize_metrics: Callable[[Mapping[str, Any]], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Aggregator:
    """Brings the updates to the server, as their mean.

    Attributes:
      initialize: weights -> state.
      next: state@SERVER, {update}@CLIENTS, {weight}@CLIENTS -> state@SERVER, Aggregated@SERVER. Where clients remember
        something, it also takes and gives that, {memory}@CLIENTS, as the last of its arguments and results.
      initial_memory: weights -> what a client remembers before its first round: a tree of arrays, without any if
        clients remember nothing. None is for nothing, too.
      memories_are_joint: weights -> whether the server's state goes with all clients' memories, so that these are
        dropped together or not at all.
    """

    initialize: Callable[[Weights], State]
    next: Callable[..., tuple[Value, ...]]
    initial_memory: Callable[[Weights], Memory] | None = None
    memories_are_joint: Callable[[Weights], bool] = lambda _: False


@dataclasses.dataclass(frozen=True)
class Finalizer:
    """Applies the mean update to the model.

    Attributes:
      initialize: weights -> state.
      next: state@SERVER, weights@SERVER, update@SERVER -> state@SERVER, weights@SERVER.
    """

    initialize: Callable[[Weights], State]
    next: Callable[[Value, Value, Value], tuple[Value, Value]]


def encoded_broadcast(codec: CodecFor | None = None) -> Distributor:
    """Sends the model through a codec; the clients train from what they decode.

    Args:
      codec: a codec, or a function that is called once for each model tensor's spec and gives its codec; None sends as
        is.
    """
    codec = identity() if codec is None else codec

    def next_(state: Value, weights: Value) -> tuple[Value, Value]:
        received, state = federated_broadcast(weights, codec=codec, state=state, label="model")
        return state, received

    return Distributor(lambda weights: bind(codec, weights).initial_sender_state(), next_)


def encoded_mean(codec: CodecFor | None = None) -> Aggregator:
    """The weighted mean of the updates, each multiplied by its weight and then sent through a codec.

    The sum runs in the encoded domain as far as the codec's stages commute with it. A client with weight `LEFT_OUT`
    does not count; if the mean itself is not finite it becomes zero, and all clients count as left out.

    With error feedback (`codecs.error_feedback`) each client remembers what its weighted updates have lost. One that is
    left out sends as if it remembered nothing and had nothing to send, and remembers what it did before.

    Args:
      codec: a codec, or a function that is called once for each model tensor's spec and gives its codec; None sends as
        is.
    """
    codec = identity() if codec is None else codec

    def next_(state: Value, update: Value, weight: Value, *memory: Value) -> tuple[Value, ...]:
        weighted = federated_map(_weighted, (update, weight))
        if memory:
            initial = federated_value(bind(codec, update.type.member.structs).initial_memory(), CLIENTS)
            used = federated_map(_unless_left_out, (weight, *memory, initial))
            total, state, updated = federated_sum(weighted, codec=codec, state=state, memory=used, label="update")
            memory = (federated_map(_unless_left_out, (weight, updated, *memory)),)
        else:
            total, state = federated_sum(weighted, codec=codec, state=state, label="update")
        weights = federated_aggregate(
            weight, WeightSums.zero(), _add_weight, _merge, lambda sums: sums, label="weight", kind="weights"
        )
        return state, federated_map(_mean, (total, weights)), *memory

    return Aggregator(
        lambda weights: bind(codec, weights).initial_state(),
        next_,
        lambda weights: bind(codec, weights).initial_memory(),
        lambda weights: any(
            each.needs_client_state and each.has_receiver_memory for each in bind(codec, weights).codecs
        ),
    )


def server_optimizer(optimizer: optax.GradientTransformation) -> Finalizer:
    """Takes the negated mean update as a gradient (Reddi et al. 2021, "Adaptive Federated Optimization", alg. 1)."""
    check_optimizer(optimizer, "server_optimizer")

    def apply(state: State, weights: Weights, update: Weights) -> tuple[State, Weights]:
        steps, state = optimizer.update(jax.tree.map(jnp.negative, update), state, weights)
        return state, optax.apply_updates(weights, steps)

    def next_(state: Value, weights: Value, update: Value) -> tuple[Value, Value]:
        state, weights = federated_map(apply, (state, weights, update))
        return state, weights

    def initialize(weights: Weights) -> State:
        return jax.tree.map(jnp.asarray, optimizer.init(weights))

    return Finalizer(initialize, next_)


def check_optimizer(optimizer: Any, name: str) -> None:
    """Raises unless it is an optax transformation."""
    if not isinstance(optimizer, optax.GradientTransformation):
        raise ArgumentTypeError(
            f"{name} must be an optax.GradientTransformation, such as optax.sgd(0.1), got {optimizer!r:.60} of type "
            f"{type(optimizer).__name__}"
        )


class WeightSums(NamedTuple):
    """Sums over clients: of the weights that count, of clients, and of those left out."""

    weight: Any
    clients: Any
    left_out: Any

    @classmethod
    def zero(cls) -> "WeightSums":
        """The sums over no clients."""
        return cls(*(jnp.zeros((), jnp.float32) for _ in cls._fields))


def _add_weight(sums: WeightSums, weight: Any) -> WeightSums:
    left_out = (weight < 0).astype(jnp.float32)
    return WeightSums(sums.weight + jnp.maximum(weight, 0), sums.clients + 1, sums.left_out + left_out)


def _merge(first: WeightSums, second: WeightSums) -> WeightSums:
    return jax.tree.map(jnp.add, first, second)


def _weighted(update: Weights, weight: Any) -> Weights:
    return jax.tree.map(lambda x: (x * jnp.maximum(weight, 0)).astype(x.dtype), update)


def _unless_left_out(weight: Any, tree: Any, otherwise: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(weight < 0, b, a), tree, otherwise)


def _mean(total: Weights, sums: WeightSums) -> Aggregated:
    mean = divide_or_zero(total, sums.weight)
    finite = all_finite(mean)
    return Aggregated(zero_unless(finite, mean), jnp.where(finite, sums.left_out, sums.clients))


def all_finite(tree: Any) -> Any:
    """Whether no leaf holds NaN or infinity."""
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


def zero_unless(condition: Any, tree: Any) -> Any:
    """The tree, or zeros."""
    return jax.tree.map(lambda x: jnp.where(condition, x, jnp.zeros_like(x)), tree)
