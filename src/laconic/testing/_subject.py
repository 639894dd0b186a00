"""The stage under test, with all that several checks need of it."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from laconic import codecs
from laconic.codecs import Arrays, BoundCodec, Codec, Payload, Stage, TensorSpec, random
from laconic.codecs.random import Key
from laconic.testing._inputs import Inputs
from laconic.testing._report import Failed, summary

RELATIVE_TOLERANCE = 1e-5
"""Of sums and of compiled against eager arithmetic, relative to the values' scale."""


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A stage and what it is checked with.

    Attributes:
      stage: the stage under test.
      inputs: those that it accepts.
      clients: how many clients contribute to a sum.
      seeds: how many seeds bias is measured over.
      seed: of everything that is drawn.
      in_other_process: whether to start another process.
    """

    stage: Stage
    inputs: Inputs
    clients: int
    seeds: int
    seed: int
    in_other_process: bool

    @functools.cached_property
    def codec(self) -> Codec:
        """The stage alone; its outputs travel raw."""
        return codecs.chain(self.stage)

    @functools.cached_property
    def bound(self) -> BoundCodec:
        """The codec, compiled once for one tree of all the specs."""
        return codecs.bind(self.codec, next(iter(self.inputs.trees.values())))

    def key(self, *parts: int | str) -> Key:
        """A key for one purpose."""
        return random.derive(random.key(self.seed), *parts)

    @functools.cached_property
    def parameters(self) -> dict[str, tuple[dict[str, Array], dict[str, Array]]]:
        """What encode and decode are told in the first round, by spec; to be made on the host, not under `jax.jit`."""
        told = {}
        for name, spec in self.inputs.specs.items():
            encode, decode = self.stage.parameters(self.stage.initial_state(spec))
            coarseness = {"coarseness": jnp.float32(1)} if self.stage.is_searched else {}
            told[name] = {**encode, **coarseness}, dict(decode)
        return told

    def encode(self, name: str, key: Any, x: Any, told: Any = None) -> dict[str, Array]:
        """One array's encoding in the first round."""
        told = self.parameters[name][0] if told is None else told
        if self.stage.needs_client_state:
            memory = self.stage.initial_memory(self.inputs.specs[name])
            return dict(self.stage.encode_remembering(key, x, told, memory))
        return dict(self.stage.encode(key, x, told))

    def decode(self, name: str, key: Any, encoded: Arrays) -> Array:
        """What is decoded from it."""
        spec = self.inputs.specs[name]
        arrays = {**encoded, **self.stage.regenerate(key, spec)}
        return self.stage.decode(arrays, self.parameters[name][1], num_summands=1, spec=spec)

    def round_trip(self, tree: Any, key: Key) -> Any:
        """What comes of a tree through bytes, to one receiver if it remembers."""
        if not self.stage.has_receiver_memory:
            return self.bound.decode(self.bound.encode(tree, key=key)[0].blob)
        gather = self.bound.gather()
        gather.add(self.contribution(tree, key).blob)
        return gather.result()[0]

    def contribution(self, tree: Any, key: Key, parameters: Any = None) -> Payload:
        """A sender's first contribution."""
        return self.bound.contribute(tree, self.bound.initial_memory(), key=key, parameters=parameters)[0]

    @functools.cached_property
    def jit_encode(self) -> Callable[..., dict[str, Array]]:
        """`encode`, compiled."""
        return jax.jit(self.encode, static_argnums=0)

    @functools.cached_property
    def draw(self) -> Callable[..., Any]:
        """Encodings and decodings, by spec, of a tree's arrays under several keys; compiled once for their number."""

        def reproduce(key: Key, tree: Any) -> tuple[Any, Any]:
            encoded = {name: self.encode(name, key, x) for name, x in tree.items()}
            return encoded, {name: self.decode(name, key, own) for name, own in encoded.items()}

        return jax.jit(jax.vmap(reproduce, in_axes=(0, None)))

    def jax(self, kind: str, name: str) -> Array:
        """An input as a stage receives it."""
        return jnp.asarray(self.inputs.trees[kind][name])


def attempt(what: str, way_out: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls the stage's code; whatever it raises is the stage's failure."""
    try:
        return function(*arguments)
    except Failed:
        raise
    except Exception as error:
        raise Failed(what, summary(error), way_out) from error


def same_bits(first: Any, second: Any) -> bool:
    """Whether two arrays have one shape, dtype and content; minus zero is not zero."""
    first, second = np.asarray(first), np.asarray(second)
    return (first.shape, first.dtype) == (second.shape, second.dtype) and first.tobytes() == second.tobytes()


def first_difference(expected: Any, got: Any) -> str:
    """Where two arrays differ most, as a sentence shows it."""
    expected, got = np.asarray(expected), np.asarray(got)
    if (expected.shape, expected.dtype) != (got.shape, got.dtype):
        return f"{describe(got)} instead of {describe(expected)}"
    wide_expected, wide_got = np.atleast_1d(expected.astype(np.float64)), np.atleast_1d(got.astype(np.float64))
    with np.errstate(invalid="ignore"):
        error = np.nan_to_num(np.abs(wide_expected - wide_got), nan=np.inf)
    if not error.any():
        return "an array that differs in the sign of a zero"
    place = np.unravel_index(int(error.argmax()), error.shape)
    where = f" at {[int(i) for i in place]}" if expected.ndim else ""
    return f"{wide_got[place]:.7g} instead of {wide_expected[place]:.7g}{where}"


def excess(expected: np.ndarray, got: np.ndarray, spec: TensorSpec, scale: float) -> float:
    """The largest difference of two arrays in units of what rounding explains, relative to `scale`; fine up to 1."""
    difference = np.abs(expected.astype(np.float64) - got.astype(np.float64)).max(initial=0.0)
    tolerance = max(RELATIVE_TOLERANCE, 4 * epsilon(spec)) * scale
    return 0.0 if difference == 0 else float(np.divide(difference, tolerance)) if tolerance else np.inf


def epsilon(spec: TensorSpec) -> float:
    """The relative distance of neighbouring values of the spec's dtype; zero for integers."""
    return float(jnp.finfo(spec.dtype).eps) if spec.is_float else 0.0  # type: ignore[no-untyped-call]


def specs_of_arrays(tree: Any) -> Any:
    """Shapes and dtypes of a tree of arrays, comparable with ==."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((tuple(np.shape(leaf)), np.dtype(leaf.dtype).name) for leaf in leaves)


def describe(tree: Any) -> str:
    """A tree of arrays as a sentence shows it: `{odd: uint8}`."""
    if isinstance(tree, Mapping):
        return "{" + ", ".join(f"{name}: {describe(value)}" for name, value in tree.items()) + "}"
    if isinstance(tree, list | tuple):
        return f"{type(tree).__name__}({', '.join(map(describe, tree))})"
    if hasattr(tree, "dtype") and hasattr(tree, "shape"):
        return str(TensorSpec("", tuple(tree.shape), np.dtype(tree.dtype)))
    return f"{tree!r:.60}"
