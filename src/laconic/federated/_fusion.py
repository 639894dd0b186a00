"""Runs of mapped functions as one compiled function.

Element-wise work on whole models is bound by memory: compiled apart, each function is a pass over it; together they are
one.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from laconic.federated._graph import Map, Node


@dataclasses.dataclass(frozen=True)
class Step:
    """One call: outputs = run(*inputs).

    Attributes:
      run: the function, compiled.
      traced: the same, for inside a compiled program.
      inputs: of what to compute.
      outputs: what is computed.
    """

    run: Callable[..., tuple[Any, ...]]
    traced: Callable[..., tuple[Any, ...]]
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]

    def __call__(self, values: dict[Node, Any]) -> None:
        """Adds the outputs to the values."""
        outputs = self.run(*(values[node] for node in self.inputs))
        values.update(zip(self.outputs, outputs, strict=True))


def steps(
    nodes: Sequence[Node], users: Sequence[Node], results: Sequence[Node], jit: Callable[..., Any] = jax.jit
) -> tuple[Step, ...]:
    """Steps that compute the mapped ones of some nodes.

    Args:
      nodes: what to compute, each after its inputs; those that are not maps are left to the caller.
      users: all nodes that may use them.
      results: what is wanted by itself.
      jit: `jax.jit` or the like.
    """
    planned: list[Step] = []
    group: list[Map] = []

    def flush() -> None:
        if group:
            planned.append(_fused(tuple(group), users, results, jit))
            group.clear()

    for node in nodes:
        if not isinstance(node, Map):
            continue
        if node.is_fold:
            flush()
            planned.append(Step(_single(node), _single(node), node.inputs, (node,)))
        else:
            group.append(node)
    flush()
    return tuple(planned)


def _single(node: Map) -> Callable[..., tuple[Any, ...]]:
    return lambda *values: (node.run(*values),)


def _fused(group: tuple[Map, ...], users: Sequence[Node], results: Sequence[Node], jit: Callable[..., Any]) -> Step:
    inside = set(group)
    used_outside = {*results, *(below for node in users if node not in inside for below in node.inputs)}
    inputs = tuple(dict.fromkeys(below for node in group for below in node.inputs if below not in inside))
    outputs = tuple(node for node in group if node in used_outside)

    def run(*values: Any) -> tuple[Any, ...]:
        env = dict(zip(inputs, values, strict=True))
        for node in group:
            env[node] = node.run(*(env[below] for below in node.inputs))
        return tuple(env[node] for node in outputs)

    owned = [node for node in inputs if isinstance(node, Map) and node.is_fold and node not in used_outside]
    return Step(_compiled(run, inputs, outputs, owned, jit), run, inputs, outputs)


def _compiled(
    run: Callable[..., Any],
    inputs: Sequence[Node],
    outputs: Sequence[Node],
    owned: Sequence[Node],
    jit: Callable[..., Any],
) -> Callable[..., Any]:
    """Compiles `run`; outputs take the buffers of what nobody else uses, a fold's last carry.

    A fresh buffer of a model's size costs more than the arithmetic that fills it: the system clears its pages.
    """
    wanted = collections.Counter(_key(leaf) for node in outputs for leaf in node.type.member.leaves)
    donated: list[bool] = []
    for node in inputs:
        for leaf in node.type.member.leaves:
            is_usable = node in owned and wanted[_key(leaf)] > 0
            wanted[_key(leaf)] -= is_usable
            donated.append(is_usable)

    @functools.partial(jit, static_argnums=2, donate_argnums=0)
    def flat(given_up: list[Any], kept: list[Any], structure: Any) -> Any:
        split = {True: iter(given_up), False: iter(kept)}
        return run(*jax.tree.unflatten(structure, [next(split[each]) for each in donated]))

    def call(*values: Any) -> Any:
        leaves, structure = jax.tree.flatten(values)
        parts: dict[bool, list[Any]] = {True: [], False: []}
        for leaf, is_donated in zip(leaves, donated, strict=True):
            parts[is_donated].append(leaf)
        return flat(parts[True], parts[False], structure)

    return call


def _key(leaf: Any) -> tuple[tuple[int, ...], Any]:
    return leaf.shape, leaf.dtype
