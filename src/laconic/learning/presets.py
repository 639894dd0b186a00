"""Both directions' codecs as one choice, for `fed_avg(compression=...)`.

    process = learning.fed_avg(model, optax.sgd(0.1), compression=learning.presets.balanced())

Clients keep nothing between rounds with any of them.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import optax

from laconic.codecs import (
    Codec,
    Dithered,
    Identity,
    RowColumn,
    ShuffledZstd,
    TensorSpec,
    chain,
    concatenate,
    dithered,
    eden,
    identity,
    karhunen_loeve,
    stochastic_grid,
)
from laconic.errors import require
from laconic.learning._model import Weights
from laconic.learning._parts import Aggregator, Distributor, State, encoded_broadcast, encoded_mean
from laconic.learning._probe import keeps_size, scales_entries
from laconic.learning._reference import is_large_matrix, reference_broadcast

_LARGE = 2**17  # weights; a crude sign of how much noise they can take between them


@dataclasses.dataclass(frozen=True)
class Compression:
    """How the model and the updates travel.

    Attributes:
      name: for people.
      distributor: brings the model to the clients.
      aggregator: brings the updates back.
      for_optimizers: the client's and the server's optimizer -> what takes this one's place with them. None is this one
        with all.
    """

    name: str
    distributor: Distributor
    aggregator: Aggregator
    for_optimizers: Callable[[optax.GradientTransformation, optax.GradientTransformation], "Compression"] | None = None


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
    """For models that `balanced` costs accuracy: small errors at a twelfth of the bytes or less.

    Down, the difference from the model before the first round, dithered with a step of 0.7 root mean squares, that is
    with an nmse of 0.04, drawn anew in each round (`reference_broadcast`, `codecs.dithered`); up, all tensors as one
    vector on an unbiased grid of 4 root mean squares (`codecs.stochastic_grid`). Models below 2**17 weights use the E8
    lattice down, with half that step, and 1.5 bits after a random rotation up (`codecs.eden`).
    """
    small = _fine()
    large = _pair(_dithered_grid(0.7), _grid(4.0))
    return _chosen("careful", lambda tree: large if _is_large(tree) else small)


def balanced() -> Compression:
    """The one to begin with: as good a model or nearly, for about forty to a hundred times fewer bytes if it is large.

    It goes by the model's size, and by the optimizers. From 2**17 weights on: down, the difference from the
    model before the first round, on a grid of 2 root mean squares (`reference_broadcast`); up, all tensors as one
    vector on an unbiased grid of 40 (`codecs.stochastic_grid`). That costs the tutorial's CNN and a perceptron no
    accuracy that could be measured. It relies on updates, and so their errors, that become smaller as gradients do, and
    on many entries that hardly matter. A server's optimizer that divides each entry by what it has seen, such as Adam,
    makes errors large where updates are small: then down a dithered grid of 1.3 root mean squares, which errs another
    way in each round, and up one of 10. A client's optimizer that clips or normalizes gradients, as with recurrent and
    attention models, keeps errors as large as they were, and all entries count: then down, with a step of 1.25, in the
    coordinates of principal directions (`codecs.karhunen_loeve`), and up half a bit after a random rotation
    (`codecs.eden`). Smaller models take few bytes anyhow, and cannot spread as much noise over their weights: down,
    dithered on the E8 lattice with a step of 1.9; up, at 0.31 bits after a random rotation. Where their clients clip or
    normalize, unless images are convolved, that would cost points: then they travel as with `careful`.

    docs/accuracy-per-byte.md has what it costs each of several models. Where that is too much, `careful` is finer.
    """
    small, fine = _pair(_dithered_lattice(1.9), _rotated(0.31)), _fine()
    large = _pair(reference_broadcast(), _grid(40.0))
    scaled = _pair(_dithered_grid(1.3), _grid(10.0))
    clipped = _pair(_dithered_along_directions(1.25), _rotated(0.5))

    def for_optimizers(client: optax.GradientTransformation, server: optax.GradientTransformation) -> Compression:
        keeps, scales = keeps_size(client), scales_entries(server)

        def choose(tree: Any) -> _Pair:
            if not _is_large(tree):
                return fine if keeps(tree) and not _convolves_images(tree) else small
            return clipped if keeps(tree) else scaled if scales(tree) else large

        return _chosen("balanced", choose)

    plain = _chosen("balanced", lambda tree: large if _is_large(tree) else small)
    return dataclasses.replace(plain, for_optimizers=for_optimizers)


def frugal() -> Compression:
    """Fewer bytes for a point of accuracy, or less: as `balanced` for large models, on coarser grids, for all sizes."""
    distributor, aggregator = _pair(reference_broadcast(step_in_rms=4.5), _grid(128.0))
    return Compression("frugal", distributor, aggregator)


_Pair = tuple[Distributor, Aggregator]


def _pair(distributor: Distributor, update: Codec) -> _Pair:
    return distributor, encoded_mean(concatenate(update))


def _fine() -> _Pair:
    """For small models in which all weights count."""
    return _pair(_dithered_lattice(0.35), _rotated(1.5))


def _grid(step_in_rms: float) -> Codec:
    return stochastic_grid(step_in_rms=step_in_rms)


def _rotated(bits: float) -> Codec:
    return eden(bits, entropy_coded=True)


def _dithered_lattice(step_in_rms: float) -> Distributor:
    return reference_broadcast(codec=concatenate(dithered(step_in_rms=step_in_rms, lattice="E8")))


def _dithered_grid(step_in_rms: float) -> Distributor:
    return _matrices_apart(chain(Dithered(step=step_in_rms), RowColumn()), step_in_rms)


def _dithered_along_directions(step_in_rms: float) -> Distributor:
    return _matrices_apart(karhunen_loeve(step_in_rms), step_in_rms)


def _matrices_apart(matrix: Codec, step_in_rms: float) -> Distributor:
    """The same step for all tensors, without joining large ones, whose rows and columns help the coder."""
    other = concatenate(dithered(step=step_in_rms))
    return reference_broadcast(codec=lambda spec: matrix if is_large_matrix(spec) else other)


def _is_large(tree: Any) -> bool:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) >= _LARGE


def _convolves_images(tree: Any) -> bool:
    """Whether a tensor has the dimensions of such a kernel: networks of these take far more noise than others."""
    return any(len(leaf.shape) > 3 for leaf in jax.tree.leaves(tree))


def _chosen(name: str, choose: Callable[[Any], _Pair]) -> Compression:
    """A pair by the model's tensors, which are known only with the model."""

    def distributor(tree: Any) -> Distributor:
        return choose(tree)[0]

    def received(state: State, weights: Weights) -> Weights:
        own = distributor(weights).received
        return weights if own is None else own(state, weights)

    return Compression(
        name,
        Distributor(
            lambda weights: distributor(weights).initialize(weights),
            lambda state, weights: distributor(weights.type.member.structs).next(state, weights),
            received,
        ),
        Aggregator(
            lambda weights: choose(weights)[1].initialize(weights),
            lambda state, update, weight: choose(update.type.member.structs)[1].next(state, update, weight),
        ),
    )


def _exact(spec: TensorSpec) -> Codec:
    # A frame of its own costs a small tensor more than it saves.
    return chain(Identity(), ShuffledZstd()) if spec.size >= 2**10 else identity()
