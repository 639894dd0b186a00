"""CSV files, TensorBoard logs and lines of text."""

import csv
import io

import pytest
from tensorboard.backend.event_processing import event_accumulator

from laconic import experiments
from laconic.errors import ArgumentError, MissingExtraError


def read_csv(path):
    """The rows of a CSV file, as dicts of strings."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_events(directory):
    """All scalars in a TensorBoard directory: by tag, (step, value) pairs."""
    accumulator = event_accumulator.EventAccumulator(str(directory), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()
    assert not any(found for kind, found in tags.items() if kind != "scalars")
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags["scalars"]}


def check_complete(directory, records):
    """Checks that both logs in a directory hold exactly these records."""
    events, rows = read_events(directory), read_csv(directory / "rounds.csv")
    assert set(events) == {name for record in records for name in record.scalars()}
    for tag, points in events.items():
        expected = [(record.round_number, record.scalars()[tag]) for record in records if tag in record.scalars()]
        assert [step for step, _ in points] == [step for step, _ in expected]
        assert [value for _, value in points] == pytest.approx([value for _, value in expected], rel=1e-6)
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        assert {name: float(cell) for name, cell in row.items() if cell} == record.columns()


@pytest.mark.parametrize("every", [1, 2])
def test_logs_hold_every_round(train, evaluate, tmp_path, every):
    """TensorBoard and CSV files read back to the history: every tag, step and value, CSV to the last bit."""
    writers = [experiments.TensorBoardWriter(tmp_path), experiments.CSVWriter(tmp_path / "rounds.csv")]
    history = train(rounds=5, evaluate=evaluate, evaluate_every=every, writers=writers)
    check_complete(tmp_path, history.records)
    assert read_events(tmp_path)["test/accuracy"][-1][0] == 4


def test_logs_are_complete_after_ctrl_c(train, evaluate, tmp_path, keyboard_interrupt_in_round):
    """An interrupt in round 3 leaves both logs with rounds 0 to 2, whole."""
    writers = [experiments.TensorBoardWriter(tmp_path), experiments.CSVWriter(tmp_path / "rounds.csv")]
    with pytest.raises(experiments.RunInterrupted) as caught:
        train(process=keyboard_interrupt_in_round(3), rounds=9, evaluate=evaluate, writers=writers)
    assert len(caught.value.history.records) == 3
    check_complete(tmp_path, caught.value.history.records)


def test_logs_of_a_run_that_goes_on(train, tmp_path):
    """With if_exists="append" both logs go on where they ended, as if the run had never stopped."""

    def writers(if_exists):
        return [
            experiments.TensorBoardWriter(tmp_path, if_exists=if_exists),
            experiments.CSVWriter(tmp_path / "rounds.csv", if_exists=if_exists),
        ]

    begun = train(rounds=2, writers=writers("error"))
    going_on = {"state": begun.state, "traffic_so_far": begun.final.cumulative}
    rest = train(rounds=2, writers=writers("append"), **going_on)
    check_complete(tmp_path, begun.records + rest.records)


@pytest.mark.parametrize("first", [False, True])
def test_csv_columns_do_not_depend_on_when_tests_come(record, tmp_path, first):
    """The header is the same whether the first round is evaluated or a later one; cells without a figure are empty."""
    path = tmp_path / "rounds.csv"
    tests = [{"accuracy": 0.5}, {}] if first else [{}, {"accuracy": 0.5}]
    with experiments.CSVWriter(path) as writer:
        for round_number, test in enumerate(tests):
            writer.write(record(round_number, test=test))
            assert len(read_csv(path)) == round_number + 1  # on disk before the next round
    assert path.read_text().splitlines()[0] == ",".join(
        [
            "round",
            "clients",
            "left_out",
            "train/accuracy",
            "train/loss",
            "test/accuracy",
            "traffic/aggregate_bytes_cumulative",
            "traffic/aggregate_bytes_per_round",
            "traffic/aggregate_tensor_bits_cumulative",
            "traffic/aggregate_tensor_bits_per_round",
            "traffic/broadcast_bytes_cumulative",
            "traffic/broadcast_bytes_per_round",
            "traffic/broadcast_tensor_bits_cumulative",
            "traffic/broadcast_tensor_bits_per_round",
            "time/seconds_per_round",
        ]
    )
    assert [row["test/accuracy"] for row in read_csv(path)] == (["0.5", ""] if first else ["", "0.5"])
    assert [path.name for path in tmp_path.iterdir()] == ["rounds.csv"]


def test_csv_numbers_are_exact(record, tmp_path):
    """Bytes are whole numbers however many, and floats read back to the same bits."""
    totals = experiments.TrafficTotals(2**53 + 1, 0, 0, 0)
    with experiments.CSVWriter(tmp_path / "rounds.csv") as writer:
        writer.write(record(train={"loss": 0.1 + 0.2}, cumulative=totals))
    (row,) = read_csv(tmp_path / "rounds.csv")
    assert row["traffic/broadcast_bytes_cumulative"] == "9007199254740993"
    assert float(row["train/loss"]) == 0.1 + 0.2


def test_csv_refuses_to_overwrite(record, tmp_path):
    """An existing file is an error that says what to pass, and is left as it is; "overwrite" replaces it."""
    path = tmp_path / "rounds.csv"
    path.write_text("precious")
    with pytest.raises(ArgumentError, match=r"rounds.csv exists; pass if_exists='overwrite' or 'append'"):
        experiments.CSVWriter(path)
    writer = experiments.CSVWriter(path, if_exists="overwrite")
    assert path.read_text() == "precious"  # until there is something to replace it
    writer.write(record())
    assert len(read_csv(path)) == 1


def test_csv_appends_only_to_its_own(tmp_path):
    """A file with other columns is not appended to."""
    path = tmp_path / "other.csv"
    path.write_text("name,age\nAda,36\n")
    with pytest.raises(ArgumentError, match=r"must be a file of a CSVWriter .* begins \['name', 'age'\]"):
        experiments.CSVWriter(path, if_exists="append")


def test_appending_makes_a_new_file_where_there_is_none(record, tmp_path):
    """A script can always pass if_exists="append", also the first time, and in a directory that is not there yet."""
    with experiments.CSVWriter(tmp_path / "deep" / "rounds.csv", if_exists="append") as writer:
        writer.write(record())
    assert len(read_csv(tmp_path / "deep" / "rounds.csv")) == 1


def test_tensorboard_refuses_to_mix_runs(record, tmp_path):
    """Event files of an earlier run are an error; "overwrite" deletes them, and nothing else."""
    (tmp_path / "notes.txt").write_text("precious")
    with experiments.TensorBoardWriter(tmp_path) as writer:
        writer.write(record(7))
    with pytest.raises(ArgumentError, match="logdir must be free of event files, .* pass if_exists='overwrite'"):
        experiments.TensorBoardWriter(tmp_path)
    with experiments.TensorBoardWriter(tmp_path, if_exists="overwrite") as writer:
        assert read_events(tmp_path)["train/loss"] == [(7, 1.25)]  # until there is something to replace it
        writer.write(record(0))
    assert read_events(tmp_path)["train/loss"] == [(0, 1.25)]
    assert (tmp_path / "notes.txt").read_text() == "precious"


def test_tensorboard_rounds_are_on_disk_at_once(record, tmp_path):
    """A round can be read before the writer is closed; closing twice does no harm."""
    writer = experiments.TensorBoardWriter(tmp_path)
    writer.write(record(0))
    assert read_events(tmp_path)["train/accuracy"] == [(0, 0.5)]
    writer.close()
    writer.close()


def test_a_run_that_fails_at_once_leaves_no_logs(train, tmp_path):
    """So that it can be run again without cleaning up."""
    for clients_per_round in (100, 2):
        writers = [experiments.TensorBoardWriter(tmp_path), experiments.CSVWriter(tmp_path / "rounds.csv")]
        if clients_per_round == 100:
            with pytest.raises(ArgumentError):
                train(clients_per_round=clients_per_round, writers=writers)
            assert list(tmp_path.iterdir()) == []
        else:
            train(clients_per_round=clients_per_round, writers=writers)


@pytest.mark.parametrize("writer", [experiments.CSVWriter, experiments.TensorBoardWriter])
def test_wrong_destinations(writer, tmp_path):
    """An unknown mode, and a directory that is a file, are named."""
    with pytest.raises(ArgumentError, match="if_exists must be 'error', 'append' or 'overwrite', got 'replace'"):
        writer(tmp_path / "new", if_exists="replace")
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match="must be in or be a directory that can be written: .*file"):
        writer(tmp_path / "file" / "deeper")


def test_tensorboard_needs_its_extra(tmp_path, block):
    """Without tensorboardX, the error says what to install."""
    block("tensorboardX")
    with pytest.raises(MissingExtraError, match=r"TensorBoardWriter needs 'tensorboardX', .*laconic\[experiments\]"):
        experiments.TensorBoardWriter(tmp_path)


def test_lines(record):
    """Every few rounds a line tells rounds, clients, accuracy and traffic so far."""
    stream = io.StringIO()
    with experiments.LineWriter("8 bit", every=2, stream=stream) as writer:
        for round_number in range(5):
            writer.write(record(round_number, test={"accuracy": 0.875} if round_number == 3 else {}))
    assert stream.getvalue().splitlines() == [
        "8 bit: 2 rounds, 20 clients, train accuracy 50.0%, 6.00 MB",
        "8 bit: 4 rounds, 40 clients, test accuracy 87.5%, 12.00 MB",
    ]


def test_lines_tell_what_there_is(record, capsys):
    """A model without accuracy shows its loss; clients that were left out are mentioned. The default is stdout."""
    writer = experiments.LineWriter("fp32")
    writer.write(record(train={"loss": 2.0}, left_out=3))
    writer.write(record(train={}))
    assert capsys.readouterr().out.splitlines() == [
        "fp32: 1 rounds, 10 clients, train loss 2.0000, 3.00 MB, 3 of 10 clients left out",
        "fp32: 1 rounds, 20 clients, 3.00 MB",
    ]


def test_lines_every_zero_rounds():
    """A count that makes no sense is refused."""
    with pytest.raises(ArgumentError, match="every must be at least 1 round, got 0"):
        experiments.LineWriter("fp32", every=0)
