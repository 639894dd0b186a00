"""What is done throughout a codec's tree: encoding, decoding around a sum, and laying out what travels."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from laconic.codecs import random
from laconic.codecs._codec import Codec
from laconic.codecs._merging import summed_dtype
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Stage, checked_arrays
from laconic.codecs.coders._coder import Coder
from laconic.codecs.random import Key
from laconic.errors import ArgumentError

Tree = Any
"""What a codec's recursion gives: per stage output an array, or the same again for the codec below it."""


@dataclasses.dataclass(frozen=True)
class CodecSpecs:
    """The specs of a codec's input, of its stage's outputs and, for each output with a codec below it, that codec's."""

    input: TensorSpec
    outputs: Mapping[str, TensorSpec]
    below: Mapping[str, "CodecSpecs"]


@dataclasses.dataclass(frozen=True)
class Section:
    """One coder's place in a payload.

    Attributes:
      coder: what makes the bytes.
      spec: of the array that it codes.
      is_side_information: whether the array is not a compressible output of its stage, such as a range.
    """

    coder: Coder
    spec: TensorSpec
    is_side_information: bool


@dataclasses.dataclass(frozen=True)
class Encoding:
    """What encoding one array gives.

    Attributes:
      tree: what the coders take.
      reports: `{"self": {name: array}, "below": {output: the child's}}`.
      memory: the encoding side's next memory, a tree of the same form.
      contexts: for each of the tree's arrays, in the order of `leaves`, its entries' contexts or None.
      in_range: whether each stage could keep its promises.
    """

    tree: Tree
    reports: Tree
    memory: Tree
    contexts: list[Array | None]
    in_range: list[Array | bool]


def encode(codec: Codec, key: Key, x: Array, parameters: Tree, memory: Tree, specs: CodecSpecs) -> Encoding:
    """Encodes down to what the coders take. Pure and jittable."""
    stage, own = codec.stage, parameters["self"]
    regenerated = _regenerated(stage, key, specs.input)
    if stage.needs_client_state:
        encoded = _outputs(stage, stage.encode_remembering(key, x, own, memory["self"]))
    else:
        encoded = _outputs(stage, stage.encode(key, x, own))
    reports = checked_arrays(stage, "report", stage.report(x, encoded, own))
    _check_names(stage, "merges", stage.merges, "report", reports)
    contexts = stage.contexts(regenerated) if stage.num_contexts > 1 else {}
    tree: dict[str, Tree] = {}
    below: dict[str, Encoding] = {}
    leaf_contexts: list[Array | None] = []
    for position, (name, child) in enumerate(codec.children):
        if isinstance(child, Codec):
            below[name] = encode(
                child,
                _key_below(key, position, child),
                encoded[name],
                parameters["below"][name],
                memory["below"][name],
                specs.below[name],
            )
            tree[name] = below[name].tree
            leaf_contexts += below[name].contexts
        else:
            tree[name] = encoded[name]
            leaf_contexts.append(contexts.get(name) if child.uses_contexts else None)
    remembered = memory["self"]
    if stage.needs_client_state:
        received = _decoded_below(codec, key, tree, parameters, specs)
        remembered = stage.update_memory(remembered, x, received | regenerated)
    return Encoding(
        tree,
        {"self": reports, "below": {name: child.reports for name, child in below.items()}},
        {"self": remembered, "below": {name: child.memory for name, child in below.items()}},
        leaf_contexts,
        [stage.is_in_range(x, own), *(each for child in below.values() for each in child.in_range)],
    )


def contexts(codec: Codec, key: Key, specs: CodecSpecs) -> list[Array | None]:
    """What `Encoding.contexts` is, from the key alone. Pure and jittable."""
    stage = codec.stage
    own = stage.contexts(_regenerated(stage, key, specs.input)) if stage.num_contexts > 1 else {}
    result: list[Array | None] = []
    for position, (name, child) in enumerate(codec.children):
        if isinstance(child, Codec):
            result += contexts(child, _key_below(key, position, child), specs.below[name])
        else:
            result.append(own.get(name) if child.uses_contexts else None)
    return result


