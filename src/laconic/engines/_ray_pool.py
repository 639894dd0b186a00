"""Actors that come and go, and tasks that are all done nevertheless.

Each task's result is taken once, by its position, however often it was begun: an actor or a node that dies takes along
what it was doing, which another one begins anew.
"""

import collections
import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from laconic.errors import EngineError

_IN_FLIGHT = 2  # tasks of an actor: the next one waits there already when one ends; at the end it waits for any
_AHEAD = 4  # tasks for each actor that may be done before their turn
_ATTEMPTS = 4  # of a task; what kills its actor each time is no accident
_POLL = 1.0  # seconds
_MODULES = "all nodes need Laconic and the modules that clients' functions and data come from"


@dataclasses.dataclass(eq=False)
class _Member:
    """An actor; until it is ready it has no tasks, since it may be waiting for a machine."""

    actor: Any
    starting: Any
    tasks: dict[Any, int] = dataclasses.field(default_factory=dict)

    @property
    def references(self) -> list[Any]:
        return [*([] if self.starting is None else [self.starting]), *self.tasks]


class Pool:
    """Actors that share tasks.

    Args:
      ray: the module.
      start: makes an actor, which has `ready` and `run`.
      patience: seconds to wait for a first actor.
    """

    def __init__(self, ray: Any, start: Callable[[], Any], patience: float):
        self._ray = ray
        self._start = start
        self._patience = patience
        self._members: list[_Member] = []
        self._wanted = 0
        self._failed_starts = 0
        self.replaced = 0
        """Actors that were lost and replaced so far."""

    def resize(self, size: int) -> None:
        """How many actors there should be; more are started at once, none is stopped."""
        self._wanted = size
        while len(self._members) < size:
            actor = self._start()
            self._members.append(_Member(actor, actor.ready.remote()))

    def map(self, tasks: Sequence[Any]) -> Generator[Any, None, None]:
        """The tasks' results, in their order.

        Raises:
          EngineError: if no actor can be started, or a task's actors die again and again.
          Exception: what a task raised.
        """
        waiting = collections.deque(range(len(tasks)))
        attempts: collections.Counter[int] = collections.Counter()
        done: dict[int, Any] = {}
        alive_at = time.monotonic()
        try:
            for due in range(len(tasks)):
                while due not in done:
                    self._submit(tasks, waiting, due)
                    if any(member.tasks for member in self._members):
                        alive_at = time.monotonic()
                    self._check_patience(alive_at)
                    for position, result in self._wait():
                        if result is _LOST:
                            attempts[position] += 1
                            _check_attempts(attempts[position])
                            waiting.appendleft(position)
                        else:
                            done[position] = result
                yield done.pop(due)
        finally:
            for member in self._members:
                member.tasks.clear()  # what still runs after an error is not waited for

    def close(self) -> None:
        """Ends all actors."""
        for member in self._members:
            self._ray.kill(member.actor)
        self._members.clear()

    def _submit(self, tasks: Sequence[Any], waiting: collections.deque[int], due: int) -> None:
        """Gives tasks to those with the fewest, first ones first, as far as results may wait for their turn."""
        limit = due + _AHEAD * len(self._members)
        for load in range(_IN_FLIGHT):
            for member in self._members:
                is_scarce = load and len(waiting) < len(self._members)
                if not waiting or waiting[0] >= limit or is_scarce:
                    return
                if member.starting is None and len(member.tasks) <= load:
                    position = waiting.popleft()
                    member.tasks[member.actor.run.remote(tasks[position])] = position

    def _wait(self) -> list[tuple[int, Any]]:
        """Positions of tasks that came to an end, and their results, or `_LOST`."""
        owners = {reference: member for member in self._members for reference in member.references}
        ready, _ = self._ray.wait(list(owners), num_returns=1, timeout=_POLL)
        ended: list[tuple[int, Any]] = []
        for reference in ready:
            ended += self._ended(owners[reference], reference)
        return ended

    def _ended(self, member: _Member, reference: Any) -> list[tuple[int, Any]]:
        errors = self._ray.exceptions
        try:
            result = self._ray.get(reference)
        except errors.RayTaskError as error:
            if isinstance(error.cause, errors.ObjectLostError):
                return self._after_loss(member, reference, error)  # of what it was to work with
            if isinstance(error.cause, errors.RayError):
                raise EngineError(f"{_first_line(error.cause)}; {_MODULES}") from None
            raise error.cause from None
        except errors.RayError as error:
            return self._after_loss(member, reference, error)
        if reference == member.starting:
            member.starting = None
            self._failed_starts = 0
            return []
        return [(member.tasks.pop(reference), result)]

    def _after_loss(self, member: _Member, reference: Any, error: Exception) -> list[tuple[int, Any]]:
        """What is to be done again; an actor that may be lost is replaced."""
        if reference == member.starting:
            # By itself, and not with its node: Ray goes on placing actors on a node until it knows that it is dead.
            self._failed_starts += getattr(error, "actor_init_failed", False)
            if self._failed_starts >= _ATTEMPTS:
                raise EngineError(
                    f"{self._failed_starts} workers in a row ended before they could work: {error}; {_MODULES}"
                )
        elif isinstance(error, (self._ray.exceptions.ObjectLostError, self._ray.exceptions.RayTaskError)):
            return [(member.tasks.pop(reference), _LOST)]
        self._members.remove(member)
        self._ray.kill(member.actor)  # it may be cut off and not dead
        self.replaced += 1
        self.resize(self._wanted)
        return [(position, _LOST) for position in member.tasks.values()]

    def _check_patience(self, alive_at: float) -> None:
        if time.monotonic() - alive_at > self._patience:
            raise EngineError(
                f"none of {len(self._members)} workers could be started in {self._patience:.0f} s: the cluster has "
                f"{self._ray.available_resources()} to give; ask for fewer or smaller ones, or add a node"
            )


_LOST = object()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _check_attempts(attempts: int) -> None:
    if attempts >= _ATTEMPTS:
        raise EngineError(
            f"the same clients' workers died {attempts} times; most often they need more memory than a node has. "
            "Ray's logs of the workers say what happened"
        )
