"""The stage check lets good stages pass, and catches each broken promise by name."""

import dataclasses
import subprocess
import sys
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
from broken_stages import BROKEN, Adaptive, PassThrough
from broken_values import ClaimsLossless, TakesMaximum

from laconic import codecs
from laconic.codecs import Merge, random
from laconic.errors import ArgumentError, ArgumentTypeError, LaconicError
from laconic.testing import StageCheckError, check_stage

VALUES = np.array([0.3, -1.25, 0.0, 2.0, -0.07, 1.0, 0.6, -0.6, 0.11], np.float32)
SMALL = {"values": VALUES, "zeros": np.array([0.0, -0.0] * 4 + [0.0], np.float32), "doubled": 2 * VALUES[::-1]}
"""Enough for most broken stages, and quick to compile."""


@codecs.register
@dataclasses.dataclass(frozen=True)
class AllMerges(Adaptive):
    """A good adaptive stage with a report of each kind."""

    name: ClassVar[str] = "test.AllMerges"
    merges: ClassVar[dict[str, Merge]] = {"sum": Merge.SUM, "low": Merge.MIN, "high": Merge.MAX, "each": Merge.STACK}

    def check(self, spec):
        if not spec.is_float:
            raise ArgumentTypeError(f"{spec.name} is {spec}, but floats are expected")

    def report(self, x, encoded, parameters):
        low, high = jnp.min(x, initial=0).astype(jnp.float32), jnp.max(x, initial=0).astype(jnp.float32)
        return {"sum": x.sum().astype(jnp.float32), "low": low, "high": high, "each": high}

    def update_state(self, state, merged):
        return {"offset": jnp.float32(merged["each"].mean() + merged["low"] + merged["high"] + merged["sum"]) / 8}


@codecs.register
@dataclasses.dataclass(frozen=True)
class KeepsFew(PassThrough):
    """A good unbiased stage with rare, large errors: keeps an entry with probability 1/32, times 32."""

    name: ClassVar[str] = "test.KeepsFew"
    is_stochastic = is_unbiased = True

    def encode(self, key, x, parameters):
        return {"values": jnp.where(random.uniform(key, x.shape) < 1 / 32, 32 * x, 0)}


# Good stages pass.


@pytest.mark.parametrize(
    "stage",
    [
        codecs.Identity(),
        codecs.Flatten(),
        codecs.UniformQuantizer(bits=8),
        codecs.UniformQuantizer(bits=16, stochastic=False),
        codecs.UniformQuantizer(bits=4, value_range=(-1.0, 1.0)),
        AllMerges(),
    ],
    ids=str,
)
def test_good_stages_pass_every_check(stage):
    """Built-in stages, and an adaptive one with a report of each kind, keep all promises."""
    report = check_stage(stage)
    assert "other process" in report.checks
    assert ("state" in report.checks) == stage.is_adaptive
    assert ("unbiased" in report.checks) == (stage.is_unbiased and not stage.is_lossless)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("stage", [KeepsFew(), codecs.UniformQuantizer(bits=3)], ids=str)
def test_unbiased_stages_never_raise_a_false_alarm(stage, seed):
    """Nor if their errors are rare and large, or not normal."""
    check_stage(stage, inputs=SMALL, seed=seed, seeds=1000, other_process=False)


# Broken stages are caught.


@pytest.mark.parametrize(("check", "phrase", "broken"), BROKEN, ids=[f"{b[0]}-{b[2].__name__}" for b in BROKEN])
def test_broken_stages_are_caught(check, phrase, broken):
    """The message names the stage and the check, and says what was expected and what was got, in one line."""
    with pytest.raises(StageCheckError) as caught:
        check_stage(broken(), inputs=SMALL, seeds=2000)
    message = str(caught.value)
    assert message.startswith(f"stage {broken.name!r} fails the check {check!r}: expected ")
    assert phrase in message
    assert ", got " in message
    assert "\n" not in message
    assert (caught.value.stage, caught.value.check) == (broken.name, check)


def test_every_check_has_a_stage_that_fails_it():
    """So no check is there that never fires."""
    report = check_stage(AllMerges(), inputs=SMALL, other_process=False)
    names = {result.name for result in report.results} | {"inputs"}
    assert names == {check for check, _, _ in BROKEN}


def test_default_inputs_show_what_a_vector_does_not():
    """A stage that fails on arrays without entries is caught, and told that it may refuse them."""
    with pytest.raises(StageCheckError, match=r"float32\[0\].*refuse such an input in check"):
        check_stage(TakesMaximum())


