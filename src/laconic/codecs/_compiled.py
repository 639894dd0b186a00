"""The pure halves of a bound codec, for all tensors of a tree together, as JAX compiles them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from laconic.codecs import _recursion
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stack import compiled_over
from laconic.codecs._stage import Stage
from laconic.codecs._undivided import Undivided
from laconic.codecs._units import Unit, join, split


class Encoded(NamedTuple):
    """What encoding a tree gives.

    Attributes:
      arrays: for each unit, what its coders take.
      contexts: for each of these arrays its entries' contexts, or None.
      reports: for each unit, its stages' reports.
      memory: for each unit, its stages' next memories.
      finite: for each tensor, whether it holds neither NaN nor infinity.
      in_range: for each unit, whether its stages could keep their promises.
    """

    arrays: Any
    contexts: Any
    reports: Any
    memory: Any
    finite: Array
    in_range: Array


class Forwarding:
    """Like `jax.jit`, but an output that is one of the arguments is that argument, not a copy, unless it may change.

    Uncompressed tensors are such outputs, and copying a model takes longer than looking for NaN in it.

    Args:
      function: its outputs' structure, and which of them are arguments, are the same in every call.
      jit: `jax.jit` or the like.
      static_argnames: as it takes them.
    """

    def __init__(self, function: Callable[..., Any], *, jit: Callable[..., Any] = jax.jit, static_argnames: str = ""):
        @functools.partial(jit, static_argnames=static_argnames or None)
        def computed(*arguments: Any, **static: Any) -> list[Any]:
            positions = {id(leaf): position for position, leaf in enumerate(jax.tree.leaves(arguments))}
            outputs, self._structure = jax.tree.flatten(function(*arguments, **static))
            self._sources = [positions.get(id(output)) for output in outputs]
            return [output for output, source in zip(outputs, self._sources, strict=True) if source is None]

        self._computed = computed

    def __call__(self, *arguments: Any, **static: Any) -> Any:
        """What the function gives."""
        computed = iter(self._computed(*arguments, **static))
        leaves = jax.tree.leaves(arguments)
        outputs = [next(computed) if source is None else _unchanging(leaves[source]) for source in self._sources]
        return jax.tree.unflatten(self._structure, outputs)


class Compiled:
    """Encoding and decoding of units, one compiled program for each half.

    Args:
      units: what is coded as one.
      specs: each tensor's.
      codec_specs: each unit's, as `_recursion.initial_state` gives them.
    """

    def __init__(
        self, units: Sequence[Unit], specs: Sequence[TensorSpec], codec_specs: Sequence[_recursion.CodecSpecs]
    ):
        self._units = tuple(units)
        self._specs = tuple(specs)
        self._codec_specs = tuple(codec_specs)
        self.encode = Forwarding(self.trace_encode)
        # Many senders', each on a thread of its own.
        self.encode_contribution = Forwarding(self.trace_encode, jit=Undivided)
        self.contexts = jax.jit(self._contexts)
        self.decode = jax.jit(self._decode, static_argnames="is_checked")
        self.before_sum = Forwarding(self.trace_before_sum, jit=Undivided, static_argnames="is_checked")
        self.contribute = Forwarding(self._contribute, jit=Undivided)
        self.after_sum = jax.jit(self._after_sum)
        self.contribute_stack = compiled_over(lambda shared, own: self._contribute(list(own[0]), own[1], *shared))

    def trace_encode(self, keys: Any, leaves: Any, parameters: Any, memory: Any) -> Encoded:
        """The leaves' encodings."""
        arrays = join(self._units, leaves)
        encodings = [
            _recursion.encode(unit.codec, *given)
            for unit, *given in zip(self._units, keys, arrays, parameters, memory, self._codec_specs, strict=True)
        ]
        in_range = [functools.reduce(jnp.logical_and, each.in_range, jnp.bool_(True)) for each in encodings]
        return Encoded(
            [list(_recursion.leaves(u.codec, each.tree)) for u, each in zip(self._units, encodings, strict=True)],
            [each.contexts for each in encodings],
            [each.reports for each in encodings],
            [each.memory for each in encodings],
            _sent_finite(self._units, arrays, leaves),
            jnp.stack(in_range) if in_range else jnp.ones(0, jnp.bool_),
        )

    def trace_before_sum(self, keys: Any, arrays: Any, parameters: Any, *, is_checked: bool) -> tuple[list[Any], Array]:
        """For each unit its summands; and whether these are finite."""
        summands = [
            _recursion.decode_before_sum(unit.codec, key, tree, own, specs)
            for unit, key, tree, own, specs in self._given(keys, arrays, parameters)
        ]
        return summands, _received_finite(summands, is_checked)

    def _contribute(
        self, keys: Any, leaves: Any, parameters: Any, decode_parameters: Any, memory: Any
    ) -> tuple[Encoded, list[Any]]:
        """One sender's encoding, and its summands."""
        encoded = self.trace_encode(keys, leaves, parameters, memory)
        # The receiver has only what was encoded: XLA must not see that a number was wider before.
        given = {id(leaf) for leaf in leaves}
        arrays = jax.tree.map(
            lambda array: array if id(array) in given else jax.lax.optimization_barrier(array), encoded.arrays
        )
        summands, _ = self.trace_before_sum(keys, arrays, decode_parameters, is_checked=True)
        return encoded, summands

    def _contexts(self, keys: Any) -> Any:
        return [
            _recursion.contexts(unit.codec, key, specs)
            for unit, key, specs in zip(self._units, keys, self._codec_specs, strict=True)
        ]

    def _decode(self, keys: Any, arrays: Any, parameters: Any, *, is_checked: bool) -> tuple[list[Any], Array]:
        decoded = [
            _recursion.decode(unit.codec, key, tree, own, specs)
            for unit, key, tree, own, specs in self._given(keys, arrays, parameters)
        ]
        leaves = [x.astype(spec.dtype) for x, spec in self._leaves(decoded)]
        return leaves, _received_finite(leaves, is_checked)

    def _after_sum(self, summed: Any, parameters: Any, num_summands: Any, state: Any) -> tuple[list[Any], Any]:
        decoded = [
            _recursion.decode_after_sum(unit.codec, tree, own, specs, num_summands, held)
            for unit, tree, own, specs, held in zip(
                self._units, summed, parameters, self._codec_specs, state, strict=True
            )
        ]
        leaves = self._leaves([x for x, _ in decoded])
        return [x.astype(spec.dtype) if spec.is_float else x for x, spec in leaves], [held for _, held in decoded]

    def _leaves(self, arrays: Sequence[Array]) -> list[tuple[Array, TensorSpec]]:
        return list(zip(split(self._units, arrays, self._specs), self._specs, strict=True))

    def _given(self, keys: Any, arrays: Any, parameters: Any) -> list[tuple[Any, ...]]:
        return [
            (unit, key, _recursion.unleaves(unit.codec, iter(own_arrays)), own, specs)
            for unit, key, own_arrays, own, specs in zip(
                self._units, keys, arrays, parameters, self._codec_specs, strict=True
            )
        ]