def decode(codec: Codec, key: Key, encoded: Tree, parameters: Tree, specs: CodecSpecs) -> Array:
    """Decodes the encoding of one array. Pure and jittable."""
    arrays = _decoded_below(codec, key, encoded, parameters, specs)
    return _decoded(codec.stage, arrays | _regenerated(codec.stage, key, specs.input), parameters, 1, specs.input)


def decode_before_sum(codec: Codec, key: Key, encoded: Tree, parameters: Tree, specs: CodecSpecs) -> Tree:
    """Undoes everything below the first stage, on each path from the root, that does not commute, and that stage.

    What a commuting stage regenerates is to be summed like what it encoded, so it is in the tree too.
    """
    if not codec.stage.commutes_with_sum:
        return decode(codec, key, encoded, parameters, specs)
    summands = {
        name: decode_before_sum(
            child, _key_below(key, position, child), encoded[name], parameters["below"][name], specs.below[name]
        )
        if isinstance(child, Codec)
        else encoded[name]
        for position, (name, child) in enumerate(codec.children)
    }
    return summands | _regenerated(codec.stage, key, specs.input)


def decode_after_sum(
    codec: Codec, summed: Tree, parameters: Tree, specs: CodecSpecs, num_summands: int | Array, state: Tree
) -> tuple[Array, Tree]:
    """Undoes what `decode_before_sum` left, on the sum of what it gave for `num_summands` clients.

    Everything stays in the dtypes that sums are kept in, so that a sum that the input's own dtype cannot hold shows.

    Returns:
      The decoded sum, and the stages' states, which a receiver with a memory changes.
    """
    if not codec.stage.commutes_with_sum:
        return summed, state
    arrays, below = dict(summed), dict(state["below"])
    for name, child in codec.children:
        if isinstance(child, Codec):
            arrays[name], below[name] = decode_after_sum(
                child, summed[name], parameters["below"][name], specs.below[name], num_summands, state["below"][name]
            )
    # Canonical: without 64-bit types in JAX, int32.
    wide = dataclasses.replace(specs.input, dtype=jax.dtypes.canonicalize_dtype(summed_dtype(specs.input.dtype)))
    stage, own = codec.stage, state["self"]
    if stage.has_receiver_memory:
        x, own = stage.decode_sum(own, arrays, parameters["self"], num_summands=num_summands, spec=wide)
        return _checked_result(stage, x, wide), {"self": own, "below": below}
    return _decoded(stage, arrays, parameters, num_summands, wide), {"self": own, "below": below}


def initial_state(codec: Codec, spec: TensorSpec) -> tuple[Tree, CodecSpecs]:
    """Each stage's first state, and the specs of what each stage takes.

    Raises:
      ArgumentError: if a stage's outputs are not those that it declares.
      ArgumentTypeError: if a stage cannot take what reaches it.
    """
    stage = codec.stage
    stage.check(spec)
    state = stage.initial_state(spec)
    parameters = _told(stage, state)
    key = jax.ShapeDtypeStruct((2,), np.uint32)

    def encoded(key: Key, x: Array) -> dict[str, Array]:
        _regenerated(stage, key, spec)
        if stage.needs_client_state:
            return _outputs(stage, stage.encode_remembering(key, x, parameters, stage.initial_memory(spec)))
        return _outputs(stage, stage.encode(key, x, parameters))

    outputs = jax.eval_shape(encoded, key, spec.struct)
    specs = {name: _output_spec(spec, name, output) for name, output in outputs.items()}
    states, below = {}, {}
    for name, child in codec.children:
        if isinstance(child, Codec):
            states[name], below[name] = initial_state(child, specs[name])
        else:
            child.check(specs[name])
    return {"self": state, "below": states}, CodecSpecs(spec, specs, below)


def initial_memory(codec: Codec, specs: CodecSpecs) -> Tree:
    """What each stage of the encoding side remembers at first."""
    return {
        "self": codec.stage.initial_memory(specs.input),
        "below": {
            name: initial_memory(child, specs.below[name]) for name, child in codec.children if isinstance(child, Codec)
        },
    }


