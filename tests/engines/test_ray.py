"""The engine for several machines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from laconic import engines
from laconic.errors import MissingExtraError


def test_on_a_cluster():
    """The cases of `on_a_cluster.py` pass, in a process without checks of arrays, which cannot be sent."""
    script = Path(__file__).with_name("on_a_cluster.py")
    command = [sys.executable, "-m", "pytest", "--override-ini=addopts=", "-q", str(script)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert "skipped" not in run.stdout


def test_without_ray(monkeypatch):
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'laconic\[ray\]'"):
        engines.ray()
