"""Devices that share a stack of clients."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "clients"
_ALIKE, _SPLIT = PartitionSpec(), PartitionSpec(AXIS)


@dataclasses.dataclass(frozen=True)
class ClientsMesh:
    """A mesh with one axis, `clients`; see `federated.Devices` for what its methods give."""

    mesh: Mesh

    def share(self, tree: Any) -> Any:
        """The arrays, on each device."""
        return jax.device_put(tree, NamedSharding(self.mesh, _ALIKE))

    def split(self, tree: Any) -> Any:
        """The arrays, their first axis spread over the devices."""
        return jax.device_put(tree, NamedSharding(self.mesh, _SPLIT))

    def parallel(self, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """The function, computed on each device for its part of the stack.

        Mapped over shards and not left to the compiler's partitioning: no client needs another's values, so nothing may
        be moved between devices, whatever the client's program looks like.
        """
        # Unchecked, since a loop's carry may begin with what all clients share and go on with each one's own.
        return jax.shard_map(function, mesh=self.mesh, in_specs=(_ALIKE, _SPLIT), out_specs=_SPLIT, check_vma=False)


def clients_mesh(devices: Sequence[jax.Device]) -> ClientsMesh:
    """A mesh of these devices."""
    return ClientsMesh(Mesh(np.array(devices), (AXIS,)))
