"""A codec bound to the tensors it encodes: compiled, and ready to make and read payloads."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import PyTreeDef

from laconic.codecs import _description, _recursion, _wire, random
from laconic.codecs._checks import check_encoded, check_received, checked_leaves
from laconic.codecs._codec import Codec
from laconic.codecs._compiled import Compiled, Encoded, with_coarseness
from laconic.codecs._gather import Contribution, Gather, Summary
from laconic.codecs._layout import Layout, Payload, SectionSize, Unpacked
from laconic.codecs._merging import fitted
from laconic.codecs._search import find_coarseness
from laconic.codecs._specs import TensorSpec, specs_beside
from laconic.codecs._stack import Devices, Fetched
from laconic.codecs._states import States
from laconic.codecs._units import units_of
from laconic.codecs.random import Key
from laconic.errors import ArgumentError, ArgumentTypeError


class BoundCodec:
    """Encodes and decodes trees of one structure; made by `bind`.

    One to many (a server's broadcast): `encode` once, `decode` at each receiver. Many to one (clients' updates): each
    sender makes an `encode_contribution` with the `encode_parameters` it was told; the receiver's `gather` adds them
    up, in the encoded domain as far as the stages commute with the sum. State stays with the one of the many. Senders
    whose codec `needs_client_state` each keep a memory, and `contribute`.

    Attributes:
      codecs: each tensor's codec.
      specs: each tensor's spec, in the tree's order.
      structure: how the tensors make a tree.
      units: what is coded as one: a tensor, or several that are concatenated. States, parameters and memories are
        lists with a tree of arrays for each.
      num_summand_arrays: arrays in a contribution that are added up.
      num_report_arrays: arrays in a contribution that adaptive stages report.
      is_stochastic: whether encoding needs a key.
      needs_client_state: whether each sender must keep a memory.
    """

    def __init__(self, codecs: Sequence[Codec], specs: Sequence[TensorSpec], structure: PyTreeDef):
        self.codecs = tuple(codecs)
        self.specs = tuple(specs)
        self.structure = structure
        self.units = units_of(self.codecs, self.specs)
        self.is_stochastic = any(unit.codec.is_stochastic for unit in self.units)
        self._shares_randomness = any(unit.codec.shares_randomness for unit in self.units)
        self._is_searched = any(unit.codec.is_searched for unit in self.units)
        # Unsigned 32-bit integers too, since a sum of them outgrows JAX's signed ones.
        self._is_wide = any(spec.dtype.itemsize == 8 or spec.dtype == np.uint32 for spec in specs)
        self._states = States(self.units, is_wide=self._is_wide)
        self.needs_client_state = self._states.needs_client_state
        with self._states.precision():
            self._compiled = Compiled(self.units, self.specs, self._states.codec_specs)
            self._build_layouts()

    def static_size(self, *, described: bool = False) -> int | None:
        """Bytes of every one-to-many payload, or None where they depend on the values."""
        return self._one_to_many.static_size(described=described)

    # State, parameters and reports.

    def initial_state(self) -> list[Any]:
        """The receiver's state before the first round: trees without leaves if no stage adapts."""
        return self._states.initial

    def initial_memory(self) -> list[Any]:
        """What a sender remembers before its first contribution: trees without leaves if no stage remembers."""
        return self._states.initial_memory

    def initial_sender_state(self) -> list[Any]:
        """The state of the sender of broadcasts before the first one: its stages' states and its memory."""
        return self._states.initial_of_sender

    def encode_parameters(self, state: Any) -> list[Any]:
        """What encoders must be told in this round."""
        return self._states.encode_parameters(state)

    # One to many.

    def encode(
        self, tree: Any, *, key: Key | None = None, state: Any = None, described: bool = False
    ) -> tuple[Payload, Any]:
        """A payload that any number of receivers can `decode`, and the sender's next state.

        Args:
          tree: of the structure, shapes and dtypes that the codec is bound to.
          key: `uint32[2]`; needed if a stage draws.
          state: of the sender; None for the initial one.
          described: whether the payload says how to decode it. Where both ends have bound the same codec it need not.

        Raises:
          ArgumentError: if the tree does not fit, a key is needed, values leave a stage's range, or decoding would
            depend on what only one receiver remembers.
          ArgumentTypeError: if the key is not one, or a leaf is not an array.
          NonFiniteError: if a tensor holds NaN or infinity.
        """
        for unit in self.units:
            if unit.codec.has_receiver_memory:
                raise ArgumentError(
                    f"the codec of {unit.spec.name or 'the array'} ({unit.codec}) has a receiver that remembers, so it "
                    "serves contributions to one receiver only; use encode_contribution or contribute, and gather"
                )
        state = self.initial_sender_state() if state is None else state
        memory = self._states.memory(state)
        extras = _leaves_of_each(self._states.decode_parameters(state))
        parameters = self.encode_parameters(state)
        encoded, key = self._encode(tree, key, parameters, memory, self._one_to_many, extras, described=described)
        payload = self._pack(self._one_to_many, encoded, extras, key, described=described)
        reports = jax.tree.leaves(encoded.reports)
        merged = [merge([report]) for merge, report in zip(self._states.merges, reports, strict=True)]
        next_state = self._states.next(state, merged, payload.unit_sizes, 1)
        return payload, self._states.with_memory(next_state, encoded.memory)

    def decode(self, payload: Any) -> Any:
        """The tree of JAX arrays from a one-to-many payload: from its bytes or, in the process that made it, itself.

        Raises:
          DecodeError: if the bytes are damaged, were not made by this codec for these tensors, or decode to NaN or
            infinity.
        """
        unpacked = self._one_to_many.unpack(payload)
        return jax.tree.unflatten(self.structure, self._decode(unpacked, isinstance(payload, Payload)))

    def decode_sections(self, sections: _wire.Reader) -> list[Any]:
        """Like `decode`, from the sections alone, to a list of the tensors."""
        return self._decode(self._one_to_many.read(sections), False)

    def section_sizes(self, sections: _wire.Reader, *, is_contribution: bool) -> list[SectionSize]:
        """What each section of a payload takes, without decoding it."""
        return (self._many_to_one if is_contribution else self._one_to_many).section_sizes(sections)

    def _decode(self, unpacked: Unpacked, is_checked: bool) -> list[Any]:
        with self._states.precision():
            parameters = [
                jax.tree.unflatten(structure, extra)
                for structure, extra in zip(self._parameter_structures, unpacked.extras, strict=True)
            ]
            leaves, finite = self._compiled.decode(
                self._keys(unpacked.key), unpacked.arrays, parameters, is_checked=is_checked
            )
        check_received(self.specs, finite)
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
        if self.needs_client_state:
            raise ArgumentError(
                "the codec needs each sender to keep a memory; use contribute(tree, memory), with initial_memory() at "
                "first, and keep what it gives back for the sender's next contribution"
            )
        memory = self._states.initial_memory
        return self.contribute(tree, memory, key=key, parameters=parameters, described=described)[0]

    def contribute(
        self, tree: Any, memory: Any, *, key: Key | None = None, parameters: Any = None, described: bool = False
    ) -> tuple[Payload, Any]:
        """Like `encode_contribution`, by a sender with a memory; also gives the memory for its next contribution."""
        parameters = self.encode_parameters(self._states.initial) if parameters is None else parameters
        nothing: list[Any] = [[] for _ in self.units]
        encoded, key = self._encode(tree, key, parameters, memory, self._many_to_one, nothing, described=described)
        reports = _leaves_of_each(encoded.reports)
        return self._pack(self._many_to_one, encoded, reports, key, described=described), encoded.memory

    def read_contribution(self, payload: Any, state: Any = None) -> Contribution:
        """Decodes a contribution as far as that must happen before the sum. Safe to call from several threads.

        Args:
          payload: its bytes or, in the process that made it, the payload itself.
          state: the receiver's; None for the initial one.

        Raises:
          DecodeError: if the bytes are damaged, were not made by this codec for these tensors, or decode to NaN or
            infinity.
        """
        parameters = self._states.decode_parameters(self._states.initial if state is None else state)
        unpacked = self._many_to_one.unpack(payload)
        with self._states.precision():
            summands, finite = self._compiled.before_sum(
                self._keys(unpacked.key), unpacked.arrays, parameters, is_checked=isinstance(payload, Payload)
            )
        check_received([unit.spec for unit in self.units], finite)
        return Contribution.of(summands, unpacked)

    def contribute_here(
        self, tree: Any, memory: Any, *, key: Key | None, parameters: Any, state: Any
    ) -> tuple[Payload, Contribution, Any]:
        """`contribute`, and what `read_contribution` gives of it, where both ends are here: one compiled function."""
        if self._is_searching:
            payload, memory = self.contribute(tree, memory, key=key, parameters=parameters)
            return payload, self.read_contribution(payload, state), memory
        leaves, key = self._checked(tree, key)
        told, decoding = self._without_search(parameters), self._states.decode_parameters(state)
        with self._states.precision():
            encoded, summands = self._compiled.contribute(self._keys(key), leaves, told, decoding, memory)
        check_encoded(self.specs, self.units, encoded)
        payload = self._pack(self._many_to_one, encoded, _leaves_of_each(encoded.reports), key, described=False)
        return payload, Contribution.of(summands, payload.unpacked), encoded.memory

    @property
    def _is_searching(self) -> bool:
        """Whether contributions are encoded several times, until they take as many bytes as they should."""
        return self._is_searched and self._many_to_one.static_size(described=False) is None

    @property
    def can_stack(self) -> bool:
        """Whether `contribute_stack` works: not if senders remember, or look for a rate by the bytes that they get."""
        return bool(self.units) and not (self.needs_client_state or self._is_searching)

    def contribute_stack(
        self, tree: Any, *, keys: Any, parameters: Any, state: Any, devices: Devices
    ) -> Callable[[int], tuple[Payload, Contribution]]:
        """Many senders' contributions: encoded together on devices, at once; packed one by one when asked for.

        Args:
          tree: of the structure and dtypes that the codec is bound to; each array has an axis of senders before its
            own, and is split over the devices.
          keys: uint32[senders, 2], each sender's and round's own; None where no stage draws.
          parameters: what `encode_parameters` gave.
          state: the receiver's.
          devices: where to encode.

        Returns:
          A function from a sender's position to what `contribute` and then `read_contribution` give, errors included.
          It may be called from several threads.

        Raises:
          ArgumentError: if the codec cannot, see `can_stack`.
        """
        if not self.can_stack:
            raise ArgumentError(
                "the codec's senders remember, or look for a rate by their bytes, so each must contribute by itself; "
                "use contribute"
            )
        leaves, structure = jax.tree.flatten(tree)
        if structure != self.structure:
            raise ArgumentError(f"the tree must have the structure {self.structure}, got {structure}")
        parameters = self._without_search(parameters)
        unit_keys = np.stack([self._keys(key) for key in _each_key(keys, leaves)])
        with self._states.precision():
            shared = devices.share((parameters, self._states.decode_parameters(state), self._states.initial_memory))
            stacked = self._compiled.contribute_stack(devices, shared, (devices.split(unit_keys), leaves))
        fetched = Fetched(stacked)

        def contribution(position: int) -> tuple[Payload, Contribution]:
            encoded, summands = fetched.row(position)
            check_encoded(self.specs, self.units, encoded)
            key = np.zeros(2, np.uint32) if keys is None else keys[position]
            payload = self._pack(self._many_to_one, encoded, _leaves_of_each(encoded.reports), key, described=False)
            return payload, Contribution.of(summands, payload.unpacked)

        return contribution

    def gather(self, state: Any = None) -> Gather:
        """An empty sum of contributions, for one round with this state; None for the initial one."""
        held = self._states.initial if state is None else state
        return Gather(
            lambda blob: self.read_contribution(blob, held),
            lambda summary: self._finish(summary, held),
            self._states.merges,
        )

    def _finish(self, summary: Summary, state: Any) -> tuple[Any, Any]:
        """The decoded sum and the next state."""
        what = f"the sum of {summary.count} encodings"
        # Decoding computes with JAX's integers, which are of 32 bits unless a tensor needs more.
        sums = [
            fitted(total, np.dtype(np.int32), what) if total.dtype == np.int64 and not self._is_wide else total
            for total in summary.sums
        ]
        parameters = self._states.decode_parameters(state)
        with self._states.precision():
            tree = jax.tree.unflatten(self._summand_structure, sums)
            decoded, state = self._compiled.after_sum(tree, parameters, np.int32(summary.count), state)
            leaves = [
                leaf
                if spec.is_float
                else jnp.asarray(fitted(np.asarray(leaf), spec.dtype, f"{what} of {spec.name or 'the array'}"))
                for leaf, spec in zip(decoded, self.specs, strict=True)
            ]
        next_state = self._states.next(state, summary.reports, summary.unit_sizes, summary.count)
        return jax.tree.unflatten(self.structure, leaves), next_state

    # Details.

    def _build_layouts(self) -> None:
        keys = [jax.ShapeDtypeStruct((2,), jnp.uint32) for _ in self.units]
        leaves = [spec.struct for spec in self.specs]
        told = self._states.encode_parameters(self._states.initial)
        encode_parameters = with_coarseness(self.units, told, [1.0 for _ in self.units])
        decode_parameters = self._states.decode_parameters(self._states.initial)
        encoded = jax.eval_shape(
            self._compiled.trace_encode, keys, leaves, encode_parameters, self._states.initial_memory
        )
        before_sum = functools.partial(self._compiled.trace_before_sum, is_checked=True)
        summands, _ = jax.eval_shape(before_sum, keys, encoded.arrays, decode_parameters)
        self._parameter_structures: list[PyTreeDef] = [jax.tree.structure(own) for own in decode_parameters]
        self._summand_structure: PyTreeDef = jax.tree.structure(summands)
        self.num_summand_arrays = len(jax.tree.leaves(summands))
        self.num_report_arrays = len(self._states.merges)
        is_alike = not jax.tree.leaves((decode_parameters, encoded.reports))
        sections = [
            list(_recursion.sections(unit.codec, own))
            for unit, own in zip(self.units, self._states.codec_specs, strict=True)
        ]
        has_contexts = bool(jax.tree.leaves(encoded.contexts))

        def layout(extras: Sequence[Any], *, is_contribution: bool) -> Layout:
            description = _description.write(
                self.codecs, self.specs, self.structure, is_contribution=is_contribution and not is_alike
            )
            names = [unit.spec.name for unit in self.units]
            specs = [specs_beside(name, tree) for name, tree in zip(names, extras, strict=True)]
            contexts = self._contexts if has_contexts else None
            return Layout(names, sections, specs, description, has_key=self._shares_randomness, contexts=contexts)

        self._one_to_many = layout(decode_parameters, is_contribution=False)
        self._many_to_one = layout(encoded.reports, is_contribution=True)

    def _encode(
        self, tree: Any, key: Key | None, parameters: Any, memory: Any, layout: Layout, extras: Any, *, described: bool
    ) -> tuple[Encoded, Key]:
        """The encoding, and the key that was drawn from."""
        leaves, key = self._checked(tree, key)
        if self._is_searched and layout.static_size(described=False) is None:
            pack = functools.partial(self._packed_trial, layout, extras, described)
            parameters = self._found_coarseness(leaves, np.asarray(key), parameters, memory, layout, pack)
        else:
            parameters = self._without_search(parameters)
        return self._encode_leaves(leaves, key, parameters, memory, layout), key

    def _checked(self, tree: Any, key: Key | None) -> tuple[list[Any], Key]:
        """The tree's arrays, and the key to draw from."""
        if key is None:
            if self.is_stochastic:
                raise ArgumentError("the codec rounds at random, so encoding needs a key or seed, got None")
            key = np.zeros(2, np.uint32)
        elif getattr(key, "dtype", None) != np.uint32 or key.shape != (2,):
            raise ArgumentTypeError(f"key must be uint32[2], as codecs.random.key(seed) makes it, got {key!r:.60}")
        return checked_leaves(self.structure, self.specs, tree), key

    def _without_search(self, parameters: Any) -> Any:
        """Parameters for stages that might look for their rate, where no bytes hang on it."""
        return with_coarseness(self.units, parameters, [1.0 for _ in self.units]) if self._is_searched else parameters

    def _encode_leaves(self, leaves: list[Any], key: Key, parameters: Any, memory: Any, layout: Layout) -> Encoded:
        is_contribution = layout is self._many_to_one
        encode = self._compiled.encode_contribution if is_contribution else self._compiled.encode
        with self._states.precision():
            encoded = encode(self._keys(key), leaves, parameters, memory)
        check_encoded(self.specs, self.units, encoded)
        return encoded

    def _found_coarseness(
        self,
        leaves: list[Any],
        key: Key,
        parameters: Any,
        memory: Any,
        layout: Layout,
        pack: Callable[[Encoded, Key], Payload],
    ) -> list[Any]:
        """Parameters at which stages that promise a rate keep it, by real bytes."""
        searched = (stage for unit in self.units for stage in unit.codec.stages if stage.is_searched)
        trial = key if all(stage.may_search_own_draw for stage in searched) else random.derive(key, "coarseness")
        targets = [
            None if rate is None else rate * unit.spec.size / 8
            for rate, unit in ((unit.codec.target_bits_per_parameter, unit) for unit in self.units)
        ]
        num_elements = max(sum(spec.size for spec in self.specs), 1)

        def measure(coarseness: list[float]) -> Sequence[float]:
            told = with_coarseness(self.units, parameters, coarseness)
            payload = pack(self._encode_leaves(leaves, trial, told, memory, layout), trial)
            # What belongs to no tensor is shared by all.
            share = payload.framing / num_elements
            return [size + share * unit.spec.size for size, unit in zip(payload.unit_sizes, self.units, strict=True)]

        return with_coarseness(self.units, parameters, find_coarseness(measure, targets))

    def _packed_trial(self, layout: Layout, extras: Any, described: bool, encoded: Encoded, key: Key) -> Payload:
        own = extras if layout is self._one_to_many else _leaves_of_each(encoded.reports)
        return self._pack(layout, encoded, own, key, described=described)

    def _pack(self, layout: Layout, encoded: Encoded, extras: Any, key: Key, *, described: bool) -> Payload:
        return layout.pack(encoded.arrays, encoded.contexts, extras, key, described=described)

    def _keys(self, key: Key | None) -> list[Any]:
        """Each unit's key."""
        if key is None or not self.is_stochastic:
            return [np.zeros(2, np.uint32)] * len(self.units)
        return list(random.derive_each(key, len(self.units)))

    def _contexts(self, key: Key) -> Any:
        with self._states.precision():
            return self._compiled.contexts(self._keys(key))


def _each_key(keys: Any, leaves: Sequence[Any]) -> Sequence[Any]:
    return [None] * leaves[0].shape[0] if keys is None else keys


def _leaves_of_each(trees: Sequence[Any]) -> list[list[Any]]:
    return [jax.tree.leaves(tree) for tree in trees]
