"""A traced graph as alternating phases: server work, then one pass over the clients, and so on."""

import dataclasses
from collections.abc import Sequence

from laconic.federated._crossing import Downlink, Uplink
from laconic.federated._fusion import Step, steps
from laconic.federated._graph import (
    Aggregate,
    Broadcast,
    ClientKey,
    Constant,
    NextState,
    Node,
    Parameter,
    topological,
)
from laconic.federated._types import CLIENTS, SERVER


@dataclasses.dataclass(frozen=True)
class Phase:
    """Server work and the pass over the clients that follows it.

    Attributes:
      constants: values at the server that are known beforehand.
      server: what to compute at the server first.
      broadcasts: what is then sent to clients.
      given: the clients' parameters, constants and keys that the pass needs.
      clients: what to compute at each client. What an earlier pass computed is computed again, so that no client's
        values are held between passes.
      aggregates: what clients send.
      kept: results that stay at the clients.
      downlink: how broadcasts travel.
      uplink: how aggregates travel.
    """

    constants: tuple[Constant, ...]
    server: tuple[Step, ...]
    broadcasts: tuple[Broadcast, ...]
    given: tuple[Node, ...]
    clients: tuple[Step, ...]
    aggregates: tuple[Aggregate, ...]
    kept: tuple[Node, ...]
    downlink: Downlink
    uplink: Uplink

    @property
    def has_pass(self) -> bool:
        """Whether clients have anything to do."""
        return bool(self.broadcasts or self.aggregates or self.kept)


def phases(results: Sequence[Node]) -> list[Phase]:
    """The phases that compute the results. The last one's server work comes after all passes."""
    nodes = topological(list(results))
    depth: dict[Node, int] = {}
    for node in nodes:
        below = max((depth[each] for each in node.inputs), default=0)
        # What a crossing gives the server is there in the next phase.
        after = isinstance(node, Aggregate) or (isinstance(node, NextState) and isinstance(node.inputs[0], Broadcast))
        depth[node] = below + after
    last = max(depth.values(), default=0)
    return [_phase(nodes, depth, results, index) for index in range(last + 1)]


def _phase(nodes: Sequence[Node], depth: dict[Node, int], results: Sequence[Node], index: int) -> Phase:
    server = [node for node in nodes if node.type.placement is SERVER and depth[node] == index]
    broadcasts = tuple(node for node in nodes if isinstance(node, Broadcast) and depth[node] == index)
    aggregates = tuple(node for node in nodes if isinstance(node, Aggregate) and depth[node] == index + 1)
    kept = tuple(dict.fromkeys(node for node in results if node.type.placement is CLIENTS and depth[node] == index))
    outgoing = [*(node.inputs[0] for node in aggregates), *kept]
    clients = [node for node in topological(outgoing) if node.type.placement is CLIENTS]
    return Phase(
        constants=tuple(node for node in server if isinstance(node, Constant)),
        server=steps(server, nodes, results),
        broadcasts=broadcasts,
        given=tuple(node for node in clients if isinstance(node, (Parameter, Constant, ClientKey))),
        clients=steps(clients, clients, outgoing),
        aggregates=aggregates,
        kept=kept,
        downlink=Downlink(broadcasts, aggregates),
        uplink=Uplink(aggregates),
    )
