"""Tables and curves."""

import io
import math

import numpy as np
import pytest
from matplotlib import image
from rich import console

from laconic import experiments
from laconic.errors import ArgumentError, MissingExtraError
from laconic.experiments import TrafficTotals


@pytest.fixture
def small(history):
    """A run with a quarter of the traffic of `history`'s."""
    return history([0.5, 0.9], name="8 bit", traffic=TrafficTotals(250_000, 500_000))


def test_table_as_text(history, small):
    """Accuracy, traffic, its ratio to the first run and time, in aligned columns."""
    assert str(experiments.comparison_table([history([0.5, 0.951], name="fp32"), small])).splitlines() == [
        "       rounds  test accuracy  MB down  MB up  times smaller  s per round",
        "-----  ------  -------------  -------  -----  -------------  -----------",
        "fp32        2          95.1%    2.000  4.000           1.00         0.25",
        "8 bit       2          90.0%    2.000  4.000           4.00         0.25",
    ]


def test_table_drawn(history, small):
    """Rich draws the same cells; names are text and not markup, and 80 columns are enough for gigabytes."""
    large = TrafficTotals(12_345_600_000, 12_345_600_000)
    runs = [history([0.5, 0.9], name="[red]fp32", cumulative=large), small]
    table = experiments.comparison_table(runs)
    stream = io.StringIO()
    console.Console(file=stream, width=80).print(table)
    drawn = stream.getvalue()
    for cell in [*table.header, *(cell for row in table.rows for cell in row)]:
        assert cell in drawn
    assert "12,346" in drawn
    assert "…" not in drawn


def test_times_smaller_is_per_round(history, small):
    """Runs of different lengths are compared by the round, and an earlier run's traffic does not count."""
    longer = history([0.5] * 7, traffic=TrafficTotals(250_000, 500_000), cumulative=TrafficTotals(9, 9))
    table = experiments.comparison_table([history([0.5]), longer, small])
    assert [row[5] for row in table.rows] == ["1.00", "4.00", "4.00"]


def test_table_without_test_data(history):
    """Training accuracy is marked as such; what is not known is a dash."""
    first, second = history([None]), history([None], train={"loss": 1.0})
    rows = experiments.comparison_table([first, second]).rows
    assert [row[2] for row in rows] == ["50.0% (train)", "-"]
    assert rows[0][6] == "-"  # one round tells no time


def test_tables_need_completed_rounds(history):
    """No histories, or an empty one, are errors in a sentence."""
    with pytest.raises(ArgumentError, match="histories must hold at least one history, got none"):
        experiments.comparison_table([])
    with pytest.raises(ArgumentError, match="'empty' has no final record"):
        experiments.comparison_table([history([0.5]), history([], name="empty")])


def test_curves_are_drawn(history, small, tmp_path):
    """The image is there, large enough, and has both runs' colours."""
    path = experiments.plot_curves([history([None, 0.5, 0.6, 0.9]), small], tmp_path / "new" / "curves.png")
    pixels = (image.imread(path)[..., :3] * 255).round().astype(int)
    assert pixels.shape == (630, 1500, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (np.abs(pixels - colour).sum(axis=-1) < 10).sum() > 500


def test_curves_of_many_runs(history, tmp_path):
    """More runs than there are colours can be drawn, and one with a single evaluation."""
    runs = [history([0.1 * i, 0.5], name=f"run {i}") for i in range(9)] + [history([0.3])]
    assert experiments.plot_curves(runs, tmp_path / "curves.svg").stat().st_size > 10_000


def test_curves_begin_before_the_first_round(train, evaluate, tmp_path, monkeypatch):
    """Where the start was evaluated, it is the point at 0 rounds; traffic has no such point on a log scale."""
    from matplotlib import axes

    drawn = []
    plot = axes.Axes.plot
    monkeypatch.setattr(axes.Axes, "plot", lambda self, *args, **kw: drawn.append(args) or plot(self, *args, **kw))
    history = train(evaluate=evaluate, evaluate_initial=True)
    experiments.plot_curves([history], tmp_path / "curves.png")
    (rounds, values), (megabytes, later) = drawn
    assert rounds == [0, 1, 2, 3]
    assert values == [history.initial["accuracy"], *history.column("test/accuracy")]
    assert megabytes == [record.cumulative.total_bytes / 1e6 for record in history.records]
    assert later == values[1:]
    assert all(math.isfinite(value) for value in values)


def test_curves_need_evaluations(history, tmp_path):
    """No histories, or one without the metric, are errors that say what to do."""
    with pytest.raises(ArgumentError, match="histories must hold at least one history, got none"):
        experiments.plot_curves([], tmp_path / "curves.png")
    with pytest.raises(ArgumentError, match="the metric 'accuracy', but 'blind' has none; pass evaluate="):
        experiments.plot_curves([history([None], name="blind")], tmp_path / "curves.png")
    with pytest.raises(ArgumentError, match="the metric 'f1'"):
        experiments.plot_curves([history([0.5])], tmp_path / "curves.png", metric="f1")
    assert not (tmp_path / "curves.png").exists()


def test_reports_need_their_extra(history, tmp_path, block):
    """Without matplotlib or rich the error says what to install; the table as text needs neither."""
    block("matplotlib.figure", "rich.table")
    table = experiments.comparison_table([history([0.5])])
    assert "50.0%" in str(table)
    with pytest.raises(MissingExtraError, match=r"drawing a table needs 'rich.table', .*laconic\[experiments\]"):
        table.__rich__()
    with pytest.raises(MissingExtraError, match=r"plot_curves needs 'matplotlib.figure', .*laconic\[experiments\]"):
        experiments.plot_curves([history([0.5])], tmp_path / "curves.png")
