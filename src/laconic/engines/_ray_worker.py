"""What runs in a Ray actor: clients of one cohort after another, with compiled programs and data that stay.

It imports nothing of Ray but `get`, so that what it does can be tested in this process.
"""

import collections
import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from laconic.engines._auto import auto
from laconic.federated import ClientPass, Part, Parts, PortableClient

_KEPT = 8  # programs and data sets


@dataclasses.dataclass(frozen=True)
class Origin:
    """A client's sequence, as what makes it: `source.client(*arguments)`.

    Attributes:
      source: a reference to the source.
      arguments: of this client.
    """

    source: Any
    arguments: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Task:
    """An extent of a cohort, with references to what it shares with other tasks.

    Attributes:
      program: a reference to the computation.
      inputs: a reference to the `PortablePass`, whose received values are references, too.
      extent: its positions in the cohort.
      clients: at these.
    """

    program: Any
    inputs: Any
    extent: range
    clients: Sequence[PortableClient]


class Worker:
    """Runs tasks.

    Args:
      get: from a reference to its value.
      settings: JAX's, so that bits are those of the process that asked.
      flags: of XLA, for the same reason.
      threads: that run clients.
    """

    def __init__(self, get: Callable[[Any], Any], settings: Mapping[str, Any], flags: str | None, threads: int):
        if flags is not None:
            os.environ["XLA_FLAGS"] = flags  # read when JAX computes for the first time
        for name, value in settings.items():
            jax.config.update(name, value)
        self._get = get
        self._engine = auto(threads)
        self._kept: collections.OrderedDict[Any, Any] = collections.OrderedDict()
        self._pass: tuple[Any, ClientPass, Parts] | None = None

    def ready(self) -> None:
        """Returns when the worker can work."""

    def run(self, task: Task) -> None:
        """Adds a task's part to those that are held; those of another pass are dropped."""
        program = self._held(task.program)
        client_pass, held = self._bound(task.inputs, program)
        clients = [self._whole(client).bind(program) for client in task.clients]
        own = client_pass.parts()  # none of it is held unless all is done
        with contextlib.closing(self._engine.outputs(client_pass, clients)) as outputs:
            own.reduce(task.extent, outputs)
        for extent, part in own.taken().items():
            held.add(extent, part)

    def give_up(self) -> dict[range, Part]:
        """What is held, by its extents in the cohort; it must not be asked for twice."""
        return {} if self._pass is None else self._pass[2].taken()

    def _bound(self, inputs: Any, program: Any) -> tuple[ClientPass, Parts]:
        """The pass, whose received values become JAX arrays once for all its tasks, and its parts here."""
        if self._pass is None or self._pass[0] != inputs:
            self._pass = None  # before the next one is made: models are large
            portable = self._get(inputs)
            received = {position: self._get(value) for position, value in portable.received.items()}
            client_pass = dataclasses.replace(portable, received=received).bind(program)
            self._pass = inputs, client_pass, client_pass.parts()
        return self._pass[1:]

    def _whole(self, client: PortableClient) -> PortableClient:
        return PortableClient(
            client.id,
            {
                position: self._held(value.source).client(*value.arguments) if isinstance(value, Origin) else value
                for position, value in client.arguments.items()
            },
        )

    def _held(self, reference: Any) -> Any:
        """A value that is kept for the next tasks: what was used last is dropped last."""
        if reference not in self._kept:
            self._kept[reference] = self._get(reference)
        self._kept.move_to_end(reference)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return self._kept[reference]