def test_a_stage_check_error_is_an_assertion_and_a_laconic_error():
    """So that pytest shows a failure, and `except LaconicError` works."""
    assert issubclass(StageCheckError, AssertionError)
    assert issubclass(StageCheckError, LaconicError)


# The report.


def test_the_report_reads_well():
    """One line for each check, with what was measured, and what was left out and why."""
    text = str(check_stage(codecs.UniformQuantizer(8), inputs=VALUES, other_process=False))
    lines = text.splitlines()
    assert lines[0].startswith("UniformQuantizer(bits=8, value_range=None, stochastic=True) passes ")
    assert lines[0].endswith(" checks on float32[9]")
    assert any(line.split()[0] == "unbiased" and "largest bias" in line for line in lines)
    assert any("not checked: the stage is stateless" in line for line in lines)


def test_refused_inputs_are_listed():
    """What `check` refuses is no failure, and is shown."""
    report = check_stage(codecs.UniformQuantizer(2), inputs=[VALUES, np.arange(3)], other_process=False)
    assert report.accepted == ("float32[9]",)
    assert report.refused == ("int64[3]",)


def test_a_class_without_a_module_cannot_be_decoded_elsewhere():
    """As in a notebook: that check is left out, and the report says so."""
    namespace = {"PassThrough": PassThrough, "codecs": codecs, "dataclasses": dataclasses}
    source = "@codecs.register\n@dataclasses.dataclass(frozen=True)\nclass Cell(PassThrough):\n    name = 'test.Cell'\n"
    exec(source, namespace)
    report = check_stage(namespace["Cell"](), inputs=VALUES)
    assert "other process" not in report.checks
    assert "Cell is at the top level of no module" in str(report)


# Inputs and arguments.


def test_inputs_may_be_an_array_a_sequence_or_a_mapping():
    """A failure calls them by their names."""
    for inputs, label in ((VALUES, "given"), ([VALUES], "input 0"), ({"mine": VALUES}, "mine")):
        with pytest.raises(StageCheckError, match=rf"{label} float32\[9\]"):
            check_stage(ClaimsLossless(), inputs=inputs, other_process=False)


@pytest.mark.parametrize("dtype", ["float64", "int64", "bool"])
def test_inputs_of_other_dtypes(dtype):
    """64-bit numbers are computed in 64 bits, and truth values travel, too."""
    assert check_stage(codecs.Identity(), inputs=VALUES.astype(dtype)).accepted == (f"{dtype}[9]",)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"stage": codecs.Identity}, ArgumentTypeError, r"an instance, such as Identity\(\)"),
        ({"stage": codecs.identity()}, ArgumentTypeError, "stage must be a codecs.Stage, got Codec"),
        ({"inputs": {}}, ArgumentError, "at least one array"),
        ({"inputs": ["text"]}, ArgumentTypeError, "input 0 must be an array"),
        ({"inputs": np.array([np.nan])}, ArgumentError, "must be finite"),
        ({"clients": 1}, ArgumentError, "clients must be at least 2, got 1"),
        ({"seeds": 100}, ArgumentError, "seeds must be at least 200, got 100"),
        ({"seed": -1}, ArgumentError, "seed must lie in"),
        ({"seeds": 1e3}, ArgumentTypeError, "seeds must be a whole number, got 1000.0 of type float"),
    ],
)
def test_bad_arguments(arguments, error, message):
    """Each is one sentence that says what to do; none is blamed on the stage."""
    with pytest.raises(error, match=message) as caught:
        check_stage(**{"stage": codecs.Identity()} | arguments)
    assert not isinstance(caught.value, StageCheckError)


SCRIPT = """
import dataclasses
from laconic import codecs
from laconic.testing import check_stage

@codecs.register
@dataclasses.dataclass(frozen=True)
class Mine(codecs.Identity):
    name = "test.Mine"

{guard}check_stage(Mine(), inputs=[1.0, 2.0])
print("passed")
"""


@pytest.mark.parametrize("guard", ["", 'if __name__ == "__main__": '])
def test_a_script_that_checks_its_own_stage(tmp_path, guard):
    """It works as a script; without the guard, the other process would start one more, and so on: that is an error."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(guard=guard))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    if guard:
        assert done.stdout == "passed\n", done.stderr
    else:
        assert "check 'other process'" in done.stderr
        assert 'under if __name__ == "__main__":' in done.stderr
