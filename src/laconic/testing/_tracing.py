"""Checks of shapes, dtypes and names: everything is traced, as `jax.jit` does, and nothing is computed."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from laconic.codecs import TensorSpec
from laconic.codecs._specs import spec_of
from laconic.codecs._stage import checked_arrays
from laconic.testing._report import Failed
from laconic.testing._subject import Subject, attempt, describe

_KEY = jax.ShapeDtypeStruct((2,), jnp.uint32)
_WAY_OUT = "use jax.numpy without branching on values, or refuse such an input in check(spec)"


def check_jit_encode(subject: Subject) -> str:
    """`jax.jit` can trace encode, and its outputs are arrays that can travel."""
    for name, spec in subject.inputs.specs.items():
        outputs = _trace_encode(subject, name)
        for output, struct in outputs.items():
            attempt(f"the output {output!r} of {spec} to be of a dtype that travels", "", spec_of, struct, output)
    return f"{len(subject.inputs.specs)} shapes and dtypes"


def check_output_names(subject: Subject) -> str:
    """Encode returns what `outputs` declares."""
    for name, spec in subject.inputs.specs.items():
        _check_same_names("outputs", f"encode of {spec}", subject.stage.outputs, _trace_encode(subject, name))
    return ", ".join(subject.stage.outputs)


def check_regenerated_names(subject: Subject) -> str:
    """Regenerate returns what `regenerated` declares, and contexts fit outputs and `num_contexts`."""
    stage = subject.stage
    for name, spec in subject.inputs.specs.items():
        regenerated = _trace_regenerated(subject, spec)
        _check_same_names("regenerated", f"regenerate for {spec}", stage.regenerated, regenerated)
        outputs = _trace_encode(subject, name)
        for output, contexts in jax.eval_shape(stage.contexts, regenerated).items():
            expected = jax.ShapeDtypeStruct(outputs[output].shape, jnp.uint8)
            if (contexts.shape, contexts.dtype) != (expected.shape, expected.dtype):
                raise Failed(f"the contexts of {output!r} to be {describe(expected)}", describe(contexts))
    return ", ".join(stage.regenerated) or "none"


def check_report_names(subject: Subject) -> str:
    """Report returns what `merges` declares, as arrays."""
    for name, spec in subject.inputs.specs.items():
        outputs = _trace_encode(subject, name)
        reports = attempt(
            f"report of {spec} to return arrays and to be traced by jax.jit",
            _WAY_OUT,
            jax.eval_shape,
            lambda *given: checked_arrays(subject.stage, "report", subject.stage.report(*given)),
            spec.struct,
            outputs,
            subject.parameters[name][0],
        )
        _check_same_names("merges", f"report of {spec}", subject.stage.merges, reports)
    return ", ".join(f"{name} ({merge.value})" for name, merge in subject.stage.merges.items()) or "none"


def check_jit_decode(subject: Subject) -> str:
    """`jax.jit` can trace decode, and what comes out is like the input."""
    for name, spec in subject.inputs.specs.items():
        outputs = _trace_encode(subject, name) | _trace_regenerated(subject, spec)
        _check_decoded(spec, _trace_decode(subject, name, outputs, spec))
        if subject.stage.commutes_with_sum:
            wide = dataclasses.replace(spec, dtype=_summed(spec.struct).dtype)
            sums = {output: _summed(struct) for output, struct in outputs.items()}
            _check_decoded(wide, _trace_decode(subject, name, sums, wide))
    return "like the input's"


def _trace_encode(subject: Subject, name: str) -> dict[str, Any]:
    spec = subject.inputs.specs[name]

    def encode(key: Any, x: Any, told: Any) -> dict[str, Any]:
        return checked_arrays(subject.stage, "output", subject.encode(name, key, x, told))

    what = f"encode of {spec} to return arrays and to be traced by jax.jit"
    return attempt(what, _WAY_OUT, jax.eval_shape, encode, _KEY, spec.struct, subject.parameters[name][0])


def _trace_regenerated(subject: Subject, spec: TensorSpec) -> dict[str, Any]:
    what = f"regenerate for {spec} to be traced by jax.jit"
    return dict(attempt(what, _WAY_OUT, jax.eval_shape, lambda key: subject.stage.regenerate(key, spec), _KEY))


def _trace_decode(subject: Subject, name: str, outputs: Any, spec: TensorSpec) -> Any:
    """With a traced number of summands, as for a cohort whose size is known only at the end."""

    def decode(encoded: Any, told: Any, num_summands: Any) -> Any:
        return subject.stage.decode(encoded, told, num_summands=num_summands, spec=spec)

    what = f"decode to {spec} from {describe(outputs)} to be traced by jax.jit"
    count = jax.ShapeDtypeStruct((), jnp.int32)
    return attempt(what, _WAY_OUT, jax.eval_shape, decode, outputs, subject.parameters[name][1], count)


def _summed(struct: Any) -> jax.ShapeDtypeStruct:
    """The type of a sum over clients: integers and halves are widened."""
    is_float = jnp.issubdtype(struct.dtype, jnp.floating)
    return jax.ShapeDtypeStruct(struct.shape, jnp.promote_types(struct.dtype, jnp.float32) if is_float else jnp.int32)


def _check_decoded(spec: TensorSpec, decoded: Any) -> None:
    if (tuple(decoded.shape), decoded.dtype) != (spec.shape, spec.dtype):
        raise Failed(
            f"decode to return the input's shape and dtype, {spec}",
            describe(decoded),
            "end decode with .reshape(spec.shape).astype(spec.dtype)",
        )


def _check_same_names(what: str, method: str, declared: Iterable[str], returned: Iterable[str]) -> None:
    if set(declared) != set(returned):
        raise Failed(f"{method} to return the declared {what} {sorted(declared)}", f"{sorted(returned)}")
