"""`check_stage`: everything that a stage promises, checked."""

import contextlib
import os
from collections.abc import Callable
from typing import Any

import jax

from laconic.codecs import Stage, random
from laconic.errors import ArgumentError, ArgumentTypeError
from laconic.testing import _declaration, _elsewhere, _inputs, _process, _statistics, _sums, _tracing, _values
from laconic.testing._report import CheckResult, Failed, NotApplicable, StageCheckError, StageReport, summary
from laconic.testing._subject import Subject

_MIN_SEEDS = 200

_OF_DECLARATION: tuple[tuple[str, Callable[[Stage], str]], ...] = (
    ("fields", _declaration.check_fields),
    ("declared names", _declaration.check_declared_names),
    ("flags", _declaration.check_flags),
    ("registration", _declaration.check_registration),
)

# From cheap to dear, and each may rely on those before it.
_OF_BEHAVIOUR: tuple[tuple[str, Callable[[Subject], str]], ...] = (
    ("parameters", _declaration.check_parameters),
    ("jit encode", _tracing.check_jit_encode),
    ("output names", _tracing.check_output_names),
    ("regenerated names", _tracing.check_regenerated_names),
    ("report names", _tracing.check_report_names),
    ("jit decode", _tracing.check_jit_decode),
    ("sizes", _values.check_sizes),
    ("round trip", _values.check_round_trip),
    ("pure", _values.check_pure),
    ("jit equals eager", _values.check_jit_equals_eager),
    ("lossless", _values.check_lossless),
    ("commutes with sum", _sums.check_sum),
    ("stochastic", _statistics.check_stochastic),
    ("unbiased", _statistics.check_unbiased),
    ("state", _sums.check_state),
    ("memory", _sums.check_memory),
    ("wire", _values.check_wire),
    ("other process", _elsewhere.check_other_process),
)


def check_stage(
    stage: Stage,
    *,
    inputs: Any = None,
    clients: int = 3,
    seeds: int = 4096,
    seed: int = 0,
    other_process: bool = True,
) -> StageReport:
    """Checks that a codec stage keeps the promises of the stage interface.

    It is made for a test: `check_stage(MyStage())`. It takes a few seconds, most of them to compile and to start a
    second process that decodes what this one encoded.

    Args:
      stage: what to check, an instance.
      inputs: what to check it with: an array, a sequence, or a mapping of arrays by name. None takes vectors, a matrix,
        a scalar, one entry and none, as float32, float16, bfloat16, int32 and uint8, each with normal values, one
        spike, alternating signs, a constant, and zero. The stage's `check` may refuse some of the shapes and dtypes.
      clients: how many clients contribute to a sum.
      seeds: how many keys bias is measured over, at least 200. A claim of unbiasedness that is true fails with a
        probability below 1e-6; how small a bias shows falls with the root of this number.
      seed: of all that is drawn; the same seed gives the same result.
      other_process: whether to start the second process.

    Returns:
      What was checked and measured; printed, a table.

    Raises:
      StageCheckError: if the stage breaks a promise; it names the stage, the check, what was expected and what was got.
      ArgumentTypeError: if the stage is not one, or an input is not an array.
      ArgumentError: if another argument is out of its range.
    """
    __tracebackhide__ = True
    _check_arguments(stage, clients, seeds, seed)
    results = [_run(stage, name, check, stage) for name, check in _OF_DECLARATION]
    given = _inputs.default_inputs(seed) if inputs is None else _inputs.given_inputs(inputs)
    accepted, refused = _attributed(stage, "inputs", _inputs.accepted, stage, given)
    subject = Subject(stage, accepted, clients, seeds, seed, other_process)
    with _precision(accepted):
        results += [_run(stage, name, check, subject) for name, check in _OF_BEHAVIOUR]
    return StageReport(str(stage), tuple(map(str, accepted.specs.values())), refused, tuple(results))


def _run(stage: Stage, name: str, check: Callable[[Any], str], argument: Any) -> CheckResult:
    __tracebackhide__ = True
    try:
        return CheckResult(name, _attributed(stage, name, check, argument))
    except NotApplicable as reason:
        return CheckResult(name, str(reason), ran=False)


def _attributed(stage: Stage, check: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a check; whatever goes wrong in it is the stage's failure."""
    __tracebackhide__ = True
    name = str(getattr(stage, "name", type(stage).__qualname__))
    try:
        return function(*arguments)
    except NotApplicable:
        raise
    except Failed as failure:
        cause, what = failure.__cause__, str(failure)
    except Exception as error:
        cause, what = error, f"expected no error, got {summary(error)}"
    raise StageCheckError(f"stage {name!r} fails the check {check!r}: {what}", stage=name, check=check) from cause


def _precision(inputs: _inputs.Inputs) -> contextlib.AbstractContextManager[Any]:
    """As a codec sets it: 64 bits only for 64-bit tensors, however the process has configured JAX."""
    return jax.enable_x64(any(spec.dtype.itemsize == 8 for spec in inputs.specs.values()))


def _check_arguments(stage: Any, clients: int, seeds: int, seed: int) -> None:
    if _process.MARK in os.environ:
        raise ArgumentError(
            "check_stage was called while another process imported the stage's module; call it in a test, or under "
            'if __name__ == "__main__":'
        )
    if isinstance(stage, type) and issubclass(stage, Stage):
        raise ArgumentTypeError(f"stage must be an instance, such as {stage.__name__}(), got the class")
    if not isinstance(stage, Stage):
        raise ArgumentTypeError(f"stage must be a codecs.Stage, got {stage!r:.60} of type {type(stage).__name__}")
    for name, value, least in (("clients", clients, 2), ("seeds", seeds, _MIN_SEEDS)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ArgumentTypeError(f"{name} must be a whole number, got {value!r} of type {type(value).__name__}")
        if value < least:
            raise ArgumentError(f"{name} must be at least {least}, got {value}")
    random.key(seed)
