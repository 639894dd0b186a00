"""The tutorial prints TFF's figures to the last digit where it counts as TFF does, and else what really travels."""

import dataclasses
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

from laconic import experiments
from laconic.errors import ArgumentError, NotAvailableError

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "compression_tutorial.py"

# TFF's tutorial, all ten rounds: what it printed, with the right unit. In 8 bits a client sends 160 bits more than it
# receives: its weight, and the sums and counts of two metrics.
FP32 = """507.62 Mibit, 1015.24 Mibit, 1.49 Gibit, 1.98 Gibit, 2.48 Gibit,
2.97 Gibit, 3.47 Gibit, 3.97 Gibit, 4.46 Gibit, 4.96 Gibit"""
TFF_DOWN = """146.46 Mibit, 292.92 Mibit, 439.38 Mibit, 585.84 Mibit, 732.30 Mibit,
878.77 Mibit, 1.00 Gibit, 1.14 Gibit, 1.29 Gibit, 1.43 Gibit"""
TFF_UP = """146.46 Mibit, 292.92 Mibit, 439.39 Mibit, 585.85 Mibit, 732.31 Mibit,
878.77 Mibit, 1.00 Gibit, 1.14 Gibit, 1.29 Gibit, 1.43 Gibit"""
ROUND = re.compile(
    r"round ([ \d]\d), metrics=\{'accuracy': [01]\.\d+, 'loss': \d\.\d+\}, "
    r"broadcasted=(\d+\.\d\d [MG]ibit), aggregated=(\d+\.\d\d [MG]ibit)"
)


