"""Named algorithms: choices of the four parts."""

import optax

from laconic.errors import ArgumentError, ArgumentTypeError
from laconic.federated import Engine
from laconic.learning import _parts
from laconic.learning._client_work import Weighting, local_training
from laconic.learning._model import Model
from laconic.learning._parts import Aggregator, Distributor, encoded_broadcast, encoded_mean
from laconic.learning._process import LearningProcess, compose
from laconic.learning.presets import Compression


def fed_avg(
    model: Model,
    client_optimizer: optax.GradientTransformation,
    server_optimizer: optax.GradientTransformation | None = None,
    *,
    distributor: Distributor | None = None,
    aggregator: Aggregator | None = None,
    compression: Compression | None = None,
    weighting: Weighting = "examples",
    engine: Engine | None = None,
) -> LearningProcess:
    """Federated Averaging (McMahan et al. 2017, algorithm 1), with a server optimizer (Reddi et al. 2021, algorithm 1).

    Each client of a round trains the model that it receives on its batches, and sends the difference; the server
    applies the weighted mean of the differences.

    Args:
      model: what to train.
      client_optimizer: an optax transformation; each client starts with a fresh state in each round.
      server_optimizer: takes the negated mean update as a gradient; None is `optax.sgd(1.0)`, plain averaging.
      distributor: how the model travels; None is `encoded_broadcast()`, uncompressed.
      aggregator: how updates travel; None is `encoded_mean()`, uncompressed.
      compression: both at once, such as `presets.balanced()`; in place of `distributor` and `aggregator`. Where it
        has a `for_optimizers`, what that gives for these two.
      weighting: how much a client counts; see `local_training`.
      engine: where clients run; None is `engines.local()`.

    Raises:
      ArgumentError: if there are a `compression` and one of what it stands for.
      ArgumentTypeError: if an argument is of the wrong kind.
    """
    server_optimizer = optax.sgd(1.0) if server_optimizer is None else server_optimizer
    if compression is not None:
        if not isinstance(compression, Compression):
            raise ArgumentTypeError(
                "compression must be a learning.Compression, such as learning.presets.balanced(), got "
                f"{compression!r:.60}"
            )
        if distributor is not None or aggregator is not None:
            raise ArgumentError("compression stands for distributor and aggregator, got it and one of these")
        if compression.for_optimizers is not None:
            compression = compression.for_optimizers(client_optimizer, server_optimizer)
        distributor, aggregator = compression.distributor, compression.aggregator
    return compose(
        encoded_broadcast() if distributor is None else distributor,
        local_training(model, client_optimizer, weighting=weighting),
        encoded_mean() if aggregator is None else aggregator,
        _parts.server_optimizer(server_optimizer),
        engine=engine,
    )
