"""A pass as data, for engines that run clients in other processes.

A program travels as the Python function that it was built from (`Computation` pickles so) and is built again where it
arrives. Nodes are then other objects, so what belongs to a node travels under its position.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from laconic.codecs.random import Key
from laconic.federated._pass import Client, ClientPass, PassInputs, Program


@dataclasses.dataclass(frozen=True)
class PortablePass:
    """What a pass begins with: plain containers of NumPy arrays.

    Attributes:
      index: of the pass in its program.
      received: what is the same at all clients, by the node's position.
      parameters: each aggregate's encode parameters.
      states: each aggregate's codec state, at the server.
      key: of the call.
      count: clients of the cohort.
    """

    index: int
    received: Mapping[int, Any]
    parameters: Sequence[Any]
    states: Sequence[Any]
    key: Key
    count: int

    @classmethod
    def of(cls, client_pass: ClientPass) -> "PortablePass":
        """The inputs of a pass; of what clients receive only what they use, since some of it made the rest."""
        inputs = client_pass.inputs
        positions = {node: position for position, node in enumerate(client_pass.program.nodes)}
        used = client_pass.program.phases[client_pass.index].used
        received = {positions[node]: value for node, value in inputs.received.items() if node in used}
        received, parameters, states = jax.tree.map(
            np.asarray, (received, list(inputs.parameters), list(inputs.states))
        )
        return cls(client_pass.index, received, parameters, states, np.asarray(inputs.key), inputs.count)

    def bind(self, program: Program) -> ClientPass:
        """The same pass, of a program that was built from the same function."""
        received, parameters, states = jax.tree.map(jnp.asarray, (self.received, self.parameters, self.states))
        nodes = program.nodes
        inputs = PassInputs(
            {nodes[position]: value for position, value in received.items()}, parameters, states, self.key, self.count
        )
        return ClientPass(program, self.index, inputs)


@dataclasses.dataclass(frozen=True)
class PortableClient:
    """One client of a cohort.

    Attributes:
      id: its name.
      arguments: its own values, by the position of the parameter among the program's nodes.
    """

    id: str
    arguments: Mapping[int, Any]

    @classmethod
    def of(cls, client: Client, program: Program) -> "PortableClient":
        """A client of this program's cohort."""
        positions = {node: position for position, node in enumerate(program.nodes)}
        # A parameter that is not used has no position, and is not needed.
        return cls(client.id, {positions[n]: value for n, value in client.arguments.items() if n in positions})

    def bind(self, program: Program) -> Client:
        """The same client, for a program that was built from the same function."""
        return Client(self.id, {program.nodes[position]: value for position, value in self.arguments.items()})
