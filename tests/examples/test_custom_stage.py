"""The example of custom stages runs, its stages keep their promises, and what it prints is sensible."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from laconic import codecs
from laconic.testing import check_stage

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "custom_stage.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("custom_stage", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_example_runs():
    """It checks its stages, trains with each codec, and prints accuracy, MB and how many times smaller."""
    command = [sys.executable, "-W", "error", str(EXAMPLE), "--rounds", "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^MuLaw\(mu=255.0\) passes \d+ checks", done.stdout, re.MULTILINE)
    assert re.search(r"^EvenOdd\(\) passes \d+ checks", done.stdout, re.MULTILINE)
    assert not re.search(r"other process +not checked", done.stdout)
    rows = re.findall(r"^(.+?) +(\d\.\d{3}) +(\d+\.\d{3}) +(\d+\.\d)x$", done.stdout, re.MULTILINE)
    accuracy = {title: float(value) for title, value, _, _ in rows}
    smaller = {title: float(value) for title, _, _, value in rows}
    assert len(rows) == 4
    assert smaller["as they are, float32"] == 1.0
    assert 8 < smaller["mu-law, 3 bit"] < 32 / 3
    assert 7 < smaller["even or odd, 8 bit"] < 8
    assert accuracy["as they are, float32"] > 0.75
    assert all(value > 0.5 for value in accuracy.values())


def test_mu_law_has_smaller_errors_near_zero(example):
    """That is what companding is for: at equal bits, small values come back better than from a uniform quantizer."""
    x = np.random.default_rng(0).laplace(size=1000).astype(np.float32) / 100
    x[0] = 1.0
    companded = codecs.chain(example.MuLaw(), codecs.UniformQuantizer(6, (-1.0, 1.0)), codecs.FixedWidth(6))
    uniform = codecs.uniform_quantization(bits=6, value_range=(-1.0, 1.0))
    error = {
        codec: np.abs(codecs.decode(codecs.encode(x, codec, seed=0)) - x)[1:].mean() for codec in (companded, uniform)
    }
    assert error[companded] < error[uniform] / 3


@pytest.mark.parametrize("size", [0, 1, 2, 7])
def test_even_odd_takes_turns(example, size):
    """Even entries travel first, odd ones next; the others decode to zero, and odd sizes work."""
    x = np.arange(1, size + 1, dtype=np.float32)
    bound = codecs.bind(codecs.chain(example.EvenOdd()), x)
    state = bound.initial_state()
    for parity in (0, 1, 0):
        payload, state = bound.encode(x, state=state)
        assert np.array_equal(bound.decode(payload.blob), np.where(np.arange(size) % 2 == parity, x, 0))


def test_even_odd_sums_halves(example):
    """Summands stay at half length until they are added up: that is what commuting with the sum is good for."""
    x = np.arange(1, 8, dtype=np.float32)
    bound = codecs.bind(codecs.chain(example.EvenOdd(), codecs.UniformQuantizer(8), codecs.FixedWidth(8)), x)
    gather = bound.gather()
    for key in ((0, 1), (0, 2)):
        contribution = bound.read_contribution(bound.encode_contribution(x, key=np.array(key, np.uint32)).blob)
        assert [summand.shape for summand in contribution.summands] == [(4,)]
        gather.add(contribution)
    total, _ = gather.result()
    assert np.allclose(total, [2, 0, 6, 0, 10, 0, 14], atol=0.1)


def test_the_stages_pass_with_weights_like_inputs(example):
    """The default inputs are checked where the example runs; here are updates of a model's shape."""
    updates = {"kernel": np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32) * 0.01}
    for stage in example.STAGES:
        check_stage(stage, inputs=updates, other_process=False)
