"""What the tests of codecs share: stages and coders of a user's own, trees, and comparisons."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import laconic
from laconic import codecs
from laconic.codecs import Merge
from laconic.codecs._specs import DTYPES
from laconic.errors import DecodeError

FLOATS = [dtype for dtype in DTYPES if jnp.issubdtype(dtype, jnp.floating)]
INTEGERS = [dtype for dtype in DTYPES if dtype.kind in "iu"]

# Derandomised, so that a test that passes passes everywhere; no deadline, since the first example compiles.
few_examples = hypothesis.settings(max_examples=25, deadline=None, derandomize=True, database=None)

shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
seeds = st.integers(0, 2**64 - 1)


class Custom(codecs.Stage):
    """Says what a test sets, and is otherwise a stage like any other."""

    def encode(self, key, x, parameters):
        return {"values": x}

    def decode(self, encoded, parameters, *, num_summands, spec):
        return encoded["values"].reshape(spec.shape).astype(spec.dtype)


@codecs.register
@dataclasses.dataclass(frozen=True)
class Scale(Custom):
    """x * factor: lossy in general, and linear."""

    name: ClassVar[str] = "test.scale"
    factor: float = 2.0
    commutes: bool = True

    @property
    def commutes_with_sum(self):
        return self.commutes

    def encode(self, key, x, parameters):
        return {"values": x * self.factor}

    def decode(self, encoded, parameters, *, num_summands, spec):
        return (encoded["values"] / self.factor).reshape(spec.shape).astype(spec.dtype)


@codecs.register
@dataclasses.dataclass(frozen=True)
class Square(Custom):
    """sign(x) x^2: no sum of these says anything about the sum of the x."""

    name: ClassVar[str] = "test.square"

    def encode(self, key, x, parameters):
        return {"values": jnp.sign(x) * x * x}

    def decode(self, encoded, parameters, *, num_summands, spec):
        y = encoded["values"]
        return (jnp.sign(y) * jnp.sqrt(jnp.abs(y))).reshape(spec.shape).astype(spec.dtype)


@codecs.register
@dataclasses.dataclass(frozen=True)
class Split(Custom):
    """Even and odd entries of a vector, each to be encoded further."""

    name: ClassVar[str] = "test.split"
    outputs: ClassVar[tuple[str, ...]] = ("even", "odd")
    compressible: ClassVar[tuple[str, ...]] = ("even", "odd")
    commutes: bool = True

    @property
    def commutes_with_sum(self):
        return self.commutes

    def encode(self, key, x, parameters):
        flat = x.reshape(-1)
        return {"even": flat[0::2], "odd": flat[1::2]}

    def decode(self, encoded, parameters, *, num_summands, spec):
        dtype = jnp.promote_types(encoded["even"].dtype, encoded["odd"].dtype)
        flat = jnp.zeros(spec.size, dtype).at[0::2].set(encoded["even"]).at[1::2].set(encoded["odd"])
        return flat.reshape(spec.shape).astype(spec.dtype)


@codecs.register
@dataclasses.dataclass(frozen=True)
class Noise(Custom):
    """Adds uniform noise from its key, so that tests see which key it got."""

    name: ClassVar[str] = "test.noise"

    @property
    def is_stochastic(self):
        return True

    def encode(self, key, x, parameters):
        return {"values": x + codecs.random.uniform(key, x.shape).astype(x.dtype)}


@codecs.register
@dataclasses.dataclass(frozen=True)
class LargestSeen(Custom):
    """Divides by the largest magnitude of earlier rounds: parameters both ways, a report of each kind."""

    name: ClassVar[str] = "test.largest_seen"
    merges: ClassVar = {"low": Merge.MIN, "high": Merge.MAX, "count": Merge.SUM, "means": Merge.STACK}

    @property
    def commutes_with_sum(self):
        return True

    def encode(self, key, x, parameters):
        return {"values": x / parameters["scale"]}

    def decode(self, encoded, parameters, *, num_summands, spec):
        return (encoded["values"] * parameters["scale"]).reshape(spec.shape).astype(spec.dtype)

    def initial_state(self, spec):
        zero = jnp.float32(0)
        return {"scale": jnp.float32(1), "low": zero, "high": zero, "count": jnp.int32(0), "mean": zero}

    def parameters(self, state):
        return {"scale": state["scale"]}, {"scale": state["scale"]}

    def report(self, x, encoded, parameters):
        x = x.astype(jnp.float32)
        return {"low": x.min(), "high": x.max(), "count": jnp.int32(x.size), "means": x.mean()}

    def update_state(self, state, merged):
        largest = jnp.maximum(jnp.abs(merged["low"]), jnp.abs(merged["high"]))
        return {
            "scale": jnp.maximum(state["scale"], largest),
            "low": merged["low"],
            "high": merged["high"],
            "count": merged["count"],
            "mean": merged["means"].mean(),
        }


@codecs.register
@dataclasses.dataclass(frozen=True)
class Alternate(Custom):
    """Negates in every other round: state that moves on without any report."""

    name: ClassVar[str] = "test.alternate"

    @property
    def is_lossless(self):
        return True

    def encode(self, key, x, parameters):
        return {"values": x * parameters["sign"].astype(x.dtype)}

    def decode(self, encoded, parameters, *, num_summands, spec):
        return (encoded["values"] * parameters["sign"].astype(spec.dtype)).reshape(spec.shape)

    def initial_state(self, spec):
        return jnp.int8(1)

    def parameters(self, state):
        return {"sign": state}, {"sign": state}

    def update_state(self, state, merged):
        return -state


@codecs.register
@dataclasses.dataclass(frozen=True)
class Trim(codecs.Coder):
    """Leaves out zero bytes at the end: a coder whose length depends on the values."""

    name: ClassVar[str] = "test.trim"

    def encode(self, array):
        return np.ascontiguousarray(array).tobytes().rstrip(b"\0")

    def decode(self, data, spec):
        if len(data) > spec.nbytes or (len(data) and not data[-1]):
            raise DecodeError(f"a trimmed section for {spec} is too long")
        return np.frombuffer(bytes(data).ljust(spec.nbytes, b"\0"), spec.dtype).reshape(spec.shape)


def same_bits(first, second):
    """Whether two trees have one structure and arrays of one shape, dtype and content; -0.0 is not 0.0."""
    first_leaves, first_structure = jax.tree.flatten(first)
    second_leaves, second_structure = jax.tree.flatten(second)
    return first_structure == second_structure and all(
        np.shape(a) == np.shape(b)
        and np.asarray(a).dtype == np.asarray(b).dtype
        and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(first_leaves, second_leaves, strict=True)
    )


def array_of(shape, dtype, seed=0):
    """An array of any supported dtype whose bits are random, floats without NaN and infinity."""
    generator = np.random.default_rng(seed)
    size = int(np.prod(shape, dtype=np.int64))
    if dtype == np.bool_:
        return generator.integers(0, 2, shape).astype(bool)
    array = np.frombuffer(generator.bytes(size * dtype.itemsize), dtype).reshape(shape)
    return np.where(np.isfinite(array), array, np.zeros((), dtype)) if dtype in FLOATS else array


def decodings(stage, x, count):
    """What `count` keys make of x through one stage alone: its decoded arrays, stacked, in float64."""
    spec = codecs.TensorSpec("x", x.shape, x.dtype)

    def through(key, x):
        encoded = stage.encode(key, x, {})
        encoded |= stage.regenerate(key, spec)
        return stage.decode(encoded, {}, num_summands=1, spec=spec)

    keys = codecs.random.derive_each(codecs.random.key(0), count)
    return np.asarray(jax.jit(jax.vmap(through, (0, None)))(keys, x), np.float64)


def gathered(bound, trees, *, state=None, seed=0):
    """What a server decodes from clients' contributions, and its next state."""
    gather = bound.gather(state)
    parameters = None if state is None else bound.encode_parameters(state)
    for client, tree in enumerate(trees):
        key = codecs.random.derive(codecs.random.key(seed), client)
        gather.add(bound.encode_contribution(tree, key=key, parameters=parameters).blob)
    return gather.result()


def run_elsewhere(script, *arguments):
    """Runs a Python script in a process of its own, which can import what this one can."""
    folders = [str(Path(laconic.__file__).parents[1]), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
