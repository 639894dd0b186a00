"""The engine that suits the machine."""

import types

import jax
import pytest

from laconic import engines


@pytest.mark.parametrize(("platform", "kind"), [("cpu", engines.LocalEngine), ("cuda", engines.DeviceEngine)])
def test_accelerators_decide(monkeypatch, platform, kind):
    """An accelerator is used where there is one; on processors threads are faster."""
    monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(platform=platform)])
    engine = engines.auto(workers=2)
    assert isinstance(engine, kind)
    assert engine.workers == 2
