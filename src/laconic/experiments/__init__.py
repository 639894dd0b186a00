"""Experiments: the round loop, writers of its records, comparison of runs, and the command line."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laconic.experiments._csv import CSVWriter as CSVWriter
    from laconic.experiments._evaluation import central_evaluation as central_evaluation
    from laconic.experiments._lines import LineWriter as LineWriter
    from laconic.experiments._links import Link as Link
    from laconic.experiments._links import Links as Links
    from laconic.experiments._plot import plot_curves as plot_curves
    from laconic.experiments._records import History as History
    from laconic.experiments._records import RoundRecord as RoundRecord
    from laconic.experiments._records import TrafficTotals as TrafficTotals
    from laconic.experiments._run import RunInterrupted as RunInterrupted
    from laconic.experiments._run import run as run
    from laconic.experiments._table import ComparisonTable as ComparisonTable
    from laconic.experiments._table import comparison_table as comparison_table
    from laconic.experiments._tensorboard import TensorBoardWriter as TensorBoardWriter
    from laconic.experiments._writers import Writer as Writer

# Loaded on first use: the command line lives in this package, and `laconic --help` should not wait for JAX.
_HOMES = {
    "CSVWriter": "_csv",
    "ComparisonTable": "_table",
    "History": "_records",
    "LineWriter": "_lines",
    "Link": "_links",
    "Links": "_links",
    "RoundRecord": "_records",
    "RunInterrupted": "_run",
    "TensorBoardWriter": "_tensorboard",
    "TrafficTotals": "_records",
    "Writer": "_writers",
    "central_evaluation": "_evaluation",
    "comparison_table": "_table",
    "plot_curves": "_plot",
    "run": "_run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'laconic.experiments' has no attribute {name!r}")
    return getattr(importlib.import_module(f"laconic.experiments.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
