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
from laconic.codecs._coders import Coder
from laconic.codecs._merging import summed_dtype
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Stage, checked_arrays
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


def encode(codec: Codec, key: Key, x: Array, parameters: Tree, spec: TensorSpec) -> tuple[Tree, Tree]:
    """Encodes down to what the coders take. Pure and jittable.

    Returns:
      The encoded tree and the reports: `{"self": {name: array}, "below": {output: the child's}}`.
    """
    stage = codec.stage
    encoded = _outputs(stage, stage.encode(key, x, parameters["self"]))
    reports = checked_arrays(stage, "report", stage.report(x, encoded, parameters["self"]))
    _check_names(stage, "merges", stage.merges, "report", reports)
    result: dict[str, Tree] = {}
    below: dict[str, Tree] = {}
    for position, (name, child) in enumerate(codec.children):
        if isinstance(child, Codec):
            inner_key = random.derive(key, position) if child.is_stochastic else key
            inner_spec = _output_spec(spec, name, encoded[name])
            result[name], below[name] = encode(child, inner_key, encoded[name], parameters["below"][name], inner_spec)
        else:
            result[name] = encoded[name]
    return result, {"self": reports, "below": below}


def decode(codec: Codec, encoded: Tree, parameters: Tree, specs: CodecSpecs) -> Array:
    """Decodes the encoding of one array. Pure and jittable."""
    arrays = {
        name: decode(child, encoded[name], parameters["below"][name], specs.below[name])
        if isinstance(child, Codec)
        else encoded[name]
        for name, child in codec.children
    }
    return _decoded(codec.stage, arrays, parameters, 1, specs.input)


def decode_before_sum(codec: Codec, encoded: Tree, parameters: Tree, specs: CodecSpecs) -> Tree:
    """Undoes everything below the first stage, on each path from the root, that does not commute, and that stage."""
    if not codec.stage.commutes_with_sum:
        return decode(codec, encoded, parameters, specs)
    return {
        name: decode_before_sum(child, encoded[name], parameters["below"][name], specs.below[name])
        if isinstance(child, Codec)
        else encoded[name]
        for name, child in codec.children
    }


def decode_after_sum(
    codec: Codec, summed: Tree, parameters: Tree, specs: CodecSpecs, num_summands: int | Array
) -> Array:
    """Undoes what `decode_before_sum` left, on the sum of what it gave for `num_summands` clients.

    Everything stays in the dtypes that sums are kept in, so that a sum that the input's own dtype cannot hold shows.
    """
    if not codec.stage.commutes_with_sum:
        return summed
    arrays = {
        name: decode_after_sum(child, summed[name], parameters["below"][name], specs.below[name], num_summands)
        if isinstance(child, Codec)
        else summed[name]
        for name, child in codec.children
    }
    # Canonical: without 64-bit types in JAX, int32.
    wide = dataclasses.replace(specs.input, dtype=jax.dtypes.canonicalize_dtype(summed_dtype(specs.input.dtype)))
    return _decoded(codec.stage, arrays, parameters, num_summands, wide)


def initial_state(codec: Codec, spec: TensorSpec) -> tuple[Tree, CodecSpecs]:
    """Each stage's first state, and the specs of what each stage takes.

    Raises:
      ArgumentError: if a stage's outputs are not those that it declares.
      ArgumentTypeError: if a stage cannot take what reaches it.
    """
    stage = codec.stage
    stage.check(spec)
    state = stage.initial_state(spec)
    parameters = checked_arrays(stage, "parameter", stage.parameters(state)[0])
    key = jax.ShapeDtypeStruct((2,), np.uint32)
    outputs = jax.eval_shape(lambda key, x: _outputs(stage, stage.encode(key, x, parameters)), key, spec.struct)
    specs = {name: _output_spec(spec, name, output) for name, output in outputs.items()}
    states, below = {}, {}
    for name, child in codec.children:
        if isinstance(child, Codec):
            states[name], below[name] = initial_state(child, specs[name])
        else:
            child.check(specs[name])
    return {"self": state, "below": states}, CodecSpecs(spec, specs, below)


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


def _outputs(stage: Stage, encoded: Any) -> dict[str, Array]:
    outputs = checked_arrays(stage, "output", encoded)
    _check_names(stage, "outputs", stage.outputs, "encode", outputs)
    return outputs


def _decoded(
    stage: Stage, arrays: Mapping[str, Array], parameters: Tree, num_summands: int | Array, spec: TensorSpec
) -> Array:
    x = jnp.asarray(stage.decode(arrays, parameters["self"], num_summands=num_summands, spec=spec))
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
