"""What Laconic knows of a model: a small record of pure functions."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from laconic.codecs.random import Key

Weights = Any
"""A tree of arrays."""

AnyArray = Array | np.ndarray
"""Where users may pass NumPy's arrays as well as JAX's."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric that sums over examples, batches and clients, and is finalised once.

    Attributes:
      sums: outputs [n, ...], labels [n, ...], mask [n] (1.0 for an example, 0.0 for padding) -> a tree of float sums.
      finalize: the sums of all -> a number.
    """

    sums: Callable[[Any, Any, Float[AnyArray, " n"]], Any]
    finalize: Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class Model:
    """A model as pure functions of its weights.

    Attributes:
      init: key -> weights.
      predict: weights, inputs [n, ...] -> outputs [n, ...].
      loss: outputs, labels -> the loss of each example [n].
      metrics: by name; "loss" is there by itself.
      predict_train: weights, inputs, key -> outputs, where training differs (dropout); None where it does not.
    """

    init: Callable[[Key], Weights]
    predict: Callable[[Weights, Any], Any]
    loss: Callable[[Any, Any], Float[Array, " n"]]
    metrics: Mapping[str, Metric] = dataclasses.field(default_factory=dict)
    predict_train: Callable[[Weights, Any, Key], Any] | None = None


class MeanSums(NamedTuple):
    """The sums behind a mean over examples."""

    total: Float[Array, ""]
    examples: Float[Array, ""]


def mean_metric(per_example: Callable[[Any, Any], Float[Array, " n"]]) -> Metric:
    """The mean over examples of a function of outputs and labels; where there are no examples it is NaN."""

    def sums(outputs: Any, labels: Any, mask: Float[AnyArray, " n"]) -> MeanSums:
        # A padded row's value may be anything, even NaN, which a product with zero would keep.
        values = jnp.where(mask > 0, per_example(outputs, labels), 0)
        return MeanSums((values * mask).sum(), mask.sum())

    def finalize(sums: MeanSums) -> float:
        return float(sums.total) / float(sums.examples) if sums.examples else float("nan")

    return Metric(sums, finalize)


def accuracy() -> Metric:
    """The share of labels that are the largest of their outputs [n, ..., classes].

    An example with several labels, such as a line of characters, counts as one, with the share of them that is right.
    """

    def correct(outputs: Float[AnyArray, "n ... classes"], labels: Int[AnyArray, "n ..."]) -> Float[Array, " n"]:
        hits = jnp.asarray(outputs.argmax(axis=-1) == labels, jnp.float32)
        return hits.mean(axis=tuple(range(1, hits.ndim)))

    return mean_metric(correct)


def all_metrics(model: Model) -> dict[str, Metric]:
    """The model's metrics and its loss, by name in sorted order."""
    named = {**model.metrics, "loss": mean_metric(model.loss)}
    return {name: named[name] for name in sorted(named)}


def metric_sums(model: Model, outputs: Any, labels: Any, mask: Float[AnyArray, " n"]) -> dict[str, Any]:
    """All metrics' sums over one batch."""
    return {name: metric.sums(outputs, labels, mask) for name, metric in all_metrics(model).items()}


def finalize_metrics(model: Model, sums: Mapping[str, Any]) -> dict[str, float]:
    """Numbers from sums."""
    return {name: float(metric.finalize(sums[name])) for name, metric in all_metrics(model).items()}


def zero_sums(model: Model, weights: Weights, batch: Any) -> dict[str, Any]:
    """The sums of no examples, in the types that `metric_sums` gives."""

    def of_batch(weights: Weights, batch: Any) -> dict[str, Any]:
        return metric_sums(model, model.predict(weights, batch.x), batch.y, batch.mask)

    return jax.tree.map(lambda spec: jnp.zeros(spec.shape, spec.dtype), jax.eval_shape(of_batch, weights, batch))