@pytest.fixture(scope="module")
def example():
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("compression_tutorial", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def dense(example, tmp_path_factory):
    """One round of ten clients in dense packing: the directory of the logs, and both trainings' histories."""
    logdir = tmp_path_factory.mktemp("dense")
    return logdir, example.main(example.Options(rounds=1, logdir=logdir))


@pytest.fixture(scope="module")
def tff(example, tmp_path_factory):
    """The history of the compressed training in TFF's packing; uncompressed there is nothing to pack."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "RUNS", {"compression": example.RUNS["compression"]})
        (history,) = example.main(example.Options(rounds=1, logdir=tmp_path_factory.mktemp("tff"), packing="tff"))
    return history


def printed_rounds(example, capsys, record, packing, rounds):
    """What is printed for so many rounds like this one: traffic is the same in each, whatever is learned."""
    printer, total = example.RoundPrinter(packing), experiments.TrafficTotals()
    capsys.readouterr()
    for round_number in range(rounds):
        total += record.traffic
        printer.write(dataclasses.replace(record, round_number=round_number, cumulative=total))
    lines = [ROUND.fullmatch(line) for line in capsys.readouterr().out.splitlines()]
    assert [int(line[1]) for line in lines] == list(range(rounds))
    return [line[2] for line in lines], [line[3] for line in lines]


@pytest.mark.parametrize("packing", ["dense", "tff"])
def test_uncompressed_rounds_print_tff_figures(example, dense, capsys, packing):
    """All ten rounds come out to the last digit, both ways, whether real bytes or TFF's tensors are counted."""
    _, (original, _) = dense
    down, up = printed_rounds(example, capsys, original.final, packing, rounds=10)
    assert down == up == re.split(r",\s", FP32)


def test_compressed_rounds_print_tff_figures(example, tff, capsys):
    """With TFF's packing and count, all ten rounds come out to the last digit, both ways."""
    down, up = printed_rounds(example, capsys, tff.final, "tff", rounds=10)
    assert down == re.split(r",\s", TFF_DOWN)
    assert up == re.split(r",\s", TFF_UP)


def test_dense_packing_prints_real_bytes(example, dense, capsys):
    """Without unused bits, 8 bits for each number of the two large tensors are 128.40 Mibit for ten clients."""
    _, (_, compression) = dense
    down, up = printed_rounds(example, capsys, compression.final, "dense", rounds=1)
    assert down == up == ["128.40 Mibit"]
    large, small = 51_200 + 1_605_632, 6_538
    smallest = 10 * (large + 4 * small + 2 * 2 * 4)
    assert smallest <= compression.final.traffic.broadcast_bytes < smallest + 10 * 64


def test_packing_changes_sizes_and_nothing_else(dense, tff):
    """The codes are the same in both packings, so the trainings are."""
    _, (_, compression) = dense
    assert tff.final.train == compression.final.train
    assert tff.final.traffic.total_bytes > 1.1 * compression.final.traffic.total_bytes


def test_logs(dense):
    """Both runs are in TensorBoard directories of their own, with training metrics and real bytes."""
    logdir, histories = dense
    assert sorted(path.name for path in logdir.iterdir()) == ["compression", "original"]
    for history in histories:
        accumulator = event_accumulator.EventAccumulator(str(logdir / history.name))
        accumulator.Reload()
        scalars = history.records[0].scalars()
        assert set(accumulator.Tags()["scalars"]) == set(scalars)
        for name, value in scalars.items():
            (event,) = accumulator.Scalars(name)
            assert event.step == 0
            assert event.value == np.float32(value)


def test_the_script(tmp_path):
    """As a user runs it: ten clients, two rounds, one line each, and which count is shown; not one warning."""
    command = [sys.executable, "-W", "error", str(EXAMPLE), "--rounds", "2", "--logdir", str(tmp_path / "logs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("original, all clients together: 8 x the bytes of real messages")
    assert "507.62 Mibit" in lines[0]
    assert lines[3].startswith("compression, all clients together: 8 x the bytes of real messages")
    assert "146.46 Mibit" in lines[3]
    rounds = [ROUND.fullmatch(line).groups() for line in (*lines[1:3], *lines[4:6])]
    assert rounds == [
        (" 0", "507.62 Mibit", "507.62 Mibit"),
        (" 1", "1015.24 Mibit", "1015.24 Mibit"),
        (" 0", "128.40 Mibit", "128.40 Mibit"),
        (" 1", "256.81 Mibit", "256.81 Mibit"),
    ]
    assert lines[6] == f"compare the curves: tensorboard --logdir {tmp_path / 'logs'}"
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["compression", "original"]


def test_tff_packing_says_so(example, tmp_path, capsys, monkeypatch):
    """With TFF's packing the line before each run says that it is counted as TFF does."""
    monkeypatch.setattr(example.experiments, "run", lambda *_, **__: None)
    example.main(example.Options(packing="tff", logdir=tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(", ")[0] for line in lines[:2]] == ["original", "compression"]
    assert all("as TFF counts" in line for line in lines[:2])


def test_sources_of_data(example, tmp_path, monkeypatch):
    """`--data` takes a name or the path of a file; a file that is not there is an error in a sentence."""
    asked = []
    monkeypatch.setattr(example.data.emnist, "load", lambda *, only_digits: (asked.append(only_digits), None))
    example.load("emnist")
    assert asked == [True]
    examples = {"pixels": np.zeros((2, 28, 28), np.uint8), "label": np.zeros(2, np.int64)}
    who = {"client": np.zeros(2, np.int64), "is_test": np.array([False, True]), "client_ids": np.array(["ada"])}
    np.savez(tmp_path / "own.npz", **examples, **who)
    assert example.load(str(tmp_path / "own.npz")).client_ids == ("ada",)
    with pytest.raises(NotAvailableError, match="nowhere.npz does not exist"):
        example.load(str(tmp_path / "nowhere.npz"))


def test_a_wrong_option_keeps_earlier_logs(example, tmp_path):
    """What cannot be run replaces nothing."""
    log = tmp_path / "original" / "events.out.tfevents.1.somewhere"
    log.parent.mkdir()
    log.touch()
    with pytest.raises(ArgumentError, match="rounds must be at least 1, got 0"):
        example.main(example.Options(rounds=0, logdir=tmp_path))
    assert log.exists()


def test_help_names_every_option():
    """`--help` explains each option with its default, and errors are one line."""
    done = subprocess.run([sys.executable, str(EXAMPLE), "--help"], capture_output=True, text=True, check=False)
    for option in ("--data", "--rounds", "--clients-per-round", "--logdir", "--seed", "--packing {dense,tff}"):
        assert re.search(rf"{option} .*\(default: ", done.stdout, re.DOTALL)
    command = [sys.executable, str(EXAMPLE), "--data", "nowhere.npz"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: nowhere.npz does not exist")
    assert len(done.stderr.splitlines()) == 1
