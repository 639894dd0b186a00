"""Both directions' codecs as one choice, for `fed_avg(compression=...)`.

    process = learning.fed_avg(model, optax.sgd(0.1), compression=learning.presets.balanced())

Clients keep nothing between rounds with any of them.
"""

import dataclasses
import math
from typing import Any

import jax

from laconic.codecs import (
    Codec,
    Identity,
    ShuffledZstd,
    TensorSpec,
    chain,
    concatenate,
    dithered,
    identity,
    stochastic_grid,
)
from laconic.errors import require
from laconic.federated import Value
from laconic.learning._model import Weights
from laconic.learning._parts import Aggregator, Distributor, State, encoded_broadcast, encoded_mean
from laconic.learning._reference import reference_broadcast

_LARGE = 2**17  # weights; a crude sign of how much noise they can take between them


@dataclasses.dataclass(frozen=True)
class Compression:
    """How the model and the updates travel.

    Attributes:
      name: for people.
      distributor: brings the model to the clients.
      aggregator: brings the updates back.
    """

    name: str
    distributor: Distributor
    aggregator: Aggregator


def lossless() -> Compression:
    """Everything arrives bit for bit, so that training is the same as without compression.

    Bytes of floats, shuffled, through Zstandard (`codecs.ShuffledZstd`): of the tutorial's model about 0.85 of fp32's
    bytes down and 0.46 up, where units that do not take part have updates of zero. Needs the extra `zstd`.

    Raises:
      MissingExtraError: if Zstandard is not installed.
    """
    require("zstandard", extra="zstd", purpose="lossless compression")
    return Compression("lossless", encoded_broadcast(_exact), encoded_mean(_exact))


def careful() -> Compression:
    """For models that `balanced` costs accuracy: small errors at a twentieth of the bytes.

    Down, the difference from the model before the first round, dithered with a step of 0.7 root mean squares, that is
    with an nmse of 0.04, drawn anew in each round (`reference_broadcast`, `codecs.dithered`); up, all tensors as one
    vector on an unbiased grid of 4 root mean squares (`codecs.stochastic_grid`).
    """
    return _with_grid("careful", _dithered_broadcast(0.7), up=4.0)


def balanced() -> Compression:
    """The one to begin with: forty to a hundred times fewer bytes, and as good a model or nearly.

    It goes by the model's size. From 2**17 weights on: down, the difference from the model before the first round, on
    a grid of 2 root mean squares (`reference_broadcast`); up, all tensors as one vector on an unbiased grid of 40
    (`codecs.stochastic_grid`). That costs the tutorial's CNN and a perceptron no accuracy that could be measured.
    Smaller models take few bytes anyhow, and cannot spread as much noise over weights that hardly matter: down, a
    dithered grid of 2 root mean squares; up, one of 12.

    docs/accuracy-per-byte.md has what it costs each of several models. Where that is too much, `careful` is finer.
    """
    return _by_size(
        "balanced",
        large=_with_grid("large", reference_broadcast(), up=40.0),
        small=_with_grid("small", _dithered_broadcast(2.0), up=12.0),
    )


def frugal() -> Compression:
    """Fewer bytes for a point of accuracy, or less: as `balanced` for large models, on coarser grids, for all sizes."""
    return _with_grid("frugal", reference_broadcast(step_in_rms=4.5), up=128.0)


def _with_grid(name: str, distributor: Distributor, *, up: float) -> Compression:
    return Compression(name, distributor, encoded_mean(concatenate(stochastic_grid(step_in_rms=up))))


def _dithered_broadcast(step_in_rms: float) -> Distributor:
    return reference_broadcast(codec=concatenate(dithered(step_in_rms=step_in_rms)))


def _by_size(name: str, *, large: Compression, small: Compression) -> Compression:
    """One of two, by the number of the model's weights, which is known only with the model."""

    def of(tree: Any) -> Compression:
        return large if sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) >= _LARGE else small

    def of_value(value: Value) -> Compression:
        return of(value.type.member.structs)

    def received(state: State, weights: Weights) -> Weights:
        own = of(weights).distributor.received
        return weights if own is None else own(state, weights)

    return Compression(
        name,
        Distributor(
            lambda weights: of(weights).distributor.initialize(weights),
            lambda state, weights: of_value(weights).distributor.next(state, weights),
            received,
        ),
        Aggregator(
            lambda weights: of(weights).aggregator.initialize(weights),
            lambda state, update, weight: of_value(update).aggregator.next(state, update, weight),
        ),
    )


def _exact(spec: TensorSpec) -> Codec:
    # A frame of its own costs a small tensor more than it saves.
    return chain(Identity(), ShuffledZstd()) if spec.size >= 2**10 else identity()
