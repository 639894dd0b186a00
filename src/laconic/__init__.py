"""Laconic: federated learning in as few bytes as the task allows, and every byte counted."""

import importlib
from types import ModuleType

from laconic.errors import LaconicError as LaconicError

__version__ = "0.1.0"

_SUBMODULES = frozenset({"codecs", "data", "engines", "errors", "experiments", "federated", "learning", "testing"})


def __getattr__(name: str) -> ModuleType:
    # Submodules load on first use, so that `import laconic` costs no more than what is used of it.
    if name in _SUBMODULES:
        return importlib.import_module(f"laconic.{name}")
    raise AttributeError(f"module 'laconic' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBMODULES])
