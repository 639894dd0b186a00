"""The exceptions that Laconic raises.

Each derives from `LaconicError` and from the builtin that fits, so that both `except LaconicError` and, say,
`except ValueError` work:

    LaconicError
      ├─ ArgumentError        (ValueError)   a value is out of its range or shape
      ├─ ArgumentTypeError    (TypeError)    a value is of the wrong kind
      ├─ NonFiniteError       (ValueError)   NaN or infinity was about to travel
      ├─ DecodeError          (ValueError)   bytes are not a payload, or are damaged
      ├─ PlacementError       (TypeError)    a federated value is where it may not be, or of the wrong type
      ├─ DataError            (ValueError)   a data file is malformed or truncated
      ├─ UnknownClientError   (KeyError)     no client has this id
      ├─ EngineError          (RuntimeError) an engine cannot run clients where it was told to
      ├─ NotAvailableError    (OSError)      data is neither cached nor reachable
      ├─ MissingExtraError    (ImportError)  an optional dependency is not installed
      └─ testing.StageCheckError (AssertionError) a stage does not keep to the interface
"""

import importlib
from types import ModuleType


class LaconicError(Exception):
    """Base of every error that Laconic raises on purpose."""


class ArgumentError(LaconicError, ValueError):
    """An argument has a value it may not have."""


class ArgumentTypeError(LaconicError, TypeError):
    """An argument is of a kind it may not be."""


class NonFiniteError(LaconicError, ValueError):
    """NaN or infinity was about to be encoded."""


class DecodeError(LaconicError, ValueError):
    """Bytes are not a Laconic payload, are damaged, or were made by another codec."""


class PlacementError(LaconicError, TypeError):
    """A federated value has the wrong placement or type for where it is used."""


class DataError(LaconicError, ValueError):
    """A data file is malformed, truncated, or not in the expected format."""


class UnknownClientError(LaconicError, KeyError):
    """No client has the requested id."""

    def __str__(self) -> str:
        # KeyError shows repr(args[0]); a sentence should be shown as it is.
        return str(self.args[0])


class EngineError(LaconicError, RuntimeError):
    """An engine cannot run clients where it was told to."""


class NotAvailableError(LaconicError, OSError):
    """Data is neither in the cache nor reachable."""


class MissingExtraError(LaconicError, ImportError):
    """An optional dependency is not installed."""


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Imports an optional `module`, or says which extra provides it.

    Raises:
      MissingExtraError: if the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the module is there, but something it needs is not: not ours to explain
        raise MissingExtraError(
            f"{purpose} needs {module!r}, which is not installed; run: pip install 'laconic[{extra}]'",
            name=module,
        ) from error
