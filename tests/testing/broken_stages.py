"""Stages that each break one promise, and keep every other: about what they declare, and shapes, dtypes and names.

Another process imports this module and `broken_values`, too.
"""

# ruff: noqa: D101 - a class's name says what it does wrong

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp

from laconic import codecs
from laconic.codecs import Merge, random
from laconic.errors import ArgumentError

BROKEN: list[tuple[str, str, Callable[[], codecs.Stage]]] = []
"""The check that must fail, a phrase of its message, and the stage."""


def breaks(check: str, phrase: str) -> Callable[[type], type]:
    """Class decorator: makes a registered stage of the class, and says which check it fails."""

    def decorate(cls: type) -> type:
        cls.name = f"test.{cls.__name__}"
        made = codecs.register(dataclasses.dataclass(frozen=True)(cls))
        BROKEN.append((check, phrase, made))
        return made

    return decorate


@dataclasses.dataclass(frozen=True)
class PassThrough(codecs.Stage):
    """Keeps all promises."""

    name: ClassVar[str] = "test.PassThrough"

    def encode(self, key, x, parameters):
        return {"values": x}

    def decode(self, encoded, parameters, *, num_summands, spec):
        return encoded["values"].astype(spec.dtype)


@dataclasses.dataclass(frozen=True)
class Adaptive(PassThrough):
    """Adds an offset that moves with the clients' mean, and takes it off."""

    name: ClassVar[str] = "test.Adaptive"
    merges: ClassVar[dict[str, Merge]] = {"mean": Merge.SUM, "count": Merge.SUM}

    def initial_state(self, spec):
        return {"offset": jnp.float32(0)}

    def parameters(self, state):
        return dict(state), dict(state)

    def encode(self, key, x, parameters):
        return {"values": x + parameters["offset"]}

    def decode(self, encoded, parameters, *, num_summands, spec):
        return (encoded["values"] - parameters["offset"] * num_summands).astype(spec.dtype)

    def report(self, x, encoded, parameters):
        return {"mean": jnp.mean(x.astype(jnp.float32)), "count": jnp.float32(1)}

    def update_state(self, state, merged):
        return {"offset": jnp.float32(merged["mean"] / merged["count"])}


# What a stage says about itself.


class NoDataclass(codecs.Identity):
    name = "test.NoDataclass"


BROKEN.append(("fields", "frozen dataclass", NoDataclass))


@breaks("fields", "'levels' to be None, bool, int, float, str or a tuple")
class ListField(PassThrough):
    levels: Any = dataclasses.field(default_factory=lambda: [1, 2], hash=False)


@breaks("declared names", "needs a comma")
class OutputsAsString(PassThrough):
    outputs = "values"


@breaks("declared names", "compressible")
class CompressibleStranger(PassThrough):
    compressible = ("values", "codes")


@breaks("declared names", "codecs.Merge.SUM")
class MergeAsString(Adaptive):
    merges: ClassVar[Any] = {"mean": "sum", "count": "sum"}


@breaks("flags", "@property")
class FlagAsMethod(PassThrough):
    def is_lossless(self):
        return True


@dataclasses.dataclass(frozen=True)
class Unregistered(PassThrough):
    name: ClassVar[str] = "test.Unregistered"


BROKEN.append(("registration", "@codecs.register", Unregistered))


@breaks("inputs", "refusals only")
class RefusesAll(PassThrough):
    def check(self, spec):
        raise ArgumentError(f"{spec} is not for me")


@breaks("inputs", "ZeroDivisionError")
class ChecksBadly(PassThrough):
    def check(self, spec):
        return 1 // 0


@breaks("parameters", "encode's parameter 'offset' to be an array")
class PythonNumberParameter(Adaptive):
    def parameters(self, state):
        return {"offset": 0.0}, {"offset": 0.0}


@breaks("parameters", "the state to be an array")
class PythonNumberState(Adaptive):
    def initial_state(self, spec):
        return {"offset": 0.0}


@breaks("parameters", "two dicts")
class OneDictOfParameters(Adaptive):
    def parameters(self, state):
        return dict(state)


# Shapes, dtypes and names.


@breaks("jit encode", "TracerBoolConversionError")
class BranchesOnValues(PassThrough):
    def encode(self, key, x, parameters):
        return {"values": x if x.max() > 0 else -x}


@breaks("jit encode", "TracerBoolConversionError")
class BranchesOnParameters(Adaptive):
    def encode(self, key, x, parameters):
        return {"values": x + parameters["offset"] if parameters["offset"] > 0 else x}


@breaks("jit encode", "must be an array")
class PythonNumberOutput(PassThrough):
    outputs = ("values", "scale")

    def encode(self, key, x, parameters):
        return {"values": x, "scale": 1.0}


@breaks("output names", "['codes']")
class WrongNames(PassThrough):
    def encode(self, key, x, parameters):
        return {"codes": x}


@breaks("regenerated names", "the declared regenerated ['mask']")
class RegeneratesAnother(PassThrough):
    regenerated = ("mask",)

    def regenerate(self, key, spec):
        return {"signs": random.bits(key, spec.size)}


@breaks("memory", "keep the memory's tree, shapes and dtypes")
class MemoryNarrows(PassThrough):
    def initial_memory(self, spec):
        return {"error": jnp.float32(0)}

    def update_memory(self, memory, x, received):
        return {"error": jnp.float16(0)}


@breaks("report names", "['sum']")
class WrongReports(Adaptive):
    def report(self, x, encoded, parameters):
        return {"sum": x.sum()}


@breaks("report names", "must be an array")
class PythonNumberReport(Adaptive):
    def report(self, x, encoded, parameters):
        return {"mean": x.mean(), "count": 1}


@breaks("jit decode", "got float32[1,9]")
class WrongShape(PassThrough):
    def decode(self, encoded, parameters, *, num_summands, spec):
        return encoded["values"][None]


@breaks("jit decode", "got float16[9]")
class WrongDtype(PassThrough):
    def decode(self, encoded, parameters, *, num_summands, spec):
        return encoded["values"].astype(jnp.float16)


@breaks("jit decode", "TracerBoolConversionError")
class BranchesOnCount(PassThrough):
    def decode(self, encoded, parameters, *, num_summands, spec):
        return encoded["values"] * (2.0 if num_summands < 0 else 1.0)
