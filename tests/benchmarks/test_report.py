"""What benchmarks share."""

import argparse

import pytest

from benchmarks import _report


def test_a_data_file_must_be_there(tmp_path):
    """A benchmark says so before it begins, in one line."""
    there = tmp_path / "digits.npz"
    there.touch()
    assert _report.data_file(str(there)) == there
    with pytest.raises(argparse.ArgumentTypeError, match=r"no data file .*nothing\.npz"):
        _report.data_file(str(tmp_path / "nothing.npz"))
