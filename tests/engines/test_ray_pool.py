"""Tasks of actors that come and go, with a Ray that does what each test says."""

import random
import types

import pytest

from laconic.engines import _ray_pool
from laconic.engines._ray_pool import Pool
from laconic.errors import EngineError


class RayError(Exception):
    """As Ray's."""


class ActorDiedError(RayError):
    """As Ray's."""

    def __init__(self, message, *, actor_init_failed=False):
        super().__init__(message)
        self.actor_init_failed = actor_init_failed


class ObjectLostError(RayError):
    """As Ray's."""


class RayTaskError(RayError):
    """As Ray's."""

    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


class Method:
    """An actor's, whose calls give references: what is to be computed when it is waited for."""

    def __init__(self, function):
        self._function = function

    def remote(self, *arguments):
        return Reference(self._function, arguments)


class Reference:
    """What a call will give."""

    def __init__(self, function, arguments):
        self.value = lambda: function(*arguments)


class Actor:
    """Starts, and runs tasks, with functions of the test's."""

    def __init__(self, ready, run):
        self.ready, self.run = Method(ready), Method(run)


class Ray:
    """The module; any reference may be ready first, so that results come out of order."""

    exceptions = types.SimpleNamespace(RayError=RayError, ObjectLostError=ObjectLostError, RayTaskError=RayTaskError)

    def __init__(self):
        self.killed = []
        self._random = random.Random(0)
        self.never = set()

    def wait(self, references, *, num_returns, timeout):
        found = [each for each in references if each not in self.never]
        return found and [self._random.choice(found)], references

    def get(self, reference):
        return reference.value()

    def kill(self, actor):
        self.killed.append(actor)

    def available_resources(self):
        return {"CPU": 3.0}


def nothing(*_):
    """What starts at once."""


def died(*_):
    """The actor is gone."""
    raise ActorDiedError("gone")


def could_not_start(*_):
    """The actor's own beginning went wrong."""
    raise ActorDiedError("no Laconic here", actor_init_failed=True)


def pool_of(ray, actors, patience=60.0):
    """A pool whose actors are the given ones, in turn."""
    coming = iter(actors)
    return Pool(ray, lambda: next(coming), patience)


def test_results_come_in_the_order_of_tasks():
    """Whoever is done first, each task's result is given once and at its place."""
    pool = pool_of(Ray(), [Actor(nothing, lambda task: task * 10) for _ in range(3)])
    pool.resize(3)
    assert list(pool.map(range(50))) == [10 * i for i in range(50)]
    assert list(pool.map(range(5))) == [0, 10, 20, 30, 40]


def test_few_results_wait_for_their_turn():
    """While one task is still running, the others go on only as far as the limit for each actor."""
    begun = []
    ray = Ray()

    def run(task):
        begun.append(task)
        return task

    pool = pool_of(ray, [Actor(nothing, run) for _ in range(2)])
    pool.resize(2)
    results = pool.map(range(1000))
    assert next(results) == 0
    assert max(begun) <= 2 * _ray_pool._AHEAD
    results.close()


def test_what_a_lost_actor_was_doing_is_done_again():
    """Another actor takes its place and its tasks; every result is there once."""
    ray = Ray()
    lives = iter([3, 0, 1000, 1000])

    def mortal():
        left = [next(lives)]

        def run(task):
            left[0] -= 1
            return died() if left[0] < 0 else task

        return Actor(nothing, run)

    pool = Pool(ray, mortal, 60)
    pool.resize(2)
    assert list(pool.map(range(40))) == list(range(40))
    assert pool.replaced == len(ray.killed) == 2


def test_a_lost_result_is_computed_again():
    """Where only the result is lost, with the node that held it, the actor stays."""
    lost = {4, 7}

    def run(task):
        if task in lost:
            lost.remove(task)
            raise ObjectLostError("its node is gone")
        return task

    ray = Ray()
    pool = pool_of(ray, [Actor(nothing, run)])
    pool.resize(1)
    assert list(pool.map(range(10))) == list(range(10))
    assert not ray.killed


def test_inputs_that_were_lost_on_their_way():
    """An error of Ray's within a task is not the task's own."""
    failures = iter([RayTaskError(ObjectLostError("no copy is left"))])

    def run(task):
        if error := next(failures, None):
            raise error
        return task

    pool = pool_of(Ray(), [Actor(nothing, run)])
    pool.resize(1)
    assert list(pool.map(range(3))) == [0, 1, 2]


def test_a_tasks_own_error():
    """It is raised as it was, not as Ray's, and the pool can be used again."""

    def run(task):
        if task == 1:
            raise RayTaskError(KeyError("client"))
        return task

    pool = pool_of(Ray(), [Actor(nothing, run)])
    pool.resize(1)
    with pytest.raises(KeyError, match="client"):
        list(pool.map(range(3)))
    assert list(pool.map([5, 6])) == [5, 6]


def test_what_a_worker_cannot_read():
    """A module that is missing there is no accident either: nothing is tried again."""

    def run(task):
        raise RayTaskError(RayError("System error: No module named 'mine'\ntraceback"))

    pool = pool_of(Ray(), [Actor(nothing, run)])
    pool.resize(1)
    with pytest.raises(EngineError, match="No module named 'mine'; all nodes need Laconic and the modules"):
        list(pool.map(range(3)))


def test_a_task_that_kills_its_actors():
    """It is not tried for ever."""
    pool = Pool(Ray(), lambda: Actor(nothing, died), 60)
    pool.resize(1)
    with pytest.raises(EngineError, match="workers died 4 times; most often they need more memory"):
        list(pool.map(range(3)))


def test_actors_that_cannot_start():
    """Their error is told, and not an endless row of them started."""
    pool = Pool(Ray(), lambda: Actor(could_not_start, nothing), 60)
    pool.resize(2)
    with pytest.raises(
        EngineError, match="4 workers in a row ended before they could work: no Laconic here; all nodes"
    ):
        list(pool.map(range(3)))


def test_actors_that_are_placed_on_a_dying_node():
    """However many are lost before they could work, others are started until some can."""
    starts = iter([died] * 20)
    pool = Pool(Ray(), lambda: Actor(next(starts, nothing), lambda task: task), 60)
    pool.resize(2)
    assert list(pool.map(range(30))) == list(range(30))
    assert pool.replaced == 20


def test_actors_that_never_start():
    """After some patience the error says what the cluster has to give."""
    ray = Ray()
    actor = Actor(nothing, nothing)
    actor.ready.remote = lambda: ray.never.add(reference := Reference(nothing, ())) or reference
    pool = pool_of(ray, [actor], patience=0.05)
    pool.resize(1)
    with pytest.raises(EngineError, match=r"none of 1 workers could be started in 0 s: the cluster has {'CPU': 3.0}"):
        list(pool.map(range(3)))


def test_tasks_go_only_to_actors_that_are_ready():
    """One that waits for a machine holds up nobody."""
    ray = Ray()
    late = Actor(nothing, died)
    late.ready.remote = lambda: ray.never.add(reference := Reference(nothing, ())) or reference
    pool = pool_of(ray, [late, Actor(nothing, lambda task: task)])
    pool.resize(2)
    assert list(pool.map(range(20))) == list(range(20))


def test_closing():
    """All actors are ended, once."""
    ray = Ray()
    pool = pool_of(ray, [Actor(nothing, nothing) for _ in range(2)])
    pool.resize(2)
    pool.close()
    pool.close()
    assert len(ray.killed) == 2