def _told(stage: Stage, state: Any) -> dict[str, Array]:
    """What the stage's `encode` is told: by the server, and how coarse to be if it looks for its rate."""
    told = checked_arrays(stage, "parameter", stage.parameters(state)[0])
    return told | {"coarseness": jnp.float32(1)} if stage.is_searched else told


def sections(codec: Codec, specs: CodecSpecs) -> Iterator[Section]:
    """The sections of one tensor, in the order in which they travel: depth first, outputs in the stage's order."""
    for name, child in codec.children:
        if isinstance(child, Codec):
            yield from sections(child, specs.below[name])
        else:
            yield Section(child, specs.outputs[name], name not in codec.stage.compressible)


def leaves(codec: Codec, encoded: Tree) -> Iterator[Any]:
    """The arrays of an encoded tree, in the order of `sections`."""
    for name, child in codec.children:
        if isinstance(child, Codec):
            yield from leaves(child, encoded[name])
        else:
            yield encoded[name]


def unleaves(codec: Codec, arrays: Iterator[Any]) -> Tree:
    """The inverse of `leaves`: takes from the iterator what one codec needs."""
    return {
        name: unleaves(child, arrays) if isinstance(child, Codec) else next(arrays) for name, child in codec.children
    }


def map_stages(codec: Codec, function: Callable[..., Any], *trees: Tree) -> Tree:
    """`{"self": function(stage, *selves), "below": ...}` over all stages; the trees have that shape too."""
    return {
        "self": function(codec.stage, *(tree["self"] for tree in trees)),
        "below": {
            name: map_stages(child, function, *(tree["below"][name] for tree in trees))
            for name, child in codec.children
            if isinstance(child, Codec)
        },
    }


def _key_below(key: Key, position: int, child: Codec) -> Key:
    return random.derive(key, position) if child.is_stochastic else key


def _decoded_below(codec: Codec, key: Key, encoded: Tree, parameters: Tree, specs: CodecSpecs) -> dict[str, Array]:
    """The stage's outputs, as decoding what was encoded further gives them."""
    return {
        name: decode(
            child, _key_below(key, position, child), encoded[name], parameters["below"][name], specs.below[name]
        )
        if isinstance(child, Codec)
        else encoded[name]
        for position, (name, child) in enumerate(codec.children)
    }


def _regenerated(stage: Stage, key: Key, spec: TensorSpec) -> dict[str, Array]:
    if not stage.regenerated:
        return {}
    arrays = checked_arrays(stage, "regenerated array", stage.regenerate(key, spec))
    _check_names(stage, "regenerated arrays", stage.regenerated, "regenerate", arrays)
    return arrays


def _outputs(stage: Stage, encoded: Any) -> dict[str, Array]:
    outputs = checked_arrays(stage, "output", encoded)
    _check_names(stage, "outputs", stage.outputs, "encode", outputs)
    return outputs


def _decoded(
    stage: Stage, arrays: Mapping[str, Array], parameters: Tree, num_summands: int | Array, spec: TensorSpec
) -> Array:
    x = stage.decode(arrays, parameters["self"], num_summands=num_summands, spec=spec)
    return _checked_result(stage, x, spec)


def _checked_result(stage: Stage, result: Any, spec: TensorSpec) -> Array:
    x = jnp.asarray(result)
    if x.shape != spec.shape or x.dtype != spec.dtype:
        found = dataclasses.replace(spec, shape=x.shape, dtype=x.dtype)
        raise ArgumentError(f"stage {stage.name!r} must decode {spec.name or 'the array'} to {spec}, got {found}")
    return x


def _output_spec(spec: TensorSpec, name: str, output: Any) -> TensorSpec:
    """The spec of a stage's output, named after the tensor and the output."""
    return TensorSpec(f"{spec.name}/{name}" if spec.name else name, tuple(output.shape), np.dtype(output.dtype))


def _check_names(stage: Stage, what: str, declared: Iterable[str], method: str, returned: Iterable[str]) -> None:
    if set(declared) != set(returned):
        raise ArgumentError(
            f"stage {stage.name!r} declares the {what} {sorted(declared)}, but {method} returned {sorted(returned)}"
        )
