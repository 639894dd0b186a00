"""Actors that come and go, and tasks that are all done nevertheless.

An actor keeps what its tasks gave until there are no more, and gives it up in one piece: neighbouring tasks' results
have become one by then, so an actor is given neighbours as far as possible. Each task's share is taken once, however
often it was begun: what an actor or a node that dies was doing or holding is begun anew by others.
"""

import collections
import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from laconic.errors import EngineError

_IN_FLIGHT = 2  # tasks of an actor: the next one waits there already when one ends; at the end it waits for any
_ATTEMPTS = 4  # of a task; what kills its actor each time is no accident
_POLL = 1.0  # seconds
_MODULES = "all nodes need Laconic and the modules that clients' functions and data come from"


@dataclasses.dataclass(eq=False)
class _Member:
    """An actor; until it is ready it has no tasks, since it may be waiting for a machine.

    Attributes:
      actor: itself.
      starting: a reference to its being ready, None if it is.
      running: tasks that it was given, by references to their ends.
      held: those that it has done.
      giving_up: those whose results are on their way, by references to these.
      latest: the task that it was given last.
    """

    actor: Any
    starting: Any
    running: dict[Any, int] = dataclasses.field(default_factory=dict)
    held: list[int] = dataclasses.field(default_factory=list)
    giving_up: dict[Any, list[int]] = dataclasses.field(default_factory=dict)
    latest: int | None = None

    @property
    def references(self) -> list[Any]:
        return [*([] if self.starting is None else [self.starting]), *self.running, *self.giving_up]

    def forget(self) -> None:
        self.running.clear()
        self.held.clear()
        self.giving_up.clear()
        self.latest = None


class Pool:
    """Actors that share tasks.

    Args:
      ray: the module.
      start: makes an actor, which has `ready`, `run` for a task, and `give_up` for what its tasks have given.
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

    def gather(self, tasks: Sequence[Any]) -> Generator[Any, None, None]:
        """What actors give up, until all tasks are in it.

        Raises:
          EngineError: if no actor can be started, or a task's actors die again and again.
          Exception: what a task raised.
        """
        waiting = set(range(len(tasks)))
        missing = len(tasks)
        attempts: collections.Counter[int] = collections.Counter()
        alive_at = time.monotonic()
        try:
            while missing:
                self._submit(tasks, waiting)
                if any(member.running or member.giving_up for member in self._members):
                    alive_at = time.monotonic()
                self._check_patience(alive_at)
                for ended in self._wait():
                    attempts.update(ended.failed)
                    _check_attempts(attempts, ended.failed)
                    waiting.update(ended.failed, ended.dropped)
                    if ended.given:
                        missing -= len(ended.given)
                        yield ended.result
        finally:
            for member in self._members:
                member.forget()  # what still runs after an error is not waited for

    def close(self) -> None:
        """Ends all actors."""
        for member in self._members:
            self._ray.kill(member.actor)
        self._members.clear()

    def _submit(self, tasks: Sequence[Any], waiting: set[int]) -> None:
        """Gives tasks to those with the fewest; those who have no more give up what they hold."""
        for load in range(_IN_FLIGHT):
            for member in self._members:
                is_scarce = load and len(waiting) < len(self._members)
                if waiting and not is_scarce and member.starting is None and len(member.running) <= load:
                    member.latest = self._chosen(member, waiting)
                    waiting.remove(member.latest)
                    member.running[member.actor.run.remote(tasks[member.latest])] = member.latest
        for member in self._members:
            if member.held and not member.running:
                member.giving_up[member.actor.give_up.remote()] = member.held
                member.held = []

    def _chosen(self, member: _Member, waiting: set[int]) -> int:
        """The task after the actor's latest one; else the middle of the longest row that another one is working on."""
        if member.latest is not None and member.latest + 1 in waiting:
            return member.latest + 1
        first, end = _longest_row(waiting)
        is_anothers = any(each.latest == first - 1 for each in self._members)
        return (first + end) // 2 if is_anothers else first

    def _wait(self) -> list["_Ended"]:
        """What came to an end."""
        owners = {reference: member for member in self._members for reference in member.references}
        ready, _ = self._ray.wait(list(owners), num_returns=1, timeout=_POLL)
        return [self._ended(owners[reference], reference) for reference in ready]

    def _ended(self, member: _Member, reference: Any) -> "_Ended":
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
            return _Ended()
        if reference in member.running:
            member.held.append(member.running.pop(reference))
            return _Ended()
        return _Ended(given=member.giving_up.pop(reference), result=result)

    def _after_loss(self, member: _Member, reference: Any, error: Exception) -> "_Ended":
        """What is to be done again; an actor that may be lost is replaced."""
        if reference == member.starting:
            # By itself, and not with its node: Ray goes on placing actors on a node until it knows that it is dead.
            self._failed_starts += getattr(error, "actor_init_failed", False)
            if self._failed_starts >= _ATTEMPTS:
                raise EngineError(
                    f"{self._failed_starts} workers in a row ended before they could work: {error}; {_MODULES}"
                )
        elif isinstance(error, self._ray.exceptions.RayTaskError) and reference in member.running:
            return _Ended(failed=[member.running.pop(reference)])
        elif isinstance(error, self._ray.exceptions.ObjectLostError) and reference in member.giving_up:
            return _Ended(failed=member.giving_up.pop(reference))
        # Where only the news of a task's end is lost, the actor holds what it gave: begun anew it would count twice.
        self._members.remove(member)
        self._ray.kill(member.actor)  # it may be cut off and not dead
        self.replaced += 1
        self.resize(self._wanted)
        failed = [*member.running.values(), *(each for own in member.giving_up.values() for each in own)]
        return _Ended(failed=failed, dropped=member.held)

    def _check_patience(self, alive_at: float) -> None:
        if time.monotonic() - alive_at > self._patience:
            raise EngineError(
                f"none of {len(self._members)} workers could be started in {self._patience:.0f} s: the cluster has "
                f"{self._ray.available_resources()} to give; ask for fewer or smaller ones, or add a node"
            )


@dataclasses.dataclass(frozen=True)
class _Ended:
    """What one reference's end means for tasks.

    Attributes:
      failed: those that must be begun anew, and may be at fault.
      dropped: those that must be begun anew, but were done.
      given: those whose results came.
      result: these.
    """

    failed: Sequence[int] = ()
    dropped: Sequence[int] = ()
    given: Sequence[int] = ()
    result: Any = None


def _longest_row(numbers: set[int]) -> tuple[int, int]:
    """Where the first of the longest rows without a gap begins and ends."""
    begins = sorted(number for number in numbers if number - 1 not in numbers)
    ends = sorted(number + 1 for number in numbers if number + 1 not in numbers)
    return max(zip(begins, ends, strict=True), key=lambda row: row[1] - row[0])


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _check_attempts(attempts: collections.Counter[int], failed: Sequence[int]) -> None:
    if any(attempts[position] >= _ATTEMPTS for position in failed):
        raise EngineError(
            f"the same clients' workers died {_ATTEMPTS} times; most often they need more memory than a node has. "
            "Ray's logs of the workers say what happened"
        )
