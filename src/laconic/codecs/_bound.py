"""A codec bound to the tensors it encodes: compiled, and ready to make and read payloads."""

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import PyTreeDef
from jaxtyping import Array, Bool

from laconic.codecs import _description, _recursion, _wire, random
from laconic.codecs._codec import Codec
from laconic.codecs._gather import Contribution, Gather, Summary
from laconic.codecs._layout import Layout, Payload
from laconic.codecs._merging import fitted
from laconic.codecs._specs import TensorSpec, path_name, spec_of
from laconic.codecs._stage import Stage, checked_arrays
from laconic.codecs.random import Key
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError, NonFiniteError


class BoundCodec:
    """Encodes and decodes trees of one structure; made by `bind`.

    One to many (a server's broadcast): `encode` once, `decode` at each receiver. Many to one (clients' updates): each
    sender makes an `encode_contribution` with the `encode_parameters` it was told; the receiver's `gather` adds them
    up, in the encoded domain as far as the stages commute with the sum. State stays with the one of the many.

    Attributes:
      codecs: each tensor's codec.
      specs: each tensor's spec, in the tree's order.
      structure: how the tensors make a tree.
      num_summand_arrays: arrays in a contribution that are added up.
      num_report_arrays: arrays in a contribution that adaptive stages report.
      is_stochastic: whether encoding needs a key.
    """

    def __init__(self, codecs: Sequence[Codec], specs: Sequence[TensorSpec], structure: PyTreeDef):
        self.codecs = tuple(codecs)
        self.specs = tuple(specs)
        self.structure = structure
        self.is_stochastic = any(codec.is_stochastic for codec in self.codecs)
        self._is_adaptive = any(codec.is_adaptive for codec in self.codecs)
        # Unsigned 32-bit integers too, since a sum of them outgrows JAX's signed ones.
        self._is_wide = any(spec.dtype.itemsize == 8 or spec.dtype == np.uint32 for spec in specs)
        with self._precision():
            self._build_state()
            self._build_layouts()
        self._jit_encode = jax.jit(self._encode_leaves)
        self._jit_decode = jax.jit(self._decode_leaves, static_argnames="is_checked")
        self._jit_before_sum = jax.jit(self._before_sum, static_argnames="is_checked")
        self._jit_after_sum = jax.jit(self._after_sum)

    def static_size(self, *, described: bool = False) -> int | None:
        """Bytes of every one-to-many payload, or None where they depend on the values."""
        return self._one_to_many.static_size(described=described)

    # State, parameters and reports.

    def initial_state(self) -> list[Any]:
        """The state before the first round: for each tensor a tree of arrays, without leaves if no stage adapts."""
        return self._initial_state

    def encode_parameters(self, state: Any) -> list[Any]:
        """What encoders must be told in this round: for each tensor a tree of arrays."""
        return self._parameters(state, 0)

    def _decode_parameters(self, state: Any) -> list[Any]:
        return self._parameters(state, 1)

    def _parameters(self, state: Any, which: int) -> list[Any]:
        def of_stage(stage: Stage, own: Any) -> dict[str, Any]:
            return checked_arrays(stage, "parameter", stage.parameters(own)[which])

        with self._precision():
            return [_recursion.map_stages(codec, of_stage, own) for codec, own in zip(self.codecs, state, strict=True)]

    # One to many.

    def encode(
        self, tree: Any, *, key: Key | None = None, state: Any = None, described: bool = False
    ) -> tuple[Payload, Any]:
        """A payload that any number of receivers can `decode`, and the sender's next state.

        Args:
          tree: of the structure, shapes and dtypes that the codec is bound to.
          key: `uint32[2]`; needed if a stage draws.
          state: the adaptive stages' state; None for the initial one.
          described: whether the payload says how to decode it. Where both ends have bound the same codec it need not.

        Raises:
          ArgumentError: if the tree does not fit, or a key is needed.
          ArgumentTypeError: if the key is not one, or a leaf is not an array.
          NonFiniteError: if a tensor holds NaN or infinity.
        """
        state = self._initial_state if state is None else state
        encoded, reports = self._encode(tree, key, self.encode_parameters(state))
        payload = self._one_to_many.pack(encoded, _leaves_of_each(self._decode_parameters(state)), described=described)
        merged = [merge([report]) for merge, report in zip(self._merges, jax.tree.leaves(reports), strict=True)]
        return payload, self._next_state(state, merged)

    def decode(self, payload: Any) -> Any:
        """The tree of JAX arrays from a one-to-many payload: from its bytes or, in the process that made it, itself.

        Raises:
          DecodeError: if the bytes are damaged, were not made by this codec for these tensors, or decode to NaN or
            infinity.
        """
        is_checked = isinstance(payload, Payload)
        return jax.tree.unflatten(self.structure, self._decode(*self._one_to_many.unpack(payload), is_checked))

    def decode_sections(self, sections: _wire.Reader) -> list[Any]:
        """Like `decode`, from the sections alone, to a list of the tensors."""
        return self._decode(*self._one_to_many.read(sections), False)

    def _decode(self, encoded: Any, extras: Any, is_checked: bool) -> list[Any]:
        with self._precision():
            parameters = [
                jax.tree.unflatten(structure, extra)
                for structure, extra in zip(self._parameter_structures, extras, strict=True)
            ]
            leaves, finite = self._jit_decode(encoded, parameters, is_checked=is_checked)
        self._check_received(finite)
        return leaves

    # Many to one.

    def encode_contribution(
        self, tree: Any, *, key: Key | None = None, parameters: Any = None, described: bool = False
    ) -> Payload:
        """One sender's payload for the receiver's `gather`. Errors as for `encode`.

        Args:
          tree: what to add.
          key: another one for each sender and round, or their errors correlate.
          parameters: what `encode_parameters` gave; None for those of the initial state.
          described: whether the payload says how to decode it.
        """
        parameters = self.encode_parameters(self._initial_state) if parameters is None else parameters
        encoded, reports = self._encode(tree, key, parameters)
        return self._many_to_one.pack(encoded, _leaves_of_each(reports), described=described)

    def read_contribution(self, payload: Any, state: Any = None) -> Contribution:
        """Decodes a contribution as far as that must happen before the sum. Safe to call from several threads.

        Args:
          payload: its bytes or, in the process that made it, the payload itself.
          state: the receiver's; None for the initial one.

        Raises:
          DecodeError: if the bytes are damaged, were not made by this codec for these tensors, or decode to NaN or
            infinity.
        """
        parameters = self._decode_parameters(self._initial_state if state is None else state)
        encoded, extras = self._many_to_one.unpack(payload)
        with self._precision():
            summands, finite = self._jit_before_sum(encoded, parameters, is_checked=isinstance(payload, Payload))
        self._check_received(finite)
        return Contribution(
            [np.asarray(array) for array in jax.tree.leaves(summands)], [array for extra in extras for array in extra]
        )

    def gather(self, state: Any = None) -> Gather:
        """An empty sum of contributions, for one round with this state; None for the initial one."""
        held = self._initial_state if state is None else state
        return Gather(
            lambda blob: self.read_contribution(blob, held), lambda summary: self._finish(summary, held), self._merges
        )

    def _finish(self, summary: Summary, state: Any) -> tuple[Any, Any]:
        """The decoded sum and the next state."""
        what = f"the sum of {summary.count} encodings"
        # Decoding computes with JAX's integers, which are of 32 bits unless a tensor needs more.
        sums = [
            fitted(total, np.dtype(np.int32), what) if total.dtype == np.int64 and not self._is_wide else total
            for total in summary.sums
        ]
        parameters = self._decode_parameters(state)
        with self._precision():
            tree = jax.tree.unflatten(self._summand_structure, sums)
            decoded = self._jit_after_sum(tree, parameters, np.int32(summary.count))
            leaves = [
                leaf
                if spec.is_float
                else jnp.asarray(fitted(np.asarray(leaf), spec.dtype, f"{what} of {spec.name or 'the array'}"))
                for leaf, spec in zip(decoded, self.specs, strict=True)
            ]
        return jax.tree.unflatten(self.structure, leaves), self._next_state(state, summary.reports)

    # The compiled halves.

    def _encode_leaves(self, keys: Any, leaves: list[Any], parameters: Any) -> tuple[Any, Any, Array]:
        arrays, reports = [], []
        for codec, spec, key, leaf, own in zip(self.codecs, self.specs, keys, leaves, parameters, strict=True):
            encoded, reported = _recursion.encode(codec, key, leaf, own, spec)
            arrays.append(list(_recursion.leaves(codec, encoded)))
            reports.append(reported)
        return arrays, reports, _are_finite(leaves)

    def _decode_leaves(self, arrays: Any, parameters: Any, *, is_checked: bool) -> tuple[list[Any], Array]:
        leaves = [
            _recursion.decode(codec, _recursion.unleaves(codec, iter(own)), parameters[i], self._codec_specs[i])
            for i, (codec, own) in enumerate(zip(self.codecs, arrays, strict=True))
        ]
        return leaves, _received_finite(leaves, is_checked)

    def _before_sum(self, arrays: Any, parameters: Any, *, is_checked: bool) -> tuple[list[Any], Array]:
        summands = [
            _recursion.decode_before_sum(
                codec, _recursion.unleaves(codec, iter(own)), parameters[i], self._codec_specs[i]
            )
            for i, (codec, own) in enumerate(zip(self.codecs, arrays, strict=True))
        ]
        return summands, _received_finite(summands, is_checked)

    def _after_sum(self, summed: Any, parameters: Any, num_summands: Any) -> list[Any]:
        decoded = [
            _recursion.decode_after_sum(codec, own, parameters[i], self._codec_specs[i], num_summands)
            for i, (codec, own) in enumerate(zip(self.codecs, summed, strict=True))
        ]
        return [x.astype(spec.dtype) if spec.is_float else x for x, spec in zip(decoded, self.specs, strict=True)]

    # Details.

    def _build_state(self) -> None:
        built = [_recursion.initial_state(codec, spec) for codec, spec in zip(self.codecs, self.specs, strict=True)]
        self._initial_state = [state for state, _ in built]
        self._codec_specs = [codec_specs for _, codec_specs in built]
        merges = [_recursion.map_stages(codec, lambda stage: dict(stage.merges)) for codec in self.codecs]
        self._merges = jax.tree.leaves(merges)

    def _build_layouts(self) -> None:
        keys = [jax.ShapeDtypeStruct((2,), jnp.uint32) for _ in self.specs]
        leaves = [spec.struct for spec in self.specs]
        encode_parameters = self.encode_parameters(self._initial_state)
        decode_parameters = self._decode_parameters(self._initial_state)
        arrays, reports, _ = jax.eval_shape(self._encode_leaves, keys, leaves, encode_parameters)
        before_sum = functools.partial(self._before_sum, is_checked=True)
        summands, _ = jax.eval_shape(before_sum, arrays, decode_parameters)
        self._parameter_structures: list[PyTreeDef] = [jax.tree.structure(own) for own in decode_parameters]
        self._report_structure: PyTreeDef = jax.tree.structure(reports)
        self._summand_structure: PyTreeDef = jax.tree.structure(summands)
        self.num_summand_arrays = len(jax.tree.leaves(summands))
        self.num_report_arrays = len(self._merges)
        is_alike = not jax.tree.leaves((decode_parameters, reports))
        sections = [
            list(_recursion.sections(codec, own)) for codec, own in zip(self.codecs, self._codec_specs, strict=True)
        ]

        def layout(extras: Sequence[Any], *, is_contribution: bool) -> Layout:
            description = _description.write(
                self.codecs, self.specs, self.structure, is_contribution=is_contribution and not is_alike
            )
            names = [spec.name for spec in self.specs]
            specs = [_extra_specs(name, tree) for name, tree in zip(names, extras, strict=True)]
            return Layout(names, sections, specs, description)

        self._one_to_many = layout(decode_parameters, is_contribution=False)
        self._many_to_one = layout(reports, is_contribution=True)

    def _encode(self, tree: Any, key: Key | None, parameters: Any) -> tuple[Any, Any]:
        if key is None:
            if self.is_stochastic:
                raise ArgumentError("the codec rounds at random, so encoding needs a key or seed, got None")
            key = np.zeros(2, np.uint32)
        elif getattr(key, "dtype", None) != np.uint32 or key.shape != (2,):
            raise ArgumentTypeError(f"key must be uint32[2], as codecs.random.key(seed) makes it, got {key!r:.60}")
        keys = list(random.derive_each(key, len(self.specs))) if self.is_stochastic else [key] * len(self.specs)
        with self._precision():
            arrays, reports, finite = self._jit_encode(keys, self._checked_leaves(tree), parameters)
        for spec in _failing(self.specs, finite):
            raise NonFiniteError(
                f"{spec.name or 'the array'} ({spec}) holds NaN or infinity, which is not sent; "
                "find where it comes from, or leave this sender out"
            )
        return arrays, reports

    def _checked_leaves(self, tree: Any) -> list[Any]:
        leaves, structure = jax.tree.flatten(tree)
        if structure != self.structure:
            raise ArgumentError(f"the tree must have the structure {self.structure}, got {structure}")
        return [_checked_leaf(leaf, spec) for leaf, spec in zip(leaves, self.specs, strict=True)]

    def _check_received(self, finite: Array) -> None:
        for spec in _failing(self.specs, finite):
            raise DecodeError(f"{spec.name or 'the array'} ({spec}) decodes to NaN or infinity, which no encoder sends")

    def _next_state(self, state: Any, merged: Sequence[Any]) -> Any:
        if not self._is_adaptive:
            return state
        with self._precision():
            reports = jax.tree.unflatten(self._report_structure, [jnp.asarray(report) for report in merged])
            return [
                _recursion.map_stages(codec, _updated, own, own_reports)
                for codec, own, own_reports in zip(self.codecs, state, reports, strict=True)
            ]

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        # Set both ways: what travels must not depend on how a process has configured JAX.
        return jax.enable_x64(self._is_wide)


