"""Evaluation between rounds."""

from collections.abc import Callable, Mapping

from laconic import data
from laconic.data import ClientData, Examples
from laconic.errors import ArgumentError
from laconic.learning import Model, evaluation
from laconic.learning._model import Weights

Evaluate = Callable[[Weights], Mapping[str, float]]


def central_evaluation(model: Model, test: ClientData | Examples, *, batch_size: int = 100) -> Evaluate:
    """A function that gives a model's metrics on test data in one place, for `run(evaluate=...)`.

    The data is loaded now and kept, in batches.

    Args:
      model: what is trained.
      test: clients, whose examples are put together, or examples: arrays by field name, at least `x` and `y`.
      batch_size: how many examples are evaluated at a time.

    Raises:
      ArgumentError: if `batch_size` is below 1 or there are no examples.
      DataError: if there is no field `x` or `y`, or the examples do not fit together.
    """
    batches = data.batches(test.examples() if isinstance(test, ClientData) else test, batch_size)
    if not batches:
        raise ArgumentError("test must hold at least one example, got none")
    of_model = evaluation(model)

    def evaluate(weights: Weights) -> dict[str, float]:
        return of_model.central(weights, batches)

    return evaluate
