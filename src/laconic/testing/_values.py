"""Checks of what a stage computes: what comes back, how large it is, and on what it depends."""

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from laconic import codecs
from laconic.codecs import TensorSpec, _description
from laconic.testing._report import Failed, NotApplicable
from laconic.testing._subject import Subject, attempt, describe, excess, first_difference, same_bits

_EAGER_SPECS = 2
"""Specs on which encode and decode also run uncompiled, operation by operation, which is slow the first time."""
_ROUNDING = 0.05
"""Share of integer outputs that may differ by one between compiled and eager arithmetic, where a rounding decides."""


def check_round_trip(subject: Subject) -> str:
    """Encoded, packed, unpacked and decoded here, every input comes back in its shape and dtype, and finite."""
    error = 0.0
    for kind, name, x, decoded in _round_trips(subject):
        spec = subject.inputs.specs[name]
        if (decoded.shape, decoded.dtype) != (spec.shape, spec.dtype):
            raise Failed(f"{subject.inputs.label(kind, name)} to come back like that", describe(decoded))
        error = max(error, _relative_error(x, decoded))
    return f"largest error {error:.2g} of the largest value"


def check_lossless(subject: Subject) -> str:
    """A lossless stage gives back every bit."""
    if not subject.stage.is_lossless:
        raise NotApplicable("no claim to test")
    for kind, name, x, decoded in _round_trips(subject):
        if not same_bits(x, decoded):
            raise Failed(
                f"{subject.inputs.label(kind, name)} to come back bit for bit",
                first_difference(x, decoded),
                "return False from is_lossless",
            )
    return "every bit comes back"


def check_sizes(subject: Subject) -> str:
    """The size computed from shapes alone is the length of the bytes, and the arrays account for it."""
    _needs_any_receiver(subject)
    sizes = set()
    what = "encode to give outputs of the same shapes and dtypes each time"
    for _, tree in subject.inputs:
        blob = attempt(what, "", lambda tree: codecs.encode(tree, subject.codec, seed=subject.seed), tree)
        sizes.add(len(blob))
        declared = codecs.payload_size(tree, subject.codec)
        if declared != len(blob):
            raise Failed(f"a payload of {declared} bytes, as codecs.payload_size says", f"{len(blob)} bytes")
        payload, _ = subject.bound.encode(tree, key=subject.key("sizes"))
        for size in payload.tensors:
            declared = sum(_nbytes(struct) for struct in _travelling(subject, size.name))
            if declared != size.payload + size.side_information:
                spec = subject.inputs.specs[size.name]
                got = f"{size.payload + size.side_information} bytes"
                raise Failed(f"the outputs and parameters of {spec} to take {declared} bytes", got)
    return f"{sizes.pop()} bytes for all shapes and dtypes together"


def check_wire(subject: Subject) -> str:
    """The fields survive the wire, and the bytes alone are enough to decode."""
    _needs_any_receiver(subject)
    bound = subject.bound
    written = _description.write(bound.codecs, bound.specs, bound.structure, is_contribution=False)
    rebuilt = attempt("the stage to be rebuilt from its fields", "", _description.read, written).codecs[0].stage
    if rebuilt != subject.stage:
        raise Failed(f"{subject.stage} to be rebuilt from its fields", f"{rebuilt}")
    for kind, tree in subject.inputs:
        blob = codecs.encode(tree, subject.codec, seed=subject.seed)
        decoded, expected = codecs.decode(blob), bound.decode(blob)
        for name in tree:
            if not same_bits(decoded[name], expected[name]):
                raise Failed(
                    f"codecs.decode to give what this codec decodes of {subject.inputs.label(kind, name)}",
                    first_difference(expected[name], decoded[name]),
                )
    return f"{len(written)} bytes describe the codec and all inputs"


def check_pure(subject: Subject) -> str:
    """The same arguments give the same bits, and are left as they are."""
    for kind, tree in subject.inputs:
        first, second = (subject.contribution(tree, subject.key("pure")).blob for _ in range(2))
        if first != second:
            raise Failed(f"encode of the {kind} inputs to give the same bytes twice for one key", "other bytes")
    kind, names = _eager_cases(subject)
    for name in names:
        _check_eagerly_pure(subject, kind, name)
    return f"the same bits twice, compiled and uncompiled ({kind} {', '.join(_spec_names(subject, names))})"


