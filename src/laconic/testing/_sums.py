"""Checks of many-to-one use: several clients encode, the server decodes their sum and moves its state on."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from laconic.codecs import Merge
from laconic.testing._inputs import Tree
from laconic.testing._report import Failed, NotApplicable
from laconic.testing._subject import Subject, attempt, describe, excess, first_difference, same_bits, specs_of_arrays

_MEMORY_ROUNDS = 4


@dataclasses.dataclass(frozen=True)
class _Sum:
    """A server's decoded sum of some clients' contributions, and its next state."""

    tree: Tree
    state: Any


def check_sum(subject: Subject) -> str:
    """Clients encode with the server's parameters; what the server decodes is the sum of the separate decodings."""
    if subject.stage.has_receiver_memory:
        raise NotApplicable("what is decoded depends on earlier sums")
    largest = _check_sum(subject, subject.bound.initial_state(), 0, subject.clients)[1]
    if subject.stage.is_lossless:
        return f"{subject.clients} clients, equal bits"
    return f"{subject.clients} clients, largest difference {largest:.2g} of what rounding explains"


def check_state(subject: Subject) -> str:
    """Over rounds with cohorts of several sizes, one client too, state and parameters keep their shapes and dtypes."""
    if not (subject.stage.is_adaptive or subject.stage.has_receiver_memory):
        raise NotApplicable("the stage is stateless")
    state = subject.bound.initial_state()
    told = subject.bound.encode_parameters(state)
    cohorts = (subject.clients, 1, subject.clients + 1, 2)
    for round_number, cohort in enumerate(cohorts):
        if subject.stage.has_receiver_memory:
            summed = _gather(subject, state, _contributions(subject, state, round_number, cohort))
        else:
            summed, _ = _check_sum(subject, state, round_number, cohort)
        _check_kept("update_state to keep the state's tree, shapes and dtypes", state, summed.state)
        _check_finite(summed.state)
        _check_order(subject, state, round_number, cohort, summed)
        if not subject.stage.has_receiver_memory:
            _check_broadcast(subject, state, round_number)
        state = summed.state
        told_now = attempt("parameters of every state to be arrays", "", subject.bound.encode_parameters, state)
        _check_kept("parameters to keep their names, shapes and dtypes from round to round", told, told_now)
    return f"{len(cohorts)} rounds of {', '.join(map(str, cohorts))} clients"


def check_memory(subject: Subject) -> str:
    """From encoding to encoding a sender's memory keeps its tree, shapes and dtypes, and stays finite."""
    if not subject.stage.needs_client_state:
        raise NotApplicable("the encoding side remembers nothing")
    first = memory = subject.bound.initial_memory()
    for round_number in range(_MEMORY_ROUNDS):
        tree, key = subject.inputs.client(round_number), subject.key("memory", round_number)
        _, memory = subject.bound.contribute(tree, memory, key=key)
        _check_kept("update_memory to keep the memory's tree, shapes and dtypes", first, memory)
        _check_finite(memory)
    return f"{_MEMORY_ROUNDS} encodings"


def later_state(subject: Subject) -> Any:
    """The state after one round; the initial one of a stateless stage."""
    if not subject.stage.is_adaptive:
        return subject.bound.initial_state()
    state = subject.bound.initial_state()
    return _gather(subject, state, _contributions(subject, state, 0, subject.clients)).state


def _check_sum(subject: Subject, state: Any, round_number: int, cohort: int) -> tuple[_Sum, float]:
    blobs = _contributions(subject, state, round_number, cohort)
    summed = attempt(f"the server to decode the sum of {cohort} clients", "", _gather, subject, state, blobs)
    separate = [_gather(subject, state, [blob]).tree for blob in blobs]
    largest = 0.0
    for name, spec in subject.inputs.specs.items():
        parts = [tree[name] for tree in separate]
        expected = _total(parts)
        scale = sum(float(np.abs(part.astype(np.float64)).max(initial=0.0)) for part in parts)
        beyond = excess(expected, summed.tree[name], spec, scale)
        largest = max(largest, beyond)
        if beyond > 1 or (subject.stage.is_lossless and not same_bits(expected, summed.tree[name])):
            claim = "return False from commutes_with_sum" if subject.stage.commutes_with_sum else ""
            raise Failed(
                f"the decoded sum of {cohort} clients' {spec} to be the sum of their decodings",
                first_difference(expected, summed.tree[name]),
                claim,
            )
    return summed, largest


def _contributions(subject: Subject, state: Any, round_number: int, cohort: int) -> list[bytes]:
    parameters = subject.bound.encode_parameters(state)
    return [
        subject.contribution(subject.inputs.client(client), subject.key("round", round_number, client), parameters).blob
        for client in range(cohort)
    ]


def _gather(subject: Subject, state: Any, blobs: Sequence[bytes]) -> _Sum:
    gather = subject.bound.gather(state)
    for blob in blobs:
        gather.add(blob)
    tree, next_state = gather.result()
    return _Sum({name: np.asarray(x) for name, x in tree.items()}, next_state)


def _total(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The sum in the order and precision in which a server adds."""
    dtype = parts[0].dtype
    wide = np.int64 if dtype.kind in "iub" else np.promote_types(dtype, np.float32) if dtype.kind == "f" else np.float32
    total = parts[0].astype(wide)
    for part in parts[1:]:
        total = total + part.astype(wide)
    return np.asarray(total.astype(dtype))


def _check_order(subject: Subject, state: Any, round_number: int, cohort: int, summed: _Sum) -> None:
    if Merge.STACK in subject.stage.merges.values():
        return
    backwards = _gather(subject, state, _contributions(subject, state, round_number, cohort)[::-1]).state
    for forward, backward in zip(jax.tree.leaves(summed.state), jax.tree.leaves(backwards), strict=True):
        if not np.allclose(forward, backward, rtol=1e-4, atol=1e-6):
            raise Failed(
                f"the same state, whichever of {cohort} clients reports first",
                first_difference(forward, backward),
                "merges by sum, min and max do not know the order; keep nothing between calls",
            )


def _check_broadcast(subject: Subject, state: Any, round_number: int) -> None:
    """One to many: the state moves on at the sender, and what decoding needs of it travels."""
    tree = subject.inputs.client(round_number)
    payload, next_state = subject.bound.encode(tree, key=subject.key("broadcast", round_number), state=state)
    _check_kept("update_state to keep the state's tree, shapes and dtypes in a broadcast", state, next_state)
    decoded = subject.bound.decode(payload.blob)
    for name, x in tree.items():
        if subject.stage.is_lossless and not same_bits(x, decoded[name]):
            raise Failed(
                f"{subject.inputs.specs[name]} to come back bit for bit in round {round_number}",
                first_difference(x, decoded[name]),
            )


def _check_kept(what: str, before: Any, after: Any) -> None:
    for leaf in jax.tree.leaves(after):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            raise Failed(f"{what}, all arrays", f"{leaf!r:.60} of type {type(leaf).__name__}")
    if specs_of_arrays(before) != specs_of_arrays(after):
        raise Failed(f"{what}, {_own(before)}", _own(after))


def _own(tree: Any) -> str:
    """The stage's part of a codec's state or parameters, for the first spec."""
    return describe(tree[0]["self"]) if tree else "nothing"


def _check_finite(state: Any) -> None:
    for leaf in jax.tree.leaves(state):
        array = np.asarray(leaf)
        if array.dtype.kind not in "iub" and not np.isfinite(array.astype(np.float64)).all():
            raise Failed("update_state to give a finite state", f"{leaf}"[:80])
