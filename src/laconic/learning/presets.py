"""Both directions' codecs as one choice, for `fed_avg(compression=...)`.

    process = learning.fed_avg(model, optax.sgd(0.1), compression=learning.presets.balanced())

Clients keep nothing between rounds with any of them.
"""

import dataclasses

from laconic.codecs import Codec, Identity, ShuffledZstd, TensorSpec, chain, concatenate, identity, stochastic_grid
from laconic.errors import require
from laconic.learning._parts import Aggregator, Distributor, encoded_broadcast, encoded_mean
from laconic.learning._reference import STEP_IN_RMS, reference_broadcast


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
    bytes down and 0.5 up, where units that do not take part have updates of zero. Needs the extra `zstd`.

    Raises:
      MissingExtraError: if Zstandard is not installed.
    """
    require("zstandard", extra="zstd", purpose="lossless compression")
    return Compression("lossless", encoded_broadcast(_exact), encoded_mean(_exact))


def balanced() -> Compression:
    """The one to begin with: no loss of accuracy that could be measured on the tutorial's CNN and on a perceptron.

    A character LSTM does lose with it: where each client's update is small and counts, take finer grids
    (`reference_broadcast`, `codecs.stochastic_grid`), and look at docs/accuracy-per-byte.md.

    Down, the difference from the model before the first round, on a grid of 2.5 root mean squares
    (`reference_broadcast`); up, all tensors as one vector on an unbiased grid of 56 root mean squares
    (`codecs.stochastic_grid`). docs/accuracy-per-byte.md has its measured curve.
    """
    return _grids("balanced", down=STEP_IN_RMS, up=56.0)


def frugal() -> Compression:
    """Fewer bytes for a point of accuracy, or less: as `balanced`, on coarser grids."""
    return _grids("frugal", down=4.5, up=128.0)


def _grids(name: str, *, down: float, up: float) -> Compression:
    return Compression(
        name,
        reference_broadcast(step_in_rms=down),
        encoded_mean(concatenate(stochastic_grid(step_in_rms=up))),
    )


def _exact(spec: TensorSpec) -> Codec:
    # A frame of its own costs a small tensor more than it saves.
    return chain(Identity(), ShuffledZstd()) if spec.size >= 2**10 else identity()
