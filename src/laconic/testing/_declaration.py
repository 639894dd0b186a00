"""Checks of what a stage says about itself; nothing is encoded."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from laconic.codecs import Merge, Stage
from laconic.codecs._registry import lookup
from laconic.codecs._wire import write_constant
from laconic.errors import DecodeError
from laconic.testing._report import Failed
from laconic.testing._subject import Subject, attempt

_FLAGS = (
    "commutes_with_sum",
    "is_lossless",
    "is_linear",
    "is_unbiased",
    "is_stochastic",
    "needs_client_state",
    "has_receiver_memory",
)


def check_fields(stage: Stage) -> str:
    """The class is a frozen dataclass of constants that can travel."""
    # A class that is made a dataclass and then subclassed without the decorator has its parent's fields.
    made = vars(type(stage)).get("__dataclass_params__")
    if made is None or not made.frozen:
        raise Failed(
            "the class to be a frozen dataclass",
            f"{type(stage).__qualname__}",
            "decorate it with @dataclasses.dataclass(frozen=True)",
        )
    data: Any = stage
    fields = {field.name: getattr(stage, field.name) for field in dataclasses.fields(data)}
    for name, value in fields.items():
        try:
            write_constant(value)
        except TypeError:
            raise Failed(
                f"the field {name!r} to be None, bool, int, float, str or a tuple of these",
                f"{value!r:.60} of type {type(value).__name__}",
                "an array that decoding needs is a parameter or an output",
            ) from None
    hash(stage)
    return ", ".join(f"{name}={value!r}" for name, value in fields.items()) or "no fields"


def check_declared_names(stage: Stage) -> str:
    """Name, outputs, compressible and merges are of the right kinds and fit together."""
    if not isinstance(getattr(stage, "name", None), str) or not stage.name:
        raise Failed("name to be a string, such as 'mylab.topk'", f"{getattr(stage, 'name', None)!r}")
    _check_name_list("outputs", stage.outputs)
    _check_name_list("compressible", stage.compressible)
    if not stage.outputs:
        raise Failed("one output at least", "none")
    if strangers := [name for name in stage.compressible if name not in stage.outputs]:
        raise Failed(f"compressible to name some of the outputs {stage.outputs}", f"{strangers}")
    if not isinstance(stage.merges, Mapping):
        raise Failed("merges to be a mapping from each report's name to a codecs.Merge", f"{stage.merges!r:.60}")
    for name, merge in stage.merges.items():
        if not isinstance(merge, Merge):
            raise Failed(f"merges[{name!r}] to be a codecs.Merge, such as codecs.Merge.SUM", f"{merge!r:.60}")
    return f"outputs {', '.join(stage.outputs)}; compressible {', '.join(stage.compressible) or 'none'}"


def check_flags(stage: Stage) -> str:
    """The flags are truth values."""
    flags = {name: getattr(stage, name) for name in _FLAGS}
    for name, value in flags.items():
        if not isinstance(value, bool):
            way_out = "decorate it with @property" if callable(value) else ""
            raise Failed(f"{name} to be True or False", f"{value!r:.60}", way_out)
    return ", ".join(name for name, value in flags.items() if value) or "none is claimed"


def check_registration(stage: Stage) -> str:
    """The name on the wire leads to the class."""
    try:
        registered = lookup(stage.name)
    except DecodeError:
        registered = None
    if registered is not type(stage):
        found = "an unknown name" if registered is None else f"{registered.__module__}.{registered.__qualname__}"
        raise Failed(
            f"the name {stage.name!r} to lead to the class {type(stage).__qualname__}",
            found,
            "decorate the class with @codecs.register, so that payloads can be decoded",
        )
    return f"as {stage.name!r}"


def check_parameters(subject: Subject) -> str:
    """The first state is a tree of arrays, and so are the parameters made of it."""
    for spec in subject.inputs.specs.values():
        state = attempt(f"initial_state({spec}) to return a state", "", subject.stage.initial_state, spec)
        for leaf in jax.tree.leaves(state):
            _check_array("the state", leaf)
        told = attempt("parameters(state) to return two dicts", "", subject.stage.parameters, state)
        if not isinstance(told, tuple) or len(told) != 2 or not all(isinstance(part, Mapping) for part in told):
            raise Failed("parameters(state) to return two dicts, for encode and for decode", f"{told!r:.60}")
        for which, part in zip(("encode", "decode"), told, strict=True):
            for key, value in part.items():
                _check_array(f"{which}'s parameter {key!r}", value)
    told = {(*encode, *decode): None for encode, decode in subject.parameters.values()}
    return "; ".join(", ".join(dict.fromkeys(names)) or "none" for names in told)


def _check_array(what: str, value: Any) -> None:
    if not isinstance(value, jax.Array | np.ndarray | np.generic):
        raise Failed(
            f"{what} to be an array, since it travels",
            f"{value!r:.60} of type {type(value).__name__}",
            "make it an array, or a field of the stage if it is a constant",
        )


def _check_name_list(what: str, names: Any) -> None:
    is_tuple = isinstance(names, tuple) and all(isinstance(name, str) and name for name in names)
    if not is_tuple or len(set(names)) != len(names):
        way_out = "a tuple of one name needs a comma" if isinstance(names, str) else ""
        raise Failed(f"{what} to be a tuple of different names", f"{names!r}", way_out)
