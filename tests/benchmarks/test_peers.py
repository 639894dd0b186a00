"""The comparison with other frameworks, with toys in their places."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import _environments
from benchmarks.peers import exchange, report, run
from benchmarks.peers.competitors import Competitor, CompetitorError, Process, start
from benchmarks.peers.environments import environments

# A toy that trains by adding 1 to all weights, prints into everybody's standard output, and fails when it is told to.
TOY = """
import sys, types
from benchmarks.peers import exchange

def train(task, channel):
    print("I am chatty")
    weights = task.weights

    def prepare(round_number):
        def run():
            nonlocal weights
            print("round", round_number)
            if task.variant == f"fails in round {round_number}":
                raise ArithmeticError("I | cannot go on")
            weights = [each + 1 for each in weights]
        return run

    channel.serve(("numpy",), prepare, lambda: weights)

toy = types.ModuleType("toy")
toy.train = train
sys.modules["benchmarks.peers.toy"] = toy
exchange.main()
"""


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task of two rounds."""
    path = tmp_path / "task.npz"
    images = np.zeros((2, 1, 20, 28, 28), np.float32)
    weights = [np.full((i + 1,), i, np.float32) for i in range(exchange.NUM_WEIGHTS)]
    exchange.save_task(path, images, np.zeros((2, 1, 20), np.int32), np.array([["a"], ["b"]]), weights)
    return path


def toy(variant: str, task: Path) -> Process:
    """A toy's process."""
    return Process([sys.executable, "-c", TOY, "toy", variant, str(task)], {"PATH": "", "PYTHONPATH": "."}, 60.0)


def test_a_process_trains_and_hands_over_its_weights(task, tmp_path):
    """What it prints by itself is not taken for an answer."""
    process = toy("fp32", task)
    try:
        assert process.about["versions"] == {"numpy": np.__version__}
        for round_number in range(2):
            assert 0 <= process.ask(f"round {round_number}")["seconds"] < 60
        process.ask(f"save {tmp_path / 'weights.npz'}")
    finally:
        process.end()
    weights = exchange.load_weights(tmp_path / "weights.npz")
    for i, array in enumerate(weights):
        np.testing.assert_array_equal(array, np.full((i + 1,), i + 2))


def test_a_line_that_means_nothing_ends_the_process(task):
    """It says which line it was."""
    process = toy("fp32", task)
    try:
        with pytest.raises(CompetitorError, match="'jump 3"):
            process.ask("jump 3")
    finally:
        process.end()


def test_who_fails_is_out_and_the_others_go_on(task, tmp_path, monkeypatch):
    """Failing becomes a line of the table, with the last line of the error."""
    monkeypatch.setattr(run, "start", lambda competitor, known, task: toy(competitor.variant, task))
    competitors = [
        Competitor("Laconic", None, "toy"),
        Competitor("clumsy", None, "toy", "fails in round 1"),
        Competitor("steady", None, "toy"),
    ]
    race = run.Race(competitors, task, tmp_path)
    try:
        for round_number in range(2):
            race.train(round_number)
    finally:
        race.end()
    assert [len(outcome.seconds) for outcome in race.outcomes.values()] == [2, 1, 2]
    assert race.outcomes["clumsy"].trouble == "ArithmeticError: I | cannot go on"
    assert race.outcomes["steady"].trouble is None
    lines = report.table(race.outcomes, ["Laconic"], 1.0).splitlines()
    assert "not measured: ArithmeticError: I / cannot go on" in lines[3]
    assert len({line.count("|") for line in lines}) == 1


def test_a_ratio_is_the_median_of_each_rounds():
    """Not the ratio of the medians: those of different rounds say nothing about each other."""
    outcomes = {"us": report.Outcome(seconds=[1.0, 20.0, 3.0]), "them": report.Outcome(seconds=[2.0, 80.0, 30.0])}
    assert report.ratio(outcomes, "us", "them") == 0.25
    assert report.ratio(outcomes, "us", "us") == 1.0


def test_no_ratio_to_what_was_not_measured():
    """Neither way."""
    outcomes = {"us": report.Outcome(seconds=[1.0]), "them": report.Outcome(trouble="not set up")}
    assert report.ratio(outcomes, "us", "them") is None
    assert report.ratio(outcomes, "them", "us") is None
    assert report.ratio(outcomes, "nobody", "us") is None
    summary = report.summary(outcomes, ["us"])
    assert summary["them"]["median_seconds"] is None
    assert summary["us"]["median_ratios"] == {"us / it": 1.0}


def test_a_peer_that_is_not_set_up_says_how_to(task, tmp_path):
    """The command is named."""
    with pytest.raises(CompetitorError, match=r"not set up; run: python -m benchmarks\.peers\.setup"):
        start(Competitor("TFF", "TFF", "tff_round"), environments(tmp_path), task)


def test_a_missing_interpreter_is_named(tmp_path, capsys):
    """And remembered until the environment is made again."""
    environment = dataclasses.replace(environments(tmp_path)["TFF"], python_version="2.0")
    assert environment.make() == environment.trouble() == "no interpreter of Python 2.0 here"


def test_other_requirements_ask_for_another_setup(tmp_path):
    """An environment that was made with others is not used."""
    environment = environments(tmp_path)["pfl"]
    environment.record(None)
    assert environment.trouble() is None
    changed = dataclasses.replace(environment, without_dependencies=("another==1.0",))
    assert "set up with other versions" in (changed.trouble() or "")


def test_this_interpreter_is_found_by_its_version():
    """It is the first that is looked at."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert _environments.interpreter(version) == Path(sys.executable)


def test_the_last_line_is_the_error():
    """Blank lines do not count."""
    assert _environments.last_line("Traceback\n  File\nValueError: no\n\n") == "ValueError: no"
    assert _environments.last_line(" \n") == ""
