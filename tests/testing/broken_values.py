"""Stages that each break one promise about values: round trips, sums, draws, rounds, and other processes."""

# ruff: noqa: D101 - a class's name says what it does wrong

import dataclasses
import os
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from broken_stages import Adaptive, PassThrough, breaks

from laconic import codecs
from laconic.codecs import Merge, random

# Values.


@breaks("round trip", "to come back finite")
class DividesByNorm(PassThrough):
    outputs = ("values", "norm")

    def encode(self, key, x, parameters):
        norm = jnp.sqrt((x**2).sum())
        return {"values": x / norm, "norm": norm}

    def decode(self, encoded, parameters, *, num_summands, spec):
        return encoded["values"] * encoded["norm"]


_calls = [0]


def _count_calls() -> int:
    _calls[0] += 1
    return _calls[0]


@breaks("sizes", "same shapes and dtypes each time")
class Grows(PassThrough):
    outputs = ("values", "more")

    def encode(self, key, x, parameters):
        return {"values": x, "more": jnp.zeros(_count_calls(), x.dtype)}


@breaks("pure", "keep nothing between calls")
class CountsCalls(PassThrough):
    def encode(self, key, x, parameters):
        return {"values": x + _count_calls()}


@breaks("pure", "leave its arguments as they are")
class EmptiesItsArgument(PassThrough):
    def decode(self, encoded, parameters, *, num_summands, spec):
        return encoded.pop("values")


@breaks("jit equals eager", "compiled and uncompiled")
class KnowsThatItIsTraced(PassThrough):
    def encode(self, key, x, parameters):
        return {"values": x * (2 if isinstance(x, jax.core.Tracer) else 1)}


@breaks("lossless", "return False from is_lossless")
class ClaimsLossless(PassThrough):
    is_lossless = True

    def encode(self, key, x, parameters):
        return {"values": x.astype(jnp.float16)}


@breaks("lossless", "the sign of a zero")
class LosesMinusZero(PassThrough):
    is_lossless = True

    def encode(self, key, x, parameters):
        return {"values": jnp.where(x == 0, 0, x)}


# Sums.


@breaks("commutes with sum", "return False from commutes_with_sum")
class ClaimsToCommute(PassThrough):
    commutes_with_sum = True
    outputs = ("values", "scale")

    def encode(self, key, x, parameters):
        scale = jnp.abs(x).max()
        return {"values": x / jnp.where(scale > 0, scale, 1), "scale": scale}

    def decode(self, encoded, parameters, *, num_summands, spec):
        return encoded["values"] * encoded["scale"]


@breaks("commutes with sum", "return False from commutes_with_sum")
class IgnoresCount(PassThrough):
    commutes_with_sum = True

    def encode(self, key, x, parameters):
        return {"values": x + 1}

    def decode(self, encoded, parameters, *, num_summands, spec):
        return encoded["values"] - 1


# What is drawn.


@breaks("stochastic", "return True from is_stochastic")
class DrawsSecretly(PassThrough):
    def encode(self, key, x, parameters):
        return {"values": x + random.uniform(key, x.shape)}


@breaks("stochastic", "return False from is_stochastic")
class NeverDraws(PassThrough):
    is_stochastic = True


def _rounded(key, x, shift=0.0):
    """Rounds to sixteenths at random; unbiased without a shift."""
    y = x * 16
    floor = jnp.floor(y)
    return (floor + (random.uniform(key, x.shape) < y - floor + shift)) / 16


@breaks("unbiased", "return False from is_unbiased")
class RoundsToNearest(PassThrough):
    is_unbiased = True

    def encode(self, key, x, parameters):
        return {"values": jnp.round(x * 16) / 16}


@breaks("unbiased", "a bias of")
class RoundsUpABitTooOften(PassThrough):
    is_stochastic = is_unbiased = True

    def encode(self, key, x, parameters):
        return {"values": _rounded(key, x, shift=0.1)}


@breaks("unbiased", "weighted by the input")
class Shrinks(PassThrough):
    """By a share that no single entry shows."""

    is_stochastic = is_unbiased = True

    def encode(self, key, x, parameters):
        return {"values": _rounded(key, x * 0.998)}


# Rounds.


@breaks("state", "keep the state's tree, shapes and dtypes")
class StacksIntoState(Adaptive):
    merges: ClassVar[dict[str, Merge]] = {"mean": Merge.STACK, "count": Merge.SUM}

    def parameters(self, state):
        return ({"offset": jnp.mean(state["offset"])},) * 2

    def update_state(self, state, merged):
        return {"offset": jnp.asarray(merged["mean"])}


@breaks("state", "keep the state's tree, shapes and dtypes")
class ChangesStatesDtype(Adaptive):
    def update_state(self, state, merged):
        return {"offset": jnp.float16(0)}


@breaks("state", "all arrays")
class PythonNumberInLaterState(Adaptive):
    def update_state(self, state, merged):
        return {"offset": 0.5}


@breaks("state", "parameters to keep their names, shapes and dtypes")
class ParametersGrow(Adaptive):
    def parameters(self, state):
        rounds = int(jnp.sum(state["offset"] != 0))
        told = {"offset": jnp.full(1 + rounds, state["offset"])[0], "more": jnp.zeros(1 + rounds)}
        return told, told


@breaks("state", "finite state")
class DividesByZero(Adaptive):
    def update_state(self, state, merged):
        return {"offset": jnp.float32(jnp.nan)}


@breaks("state", "whichever of")
class RemembersUpdates(Adaptive):
    def update_state(self, state, merged):
        return {"offset": jnp.float32(_count_calls())}


# Other processes.


@breaks("wire", "rebuilt from its fields")
class ChangesItsField(PassThrough):
    bits: int = 8

    def __post_init__(self):
        object.__setattr__(self, "bits", self.bits + 1)


_DRAWN_AT_IMPORT = int.from_bytes(os.urandom(2), "little") / 1000


@breaks("other process", "decode must need nothing but the encoding")
class DitherOfThisProcess(PassThrough):
    def encode(self, key, x, parameters):
        return {"values": x + _DRAWN_AT_IMPORT}

    def decode(self, encoded, parameters, *, num_summands, spec):
        return encoded["values"] - _DRAWN_AT_IMPORT * 0.5


_memory: dict[str, Any] = {}


@breaks("other process", "KeyError")
class DecodesFromMemory(PassThrough):
    """Keeps what it encodes, and decodes that."""

    def encode(self, key, x, parameters):
        jax.debug.callback(lambda value: _memory.update(last=value), x)
        return {"values": x}

    def decode(self, encoded, parameters, *, num_summands, spec):
        result = jax.ShapeDtypeStruct(spec.shape, spec.dtype)
        remembered = jax.pure_callback(
            lambda _: _memory["last"] * 0, result, encoded["values"], vmap_method="sequential"
        )
        return encoded["values"] + remembered


@codecs.register
@dataclasses.dataclass(frozen=True)
class TakesMaximum(PassThrough):
    """Keeps all promises but for arrays without entries."""

    name: ClassVar[str] = "test.TakesMaximum"

    def encode(self, key, x, parameters):
        return {"values": x + 0 * x.max()}
