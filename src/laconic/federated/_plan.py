"""A traced graph as alternating phases: server work, then one pass over the clients, and so on."""

import dataclasses
from collections.abc import Sequence

from laconic.codecs._undivided import Undivided
from laconic.errors import PlacementError
from laconic.federated._crossing import Downlink, Uplink
from laconic.federated._fusion import Step, steps
from laconic.federated._graph import (
    Aggregate,
    Broadcast,
    ClientKey,
    Constant,
    Held,
    Map,
    NextMemory,
    NextState,
    Node,
    Parameter,
    topological,
)
from laconic.federated._stack import StackedWork
from laconic.federated._types import CLIENTS, SERVER


@dataclasses.dataclass(frozen=True)
class Phase:
    """Server work and the pass over the clients that follows it.

    Attributes:
      constants: values at the server that are known beforehand.
      server: what to compute at the server first.
      broadcasts: what is then sent to clients.
      held: what clients hold already of the server's values.
      given: the clients' parameters, constants and keys that the pass needs.
      shared: what to compute once for all clients: what follows from broadcasts alone.
      clients: what else to compute at each client. What an earlier pass computed is computed again, so that no client's
        values are held between passes.
      remembered: what clients remember after their aggregates, as far as it is used.
      after: what to compute from that at each client, once it has sent.
      aggregates: what clients send.
      kept: results that stay at the clients.
      stacked: `clients`, for many clients at once.
      downlink: how broadcasts travel.
      uplink: how aggregates travel.
    """

    constants: tuple[Constant, ...]
    server: tuple[Step, ...]
    broadcasts: tuple[Broadcast, ...]
    held: tuple[Held, ...]
    given: tuple[Node, ...]
    shared: tuple[Step, ...]
    clients: tuple[Step, ...]
    remembered: tuple[NextMemory, ...]
    after: tuple[Step, ...]
    aggregates: tuple[Aggregate, ...]
    kept: tuple[Node, ...]
    stacked: StackedWork
    downlink: Downlink
    uplink: Uplink

    @property
    def has_pass(self) -> bool:
        """Whether clients have anything to do."""
        return bool(self.broadcasts or self.aggregates or self.kept)

    @property
    def used(self) -> set[Node]:
        """What a client's work takes, sends or keeps."""
        taken = (node for step in (*self.clients, *self.after) for node in step.inputs)
        return {*taken, *self.kept, *(below for node in self.aggregates for below in node.inputs)}


def phases(results: Sequence[Node]) -> list[Phase]:
    """The phases that compute the results. The last one's server work comes after all passes."""
    nodes = topological(list(results))
    depth: dict[Node, int] = {}
    for node in nodes:
        below = max((depth[each] for each in node.inputs), default=0)
        # What a crossing gives the server is there in the next phase; what it leaves with a client, in the same.
        after = isinstance(node, Aggregate) or (isinstance(node, NextState) and isinstance(node.inputs[0], Broadcast))
        depth[node] = below + after - isinstance(node, NextMemory)
    last = max(depth.values(), default=0)
    after_sending = _after_sending(nodes, depth)
    return [_phase(nodes, depth, after_sending, results, index) for index in range(last + 1)]


def _after_sending(nodes: Sequence[Node], depth: dict[Node, int]) -> set[Node]:
    """What clients compute from what their codecs remember after an aggregate.

    Raises:
      PlacementError: if it would be sent, or is needed in a later pass: it cannot be computed again there.
    """
    found: set[Node] = set()
    for node in nodes:
        from_memory = [each for each in node.inputs if each in found]
        if from_memory and (isinstance(node, Aggregate) or any(depth[each] != depth[node] for each in from_memory)):
            raise PlacementError(
                f"what clients remember after an aggregate, {from_memory[0].type}, can be mapped and returned, but not "
                "be sent or used in a later pass of the same computation; give it to the next call"
            )
        if from_memory or isinstance(node, NextMemory):
            found.add(node)
    return found


def _shared(clients: Sequence[Node]) -> set[Node]:
    """What is the same at all clients, and is computed from what they received."""
    found: set[Node] = set()
    for node in clients:
        is_computed = isinstance(node, Map) and not node.is_fold and node.inputs
        if is_computed and all(isinstance(each, (Broadcast, Held)) or each in found for each in node.inputs):
            found.add(node)
    return found


def _phase(
    nodes: Sequence[Node], depth: dict[Node, int], after_sending: set[Node], results: Sequence[Node], index: int
) -> Phase:
    server = [node for node in nodes if node.type.placement is SERVER and depth[node] == index]
    broadcasts = tuple(node for node in nodes if isinstance(node, Broadcast) and depth[node] == index)
    held = tuple(node for node in nodes if isinstance(node, Held) and depth[node] == index)
    aggregates = tuple(node for node in nodes if isinstance(node, Aggregate) and depth[node] == index + 1)
    kept = tuple(dict.fromkeys(node for node in results if node.type.placement is CLIENTS and depth[node] == index))
    sent = [each for node in aggregates for each in node.inputs if each.type.placement is CLIENTS]
    outgoing = [*sent, *kept]
    clients = topological(outgoing, at=CLIENTS)
    shared = _shared(clients)
    before = [node for node in clients if node not in after_sending and node not in shared]
    given = tuple(node for node in clients if isinstance(node, (Parameter, Constant, ClientKey)))
    work = steps(before, clients, outgoing, Undivided)
    after = steps([node for node in clients if node in after_sending], clients, outgoing, Undivided)
    computed = {node for step in work for node in step.outputs}
    used_later = [*sent, *kept, *(node for step in after for node in step.inputs)]
    wanted = [*(node.inputs[0] for node in aggregates), *(node for node in used_later if node in computed)]
    return Phase(
        constants=tuple(node for node in server if isinstance(node, Constant)),
        server=steps(server, nodes, results),
        broadcasts=broadcasts,
        held=held,
        given=given,
        shared=steps([node for node in clients if node in shared], clients, outgoing),
        clients=work,
        remembered=tuple(node for node in clients if isinstance(node, NextMemory)),
        after=after,
        aggregates=aggregates,
        kept=kept,
        stacked=StackedWork(given, work, wanted),
        downlink=Downlink(broadcasts, aggregates),
        uplink=Uplink(aggregates),
    )
