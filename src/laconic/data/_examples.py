"""One client's examples: named arrays of one leading length."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Shaped

from laconic.errors import ArgumentTypeError, DataError

Examples: TypeAlias = dict[str, Shaped[np.ndarray, "_ ..."]]
"""One client's examples: arrays by field name, one row per example; `"x"` are inputs, `"y"` are labels."""

_CANONICAL_NAMES = {"pixels": "x", "label": "y"}
_IMAGE_SIDE = 28
_INT32 = np.iinfo(np.int32)
_NOT_NUMBERS = "OSUMm"  # objects, bytes, strings, dates


def checked(fields: object, origin: str) -> Examples:
    """The fields as read-only arrays of one leading length, integer labels as int32.

    Read-only, because the arrays may be the source's own: a careless `examples["x"] *= 2` fails instead of
    changing what every later reader sees.

    Args:
      fields: arrays, or what NumPy makes arrays of, by field name.
      origin: where the fields come from, for error messages.

    Raises:
      ArgumentTypeError: `fields` is not a mapping.
      DataError: a field is not an array with a leading axis, or the leading lengths differ.
    """
    if not isinstance(fields, Mapping):
        raise ArgumentTypeError(f"{origin}: examples must be a dict of arrays, got {type(fields).__name__}")
    examples = {name: _read_only(_array(value, f"{origin}, field {name!r}")) for name, value in fields.items()}
    if len({len(array) for array in examples.values()}) != 1:
        lengths = ", ".join(f"{name!r}: {len(array)}" for name, array in examples.items()) or "no fields"
        raise DataError(f"{origin}: all fields must have the same number of rows, one per example; got {lengths}")
    return examples | ({"y": _labels(examples["y"], origin)} if "y" in examples else {})


def count(examples: Examples) -> int:
    """The number of examples."""
    return len(next(iter(examples.values())))


def take(examples: Examples, rows: Shaped[np.ndarray, " rows"]) -> Examples:
    """The examples at these positions."""
    return {name: array[rows] for name, array in examples.items()}


def concatenated(parts: Sequence[Examples]) -> Examples:
    """All parts' examples, in order.

    Raises:
      DataError: the parts have different fields, or their rows differ in shape.
    """
    names = list(parts[0])
    if any(set(part) != set(names) for part in parts):
        raise DataError(f"clients have different fields: {sorted({tuple(sorted(part)) for part in parts})}")
    try:
        return {name: np.concatenate([part[name] for part in parts]) for name in names}
    except ValueError as error:
        raise DataError(f"the clients' examples differ in shape, so they cannot be put together: {error}") from error


def canonical(fields: Mapping[str, Any]) -> Examples:
    """A file's fields in the form that all readers return: the canonical names, images as float32 [n, 28, 28].

    `pixels` and `label` become `x` and `y`; bytes become fractions of 255; rows of 784 numbers become images.

    Raises:
      DataError: `x` or `y` is missing, a number is not finite, or the fields do not fit together.
    """
    renamed = {_CANONICAL_NAMES.get(name, name): value for name, value in fields.items()}
    if not {"x", "y"} <= set(renamed):
        raise DataError(f"examples must have inputs (x or pixels) and labels (y or label), got {sorted(fields)}")
    return checked(renamed | {"x": _inputs(np.asarray(renamed["x"]))}, "examples")


def _inputs(x: np.ndarray) -> np.ndarray:
    if x.dtype == np.uint8:
        x = x / np.float32(255)
    if np.issubdtype(x.dtype, np.floating):
        x = x.astype(np.float32, copy=False)
        if not np.isfinite(x).all():
            raise DataError("inputs must be finite numbers, got NaN or infinity")
    is_flat_image = x.ndim == 2 and x.shape[1] == _IMAGE_SIDE**2
    return x.reshape(-1, _IMAGE_SIDE, _IMAGE_SIDE) if is_flat_image else x


def _array(value: Any, origin: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:  # ragged lists
        raise DataError(f"{origin}: expected an array, one row per example; got rows of different shapes") from error
    if array.ndim == 0 or array.dtype.kind in _NOT_NUMBERS:
        raise DataError(
            f"{origin}: expected an array of numbers, one row per example; got shape {array.shape}, dtype {array.dtype}"
        )
    return array


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _labels(labels: np.ndarray, origin: str) -> np.ndarray:
    if not np.issubdtype(labels.dtype, np.integer) or labels.dtype == np.int32:
        return labels
    if labels.size and not (_INT32.min <= labels.min() and labels.max() <= _INT32.max):
        raise DataError(f"{origin}: labels must fit int32, got values from {labels.min()} to {labels.max()}")
    return _read_only(labels.astype(np.int32))
