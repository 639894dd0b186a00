"""What many clients compute together: one compiled program for a stack of them, padded to one number of steps."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from laconic.codecs import Devices
from laconic.codecs._stack import compiled_over
from laconic.errors import ArgumentError
from laconic.federated._client_work import PaddedElements
from laconic.federated._fusion import Step
from laconic.federated._graph import ClientKey, Node, Parameter
from laconic.federated._types import MemberType


@dataclasses.dataclass(frozen=True)
class StackInputs:
    """What a stack's clients begin with, on the host: one row for each, dummies included.

    Attributes:
      arguments: for each of the work's arguments a tree of arrays [rows, ...].
      sequences: for each of its sequences a tree of arrays [rows, steps, ...].
      counts: int32 [rows, sequences], how many elements are a client's own; the others are padding.
    """

    arguments: list[Any]
    sequences: list[Any]
    counts: np.ndarray


class StackedWork:
    """Some of the values that clients compute, for all clients of a stack by one compiled program.

    Args:
      given: parameters, constants and keys, with which clients begin.
      steps: what each client then computes, in order.
      wanted: which values to give.

    Attributes:
      shared: nodes whose values are the same for all clients.
      arguments: nodes whose values are each client's own.
      sequences: nodes of each client's own sequences.
    """

    def __init__(self, given: Sequence[Node], steps: Sequence[Step], wanted: Sequence[Node]):
        self._steps = tuple(steps)
        self.wanted = tuple(dict.fromkeys(wanted))
        computed = {node for step in steps for node in step.outputs}
        needed = dict.fromkeys([node for step in steps for node in step.inputs] + list(self.wanted))
        own = [node for node in given if isinstance(node, (Parameter, ClientKey)) and node in needed]
        self.sequences = tuple(node for node in own if node.type.member.is_sequence)
        self.arguments = tuple(node for node in own if not node.type.member.is_sequence)
        self.shared = tuple(node for node in needed if node not in computed and node not in own)
        self._compiled = compiled_over(self._one_client)

    def run(self, devices: Devices, shared: Sequence[Any], inputs: StackInputs) -> dict[Node, Any]:
        """The wanted values, each a tree of arrays [rows, ...], on the devices; they may still be computing."""
        if not self.wanted:
            return {}
        split = devices.split((inputs.arguments, inputs.sequences, inputs.counts))
        return dict(zip(self.wanted, self._compiled(devices, list(shared), split), strict=True))

    def _one_client(self, shared: Any, own: Any) -> list[Any]:
        arguments, sequences, counts = own
        values: dict[Node, Any] = dict(zip(self.shared, shared, strict=True))
        values.update(zip(self.arguments, arguments, strict=True))
        for i, (node, elements) in enumerate(zip(self.sequences, sequences, strict=True)):
            values[node] = PaddedElements(elements, counts[i])
        for step in self._steps:
            outputs = step.traced(*(values[node] for node in step.inputs))
            values.update(zip(step.outputs, outputs, strict=True))
        return [values[node] for node in self.wanted]


def stacked_rows(trees: Sequence[Any], rows: int) -> Any:
    """Trees of arrays of one type as one tree of arrays [rows, ...]; the last one is repeated to fill the rows."""
    # A dummy is like a client, and not zeros, so that it meets no division by zero that no client meets.
    full = [*trees, *[trees[-1]] * (rows - len(trees))]
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *full)


class SequenceRows:
    """Room for a stack's sequences of one parameter.

    Args:
      element: the type of an element.
      rows: clients, dummies included.
      steps: elements that each has room for.
    """

    def __init__(self, element: MemberType, rows: int, steps: int):
        self._structure = element.structure
        self._arrays = [np.zeros((rows, steps, *leaf.shape), leaf.dtype) for leaf in element.tensors]
        self._steps = steps
        self.counts = np.zeros(rows, np.int32)

    @property
    def tree(self) -> Any:
        """The elements, a tree of arrays [rows, steps, ...]."""
        return jax.tree.unflatten(self._structure, self._arrays)

    def fill(self, row: int, elements: Iterable[Any]) -> None:
        """Takes one client's elements.

        Raises:
          ArgumentError: if they are more than there is room for.
        """
        for count, element in enumerate(elements):
            if count == self._steps:
                raise ArgumentError(
                    f"the client's sequence has more elements than the {self._steps} that there is room for; its "
                    "num_batches or len() must tell how many there are"
                )
            for array, leaf in zip(self._arrays, jax.tree.leaves(element), strict=True):
                array[row, count] = leaf
            self.counts[row] = count + 1


def sized(sequence: Any) -> tuple[Any, int]:
    """A sequence, and how many elements it has; one that tells neither `num_batches` nor its length becomes a list."""
    if hasattr(sequence, "num_batches"):
        return sequence, int(sequence.num_batches)
    if not hasattr(sequence, "__len__"):
        sequence = list(sequence)
    return sequence, len(sequence)
