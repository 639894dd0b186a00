"""The command line, and the demonstration."""

import csv
import functools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import laconic
from laconic import engines, learning
from laconic.experiments import cli


@pytest.fixture
def small_demo(monkeypatch, tmp_path):
    """The demonstration with a perceptron instead of the network, in a directory of its own."""
    from laconic.experiments import _demo

    monkeypatch.setattr(_demo, "_MODEL", learning.models.perceptron(28 * 28, (16,)))
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: cli.main(["demo", "--rounds", "4", "--clients-per-round", "3", *arguments])


def laconic_command(*arguments, **options):
    """Runs `laconic` as a process of its own, with warnings as errors."""
    command = [sys.executable, "-W", "error", "-m", "laconic.experiments.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)


def test_demo(small_demo, capsys, tmp_path):
    """It says what it does, trains three times, compares, and names files that are there."""
    assert small_demo() == 0
    out = capsys.readouterr().out
    assert "1,438 handwritten digits at 30 clients, 359 more for testing" in out
    assert "4, of 3 clients each; seed 0" in out
    rows = re.findall(r"^(fp32|8 bit|balanced) +4 +\d+\.\d% +([\d.]+) +([\d.]+) +([\d.]+) +[\d.]+$", out, re.MULTILINE)
    (fp32, down, up, once), (eight_bit, _, _, smaller), (balanced, _, _, smallest) = rows
    assert (fp32, eight_bit, balanced, once) == ("fp32", "8 bit", "balanced", "1.00")
    assert float(smaller) > 3.8
    assert float(smallest) > 20
    assert float(down) == pytest.approx(float(up), rel=0.01)
    assert "tensorboard --logdir laconic-demo" in out
    folders = {"fp32", "8-bit", "balanced"}
    expected = {"curves.png", *folders, *(f"{name}.csv" for name in folders)}
    assert {path.name for path in (tmp_path / "laconic-demo").iterdir()} == expected
    for name in expected - folders:
        assert f"laconic-demo/{name}" in out
    with (tmp_path / "laconic-demo" / "8-bit.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4


def test_a_reader_that_has_seen_enough():
    """Where nobody reads the output any more, as after `| head -1`, the command ends without a word."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-W", "error", "-m", "laconic.experiments.cli", "demo", "--help"]
    with os.fdopen(writing, "w") as nobody:
        ended = subprocess.run(command, stdout=nobody, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    assert ended.stderr == ""
    assert ended.returncode == 1


@pytest.fixture
def untrained(small_demo, monkeypatch):
    """The demonstration, interrupted as soon as training begins: with which settings, by training."""
    from laconic.experiments import _demo

    settings = []

    def interrupted(*arguments):
        settings.append(arguments[-1])
        raise KeyboardInterrupt

    monkeypatch.setattr(_demo, "_train", interrupted)
    return small_demo, settings


def test_options_reach_the_training(untrained):
    """Each option is what the training is told; without them, all processor cores work."""
    demo, settings = untrained
    demo("--seed", "3", "--workers", "2", "--logdir", "elsewhere")
    demo()
    assert settings[0] == type(settings[0])(rounds=4, clients_per_round=3, seed=3, logdir=Path("elsewhere"), workers=2)
    assert (settings[1].seed, settings[1].logdir, settings[1].workers) == (0, Path("laconic-demo"), None)


@pytest.mark.parametrize("name", ["auto", "local", "device", "ray"])
def test_the_engine_is_chosen(untrained, monkeypatch, name):
    """`--engine` takes the engine of that name, with as many workers as were asked for."""
    made = []

    def make(which, workers):
        made.append((which, workers))
        return engines.LocalEngine(workers)

    for each in ("auto", "local", "device", "ray"):
        monkeypatch.setattr(engines, each, functools.partial(make, each))
    demo, settings = untrained
    demo("--engine", name, "--workers", "3")
    assert settings[0].engine == name
    assert made == [(name, 3)]


def test_an_unknown_engine_is_refused(small_demo):
    """What is no engine ends the command, as other wrong arguments do."""
    with pytest.raises(SystemExit, match="2"):
        small_demo("--engine", "abacus")


def test_demo_does_not_touch_an_earlier_one(untrained, tmp_path):
    """A demonstration whose directory is taken goes to one beside it."""
    demo, settings = untrained
    for taken in ("laconic-demo", "laconic-demo-2"):
        (tmp_path / taken).mkdir()
        (tmp_path / taken / "precious.txt").touch()
    demo()
    assert settings[0].logdir == Path("laconic-demo-3")
    assert [path.name for path in (tmp_path / "laconic-demo").iterdir()] == ["precious.txt"]


def test_demo_interrupted_before_the_first_round(untrained, capsys):
    """Where nothing was completed there is nothing to compare, and no error either."""
    demo, _ = untrained
    assert demo() == 130
    assert "nothing to compare" in capsys.readouterr().out


def test_demo_after_ctrl_c(small_demo, capsys, monkeypatch, tmp_path):
    """Ctrl-C in the second training shows the table so far, leaves whole logs, and exits with 130."""
    from laconic.experiments import CSVWriter

    write = CSVWriter.write

    def pressing(self, record):
        write(self, record)
        if "8-bit" in str(self._path) and record.round_number == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(CSVWriter, "write", pressing)
    assert small_demo() == 130
    out = capsys.readouterr().out
    assert "Interrupted." in out
    assert re.search(r"^fp32 +4 ", out, re.MULTILINE)
    assert re.search(r"^8 bit +2 ", out, re.MULTILINE)
    assert (tmp_path / "laconic-demo" / "curves.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rounds", "0"), "rounds must be at least 1, got 0"),
        (("--clients-per-round", "31"), "between 1 and 30"),
        (("--workers", "-1"), "workers must be at least 1, got -1"),
        (("--logdir", "file"), "logdir must be in or be a directory"),
    ],
)
def test_errors_are_one_line(small_demo, capsys, arguments, message, tmp_path):
    """What cannot be done is said in one line on standard error, without a traceback, and exits with 1."""
    (tmp_path / "file").touch()
    assert small_demo(*arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("laconic: ")
    assert message in line


@pytest.mark.parametrize("module", ["rich", "matplotlib", "tensorboardX", "sklearn"])
def test_missing_libraries_are_named_first(small_demo, capsys, block, module, tmp_path):
    """The demonstration does not begin to train what it could not report."""
    block(module)
    assert small_demo() == 1
    assert f"the demo needs {module!r}, which is not installed; run: pip install" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_tyro(capsys, block):
    """The command line itself names its extra."""
    block("tyro")
    assert cli.main(["demo"]) == 1
    assert "laconic: the command line needs 'tyro'" in capsys.readouterr().err


def test_version(capsys):
    """`laconic --version` prints it and nothing else."""
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"laconic {laconic.__version__}\n"


@pytest.mark.parametrize("arguments", [["demo", "--rounds", "many"], ["demo", "--lr", "1"], ["train"], []])
def test_wrong_arguments_exit_with_2(arguments, capsys):
    """What the command line does not know is explained, and points to --help."""
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "laconic --help" in capsys.readouterr().err


def test_help_explains_every_option_without_loading_jax():
    """`laconic demo --help` names each option with its default, and does not wait for JAX."""
    environment = os.environ | {"COLUMNS": "100"}
    done = laconic_command("demo", "--help", env=environment)
    assert done.returncode == 0, done.stderr
    for option in ("--rounds", "--clients-per-round", "--seed", "--logdir", "--workers"):
        assert re.search(rf"{option} .*\(default: ", done.stdout, re.DOTALL)
    script = "import sys; sys.argv[1:] = ['demo', '--help']\nfrom laconic.experiments import cli\n"
    script += "try: cli.main()\nfinally: assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_command_itself():
    """As a process of its own, without a single warning."""
    done = laconic_command("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"laconic {laconic.__version__}\n", "")
