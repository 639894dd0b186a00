"""How good a model is: on data in one place, or at the clients."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from laconic import engines
from laconic.codecs import CodecFor
from laconic.codecs.random import Key
from laconic.errors import ArgumentError
from laconic.federated import (
    ClientWork,
    Computation,
    Engine,
    SequenceType,
    Traffic,
    at_clients,
    at_server,
    federated_broadcast,
    federated_computation,
    federated_map,
    federated_sum,
    member_type,
)
from laconic.learning._model import Model, Weights, finalize_metrics, metric_sums, zero_sums
from laconic.learning._process import batch_type


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """What a federated evaluation gave.

    Attributes:
      metrics: the model's metrics over all examples of all clients.
      traffic: what travelled.
    """

    metrics: dict[str, float]
    traffic: Traffic


class Evaluation:
    """Evaluates a model's weights; made by `evaluation`, which compiles once for all calls."""

    def __init__(self, model: Model, codec: CodecFor | None, engine: Engine):
        self._model = model
        self._codec = codec
        self._engine = engine
        self._computations: dict[Any, Computation] = {}
        self._step = jax.jit(functools.partial(_add_batch, model))

    def central(self, weights: Weights, batches: Iterable[Any]) -> dict[str, float]:
        """The metrics over batches in one place.

        Args:
          weights: the model's.
          batches: with x, y and mask, such as `data.batches(examples, batch_size)` gives.

        Raises:
          ArgumentError: if there are no batches.
        """
        sums: Any = None
        for batch in batches:
            sums = self._step(weights, zero_sums(self._model, weights, batch) if sums is None else sums, batch)
        if sums is None:
            raise ArgumentError("batches must hold at least one batch to evaluate on, got none")
        return finalize_metrics(self._model, sums)

    def federated(self, weights: Weights, cohort: Sequence[Any], *, key: Key | int | None = None) -> EvaluationResult:
        """The metrics over the clients' own data: the model travels down, sums of metrics travel up.

        Args:
          weights: the model's.
          cohort: each client's batches, such as `BatchedClientData.cohort` gives.
          key: a seed, needed if the codec draws.

        Raises:
          ArgumentError: if the cohort is empty.
        """
        batches = batch_type(cohort)
        types = (member_type(weights), batches)
        if types not in self._computations:
            self._computations[types] = self._build(*types)
        run = self._computations[types].run(weights, list(cohort), key=key, engine=self._engine)
        return EvaluationResult(finalize_metrics(self._model, run.result), run.traffic)

    def _build(self, weights_type: Any, batches: SequenceType) -> Computation:
        # Not `self`: an engine that sends the computation elsewhere would have to send itself.
        model, codec = self._model, self._codec

        def init(weights: Weights) -> Any:
            return weights, zero_sums(model, weights, batches.element.structs)

        def step(carry: Any, batch: Any) -> Any:
            weights, sums = carry
            return weights, _add_batch(model, weights, sums, batch)

        fold = ClientWork(init, step, lambda carry, _: carry[1])

        @federated_computation(at_server(weights_type), at_clients(batches))
        def federated_evaluation(weights: Any, data: Any) -> Any:
            received = federated_broadcast(weights, codec=codec)
            return federated_sum(federated_map(fold, (received, data)), label="metrics", kind="metrics")

        return federated_evaluation


def _add_batch(model: Model, weights: Weights, sums: Any, batch: Any) -> Any:
    more = metric_sums(model, model.predict(weights, batch.x), batch.y, batch.mask)
    return jax.tree.map(jnp.add, sums, more)


def evaluation(model: Model, *, codec: CodecFor | None = None, engine: Engine | None = None) -> Evaluation:
    """An evaluation of a model, central or federated.

    Args:
      model: what to evaluate.
      codec: how the model travels to the clients in a federated evaluation; None sends it as it is.
      engine: where clients run; None is `engines.local()`.
    """
    return Evaluation(model, codec, engine or engines.local())