def _unchanging(array: Any) -> Any:
    is_fixed = isinstance(array, jax.Array) or (isinstance(array, np.ndarray) and not array.flags.writeable)
    return array if is_fixed else np.array(array)


def with_coarseness(units: Sequence[Unit], parameters: Sequence[Any], coarseness: Sequence[float]) -> list[Any]:
    """Encode parameters in which stages that look for their rate also find how coarse to be."""

    def told(value: float, stage: Stage, own: Any) -> Any:
        return {**own, "coarseness": np.float32(value)} if stage.is_searched else own

    return [
        _recursion.map_stages(unit.codec, functools.partial(told, value), own) if unit.codec.is_searched else own
        for unit, own, value in zip(units, parameters, coarseness, strict=True)
    ]


def _sent_finite(units: Sequence[Unit], arrays: Sequence[Array], leaves: Sequence[Array]) -> Bool[Array, " trees"]:
    """For each tensor, given also as what each unit joins, whether it is neither NaN nor infinite."""
    finite: dict[int, Array] = {}
    for unit, array in zip(units, arrays, strict=True):
        own = [leaves[i] for i in unit.members]
        if len(own) == 1 or not unit.spec.is_float:
            checked = are_finite(own)
        else:
            # The sum that steps in root mean squares need, too, so that XLA goes through the array once for both.
            all_are = jnp.isfinite(jnp.sum(array * array))
            checked = jax.lax.cond(
                all_are, lambda own=own: jnp.ones(len(own), jnp.bool_), lambda own=own: are_finite(own)
            )
        finite.update(zip(unit.members, checked, strict=True))
    return jnp.stack([finite[i] for i in range(len(leaves))]) if leaves else jnp.ones(0, jnp.bool_)


def are_finite(trees: Sequence[Any]) -> Bool[Array, " trees"]:
    """For each tree of arrays whether its floats are neither NaN nor infinite."""
    checks = [
        [_is_finite(x) for x in jax.tree.leaves(tree) if x.size and jnp.issubdtype(x.dtype, jnp.floating)]
        for tree in trees
    ]
    if not checks:
        return jnp.ones(0, jnp.bool_)
    return jnp.stack([functools.reduce(jnp.logical_and, own, jnp.bool_(True)) for own in checks])


def _is_finite(x: Array) -> Array:
    # Zero times NaN or infinity is NaN, and so is a sum with one. That takes half the time of asking of each number. No
    # maximum: XLA's on CPU loses NaN in arrays of some thousand entries.
    return (x * 0).sum() == 0


def _received_finite(trees: Sequence[Any], is_checked: bool) -> Bool[Array, " trees"]:
    """Like `are_finite`, of what was decoded.

    What is read in the process that made it was checked when it was made: another check is another pass over the model.
    """
    return jnp.ones(len(trees), jnp.bool_) if is_checked else are_finite(trees)