def _check_eagerly_pure(subject: Subject, kind: str, name: str) -> None:
    stage, spec, label = subject.stage, subject.inputs.specs[name], subject.inputs.label(kind, name)
    x, key = subject.jax(kind, name), jnp.asarray(subject.key("pure"))
    encode_parameters, decode_parameters = subject.parameters[name]

    def decode(encoded: dict[str, Any]) -> dict[str, Any]:
        return {"decoded": stage.decode(encoded, decode_parameters, num_summands=1, spec=spec)}

    encoded = _twice(f"encode of {label}", lambda told: subject.encode(name, key, x, told), encode_parameters)
    encoded |= stage.regenerate(key, spec)
    _twice(f"report of {label}", lambda told: stage.report(x, encoded, told), encode_parameters)
    _twice(f"decode of {label}", decode, encoded)


def check_jit_equals_eager(subject: Subject) -> str:
    """Compiled and uncompiled code agree: floats up to rounding, integers too where no rounding decides."""
    kind, names = _eager_cases(subject)
    for name in names:
        x, key = subject.jax(kind, name), jnp.asarray(subject.key("eager"))
        eager = subject.encode(name, key, x)
        compiled = subject.jit_encode(name, key, x)
        for output in subject.stage.outputs:
            if not _agree(eager[output], compiled[output], is_lossless=subject.stage.is_lossless):
                raise Failed(
                    f"encode of {subject.inputs.label(kind, name)} to give the same {output!r} compiled and uncompiled",
                    first_difference(eager[output], compiled[output]),
                    "encode must depend on nothing but its arguments",
                )
    return ", ".join(_spec_names(subject, names))


def _needs_any_receiver(subject: Subject) -> None:
    if subject.stage.has_receiver_memory:
        raise NotApplicable("decoding depends on what the receiver remembers")


def _round_trips(subject: Subject) -> Any:
    for kind, tree in subject.inputs:
        way_out = "a division by a norm or a range needs a case for zero"
        key = subject.key("round trip")
        decoded = attempt(f"the {kind} inputs to come back finite", way_out, subject.round_trip, tree, key)
        for name, x in tree.items():
            yield kind, name, x, np.asarray(decoded[name])


def _relative_error(x: np.ndarray, decoded: np.ndarray) -> float:
    wide = x.astype(np.float64)
    scale = np.abs(wide).max(initial=0.0)
    return float(np.abs(wide - decoded.astype(np.float64)).max(initial=0.0) / scale) if scale else 0.0


def _travelling(subject: Subject, name: str) -> list[Any]:
    """All that travels for one array: the outputs' types, and decode's parameters."""
    spec = subject.inputs.specs[name]
    key = jax.ShapeDtypeStruct((2,), jnp.uint32)
    outputs = jax.eval_shape(lambda key, x: subject.encode(name, key, x), key, spec.struct)
    return [*outputs.values(), *subject.parameters[name][1].values()]


def _nbytes(struct: Any) -> int:
    return TensorSpec("", tuple(struct.shape), np.dtype(struct.dtype)).nbytes


def _eager_cases(subject: Subject) -> tuple[str, list[str]]:
    return next(iter(subject.inputs.trees)), list(subject.inputs.specs)[:_EAGER_SPECS]


def _spec_names(subject: Subject, names: list[str]) -> list[str]:
    return [str(subject.inputs.specs[name]) for name in names]


def _twice(what: str, function: Any, arrays: dict[str, Any]) -> dict[str, Any]:
    """The function's result, if two calls agree and leave its argument as it is."""
    given = copy.copy(arrays)
    first = dict(function(given))
    if given.keys() != arrays.keys() or any(given[name] is not arrays[name] for name in arrays):
        raise Failed(f"{what} to leave its arguments as they are", f"{describe(given)} instead of {describe(arrays)}")
    second = dict(function(dict(arrays)))
    for name in first:
        if name not in second or not same_bits(first[name], second[name]):
            got = first_difference(first[name], second[name]) if name in second else describe(second)
            raise Failed(
                f"{what} to give the same {name!r} twice for the same arguments",
                got,
                "draw from the key only, and keep nothing between calls",
            )
    return first


def _agree(eager: Any, compiled: Any, *, is_lossless: bool) -> bool:
    eager, compiled = np.asarray(eager), np.asarray(compiled)
    if (eager.shape, eager.dtype) != (compiled.shape, compiled.dtype):
        return False
    spec = TensorSpec("", eager.shape, eager.dtype)
    if spec.is_float:
        return excess(eager, compiled, spec, float(np.abs(eager.astype(np.float64)).max(initial=0.0))) <= 1
    steps = np.abs(eager.astype(np.int64) - compiled.astype(np.int64))
    if is_lossless:
        return not steps.any()
    return steps.max(initial=0) <= 1 and np.count_nonzero(steps) <= max(1, _ROUNDING * steps.size)
