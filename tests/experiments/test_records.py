"""Records and histories."""

import math

import numpy as np
import pytest

from laconic import experiments
from laconic.errors import ArgumentError
from laconic.federated import Traffic, TrafficEntry


def test_totals_of_traffic():
    """Totals are those of the traffic, whatever its tensors, and add up."""
    traffic = Traffic(
        (
            TrafficEntry("broadcast", "model", "kernel", "payload", 100, 800),
            TrafficEntry("broadcast", "model", "", "framing", 8, 0),
            TrafficEntry("aggregate", "update", "kernel", "payload", 30, 240),
        )
    )
    totals = experiments.TrafficTotals.of(traffic)
    assert totals == experiments.TrafficTotals(108, 30, 800, 240)
    assert totals.total_bytes == 138
    assert totals + totals == experiments.TrafficTotals(216, 60, 1600, 480)


def test_scalars_have_tensorboard_names(record):
    """Every figure has its name; test metrics are there where the round was evaluated."""
    assert record(1).scalars() == {
        "train/accuracy": 0.5,
        "train/loss": 1.25,
        "traffic/broadcast_bytes_per_round": 1_000_000,
        "traffic/broadcast_bytes_cumulative": 2_000_000,
        "traffic/aggregate_bytes_per_round": 2_000_000,
        "traffic/aggregate_bytes_cumulative": 4_000_000,
        "time/seconds_per_round": 0.25,
    }
    assert record(test={"accuracy": 0.75}).scalars()["test/accuracy"] == 0.75


def test_columns(history):
    """A column has one number for each round, NaN where there was no evaluation."""
    column = history([None, 0.5, None, 0.75]).column("test/accuracy")
    assert np.array_equal(column, [np.nan, 0.5, np.nan, 0.75], equal_nan=True)
    assert history([0.5, 0.5]).column("traffic/broadcast_bytes_cumulative").tolist() == [1e6, 2e6]
    assert history([0.5, 0.5]).column("traffic/aggregate_tensor_bits_per_round").tolist() == [16e6, 16e6]
    assert history([0.5, 0.5], left_out=3).column("left_out").tolist() == [3, 3]


def test_unknown_columns(history):
    """A name that no round has is an error that lists the names."""
    with pytest.raises(ArgumentError, match=r"'a run' has no column 'accuracy'; it has .*'train/accuracy'"):
        history([0.5]).column("accuracy")


def test_mean_of_last_evaluations(history):
    """The mean skips rounds without evaluation; more evaluations than there are is an error."""
    made = history([0.1, None, 0.5, None, 0.7])
    assert made.mean_of_last(2) == pytest.approx(0.6)
    assert made.mean_of_last(1) == 0.7
    assert made.mean_of_last(5, "train/loss") == 1.25
    for count in (0, 4):
        with pytest.raises(ArgumentError, match=f"between 1 and the 3 rounds that have 'test/accuracy', got {count}"):
            made.mean_of_last(count)


def test_final_record(history):
    """The last record, or an error where no round was completed."""
    assert history([0.1, 0.2]).final.test == {"accuracy": 0.2}
    with pytest.raises(ArgumentError, match="'empty' has no final record: no round was completed"):
        _ = history([], name="empty").final


def test_median_seconds_leave_out_the_first_round(record):
    """The first round compiles, so it does not count; alone, it tells nothing."""
    records = tuple(record(i, seconds=seconds) for i, seconds in enumerate([60.0, 1.0, 3.0, 2.0]))
    assert experiments.History("a run", records, {}, state=None).median_seconds == 2.0
    assert math.isnan(experiments.History("a run", records[:1], {}, state=None).median_seconds)


def test_equality_leaves_out_times(record):
    """Two records that differ in their times alone are equal; any other difference counts."""
    assert record(seconds=1.0) == record(seconds=2.0)
    assert record(clients=3) != record(clients=4)