def _updated(stage: Stage, state: Any, reports: Any) -> Any:
    updated = stage.update_state(state, reports)
    before: PyTreeDef = jax.tree.structure(state)
    after: PyTreeDef = jax.tree.structure(updated)
    if before != after:
        raise ArgumentError(f"stage {stage.name!r} must update its state to a tree like {before}, got {after}")
    return updated


def _checked_leaf(leaf: Any, spec: TensorSpec) -> Any:
    found = spec_of(leaf, spec.name)
    if found != spec:
        raise ArgumentError(f"{spec.name or 'the array'} must be {spec}, got {found}")
    if isinstance(leaf, jax.Array):
        return leaf
    try:
        with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, which is found later
            return np.asarray(leaf, spec.dtype)
    except OverflowError as error:
        raise ArgumentError(
            f"{spec.name or 'the number'} is read as {spec}, which {leaf} does not fit; use np.int64({leaf})"
        ) from error


def _are_finite(trees: Sequence[Any]) -> Bool[Array, " trees"]:
    """For each tree of arrays whether its floats are neither NaN nor infinite."""
    checks = [
        [jnp.isfinite(x).all() for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
        for tree in trees
    ]
    if not checks:
        return jnp.ones(0, jnp.bool_)
    return jnp.stack([functools.reduce(jnp.logical_and, own, jnp.bool_(True)) for own in checks])


def _received_finite(trees: Sequence[Any], is_checked: bool) -> Bool[Array, " trees"]:
    """Like `_are_finite`, of what was decoded.

    What is read in the process that made it was checked when it was made: another check is another pass over the model.
    """
    return jnp.ones(len(trees), jnp.bool_) if is_checked else _are_finite(trees)


def _failing(specs: Sequence[TensorSpec], passed: Any) -> list[TensorSpec]:
    return [spec for spec, is_passed in zip(specs, np.asarray(passed), strict=True) if not is_passed]


def _extra_specs(tensor: str, tree: Any) -> list[TensorSpec]:
    """Specs of the parameters or reports that go with a tensor, in the order in which they travel."""
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [spec_of(array, f"{tensor}: {path_name(path)}") for path, array in paths]


def _leaves_of_each(trees: Sequence[Any]) -> list[list[Any]]:
    return [jax.tree.leaves(tree) for tree in trees]
