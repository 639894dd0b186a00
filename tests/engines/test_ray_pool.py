"""Tasks of actors that come and go, with a Ray that does what each test says."""

import functools
import random
import types

import pytest

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
    """What a call will give; it is made once, when it is first asked for."""

    def __init__(self, function, arguments):
        self.value = functools.cache(lambda: function(*arguments))


class Actor:
    """Starts, and runs tasks, with functions of the test's; what they give it keeps until it is asked to give it up."""

    def __init__(self, ready, run, give_up=None):
        self.held = []
        self.ready = Method(ready)
        self.run = Method(lambda task: self.held.append(run(task)))
        self.give_up = Method(give_up or self._given_up)

    def _given_up(self):
        given, self.held = self.held, []
        return given


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


def same(task):
    """What a task gives is itself."""
    return task


def gathered(pool, tasks):
    """Everything that actors gave up, sorted: tasks may end in any order."""
    return sorted(result for given in pool.gather(tasks) for result in given)


def pool_of(ray, actors, patience=60.0):
    """A pool whose actors are the given ones, in turn."""
    coming = iter(actors)
    return Pool(ray, lambda: next(coming), patience)


def test_every_task_is_given_once():
    """Whoever is done first."""
    pool = pool_of(Ray(), [Actor(nothing, lambda task: task * 10) for _ in range(3)])
    pool.resize(3)
    assert gathered(pool, range(50)) == [10 * i for i in range(50)]
    assert gathered(pool, range(5)) == [0, 10, 20, 30, 40]
    assert gathered(pool, []) == []


@pytest.mark.parametrize(("tasks", "actors"), [(10, 2), (60, 4), (64, 1), (3, 8)])
def test_an_actors_tasks_are_neighbours(tasks, actors):
    """Or else it could add up little of them: of a cohort's rows each actor has few, and gives each up in one piece."""
    made = [Actor(nothing, same) for _ in range(actors)]
    pool = pool_of(Ray(), made)
    pool.resize(actors)
    given = list(pool.gather(range(tasks)))
    assert sorted(each for own in given for each in own) == list(range(tasks))
    rows = sum(each - 1 not in own for own in given for each in own)
    assert rows <= min(tasks, 3 * actors)


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
    assert gathered(pool, range(40)) == list(range(40))
    assert pool.replaced == len(ray.killed) == 2


def test_what_a_lost_actor_held_is_done_again():
    """It dies when it is to give up what it has done, and its tasks go to others."""
    actors = [Actor(nothing, same, died), Actor(nothing, same), Actor(nothing, same)]
    pool = pool_of(Ray(), actors)
    pool.resize(2)
    assert gathered(pool, range(20)) == list(range(20))
    assert pool.replaced == 1


def test_tasks_that_were_done_are_not_to_blame():
    """However many actors die that had done a task, and were lost by another one's fault or none."""
    actors = iter(range(100))

    def mortal():
        number, tasks = next(actors), []

        def run(task):
            tasks.append(task)
            # Each of the first ten dies at a task of its own, after others.
            return died() if number < 10 and task == 10 + number and len(tasks) > 1 else task

        return Actor(nothing, run)

    pool = Pool(Ray(), mortal, 60)
    pool.resize(1)
    assert gathered(pool, range(40)) == list(range(40))
    assert pool.replaced == 10


def test_a_lost_result_is_computed_again():
    """Where only the result is lost, with the node that held it, the actor stays."""
    losses = iter([True, False])
    actor = Actor(nothing, same)
    given_up = actor.give_up

    def lost_once():
        given = given_up.remote().value()
        if next(losses):
            raise ObjectLostError("its node is gone")
        return given

    actor.give_up = Method(lost_once)
    ray = Ray()
    pool = pool_of(ray, [actor])
    pool.resize(1)
    assert gathered(pool, range(10)) == list(range(10))
    assert not ray.killed


def test_news_that_are_lost():
    """Of a task's end: its actor holds what it gave, so the actor goes, and nothing counts twice."""
    lost = iter([True])

    def losing(task):
        reference = Reference(forgetful.run_itself, (task,))
        if task == 3 and next(lost, False):
            given = reference.value
            reference.value = lambda: (given(), gone())[1]
        return reference

    def gone():
        raise ObjectLostError("its node is gone")

    forgetful = Actor(nothing, same)
    forgetful.run_itself, forgetful.run.remote = forgetful.run._function, losing
    ray = Ray()
    pool = pool_of(ray, [forgetful, Actor(nothing, same)])
    pool.resize(1)
    assert gathered(pool, range(10)) == list(range(10))
    assert forgetful.held
    assert ray.killed == [forgetful]


def test_inputs_that_were_lost_on_their_way():
    """An error of Ray's within a task is not the task's own."""
    failures = iter([RayTaskError(ObjectLostError("no copy is left"))])

    def run(task):
        if error := next(failures, None):
            raise error
        return task

    pool = pool_of(Ray(), [Actor(nothing, run)])
    pool.resize(1)
    assert gathered(pool, range(3)) == [0, 1, 2]


def test_a_tasks_own_error():
    """It is raised as it was, not as Ray's, and the pool can be used again."""

    def run(task):
        if task == 1:
            raise RayTaskError(KeyError("client"))
        return task

    pool = pool_of(Ray(), [Actor(nothing, run)])
    pool.resize(1)
    with pytest.raises(KeyError, match="client"):
        gathered(pool, range(3))
    assert gathered(pool, [5, 6]) == [5, 6]


def test_what_a_worker_cannot_read():
    """A module that is missing there is no accident either: nothing is tried again."""

    def run(task):
        raise RayTaskError(RayError("System error: No module named 'mine'\ntraceback"))

    pool = pool_of(Ray(), [Actor(nothing, run)])
    pool.resize(1)
    with pytest.raises(EngineError, match="No module named 'mine'; all nodes need Laconic and the modules"):
        gathered(pool, range(3))


def test_a_task_that_kills_its_actors():
    """It is not tried for ever."""
    pool = Pool(Ray(), lambda: Actor(nothing, died), 60)
    pool.resize(1)
    with pytest.raises(EngineError, match="workers died 4 times; most often they need more memory"):
        gathered(pool, range(3))


def test_actors_that_cannot_start():
    """Their error is told, and not an endless row of them started."""
    pool = Pool(Ray(), lambda: Actor(could_not_start, nothing), 60)
    pool.resize(2)
    with pytest.raises(
        EngineError, match="4 workers in a row ended before they could work: no Laconic here; all nodes"
    ):
        gathered(pool, range(3))


def test_actors_that_are_placed_on_a_dying_node():
    """However many are lost before they could work, others are started until some can."""
    starts = iter([died] * 20)
    pool = Pool(Ray(), lambda: Actor(next(starts, nothing), same), 60)
    pool.resize(2)
    assert gathered(pool, range(30)) == list(range(30))
    assert pool.replaced == 20


def test_actors_that_never_start():
    """After some patience the error says what the cluster has to give."""
    ray = Ray()
    actor = Actor(nothing, nothing)
    actor.ready.remote = lambda: ray.never.add(reference := Reference(nothing, ())) or reference
    pool = pool_of(ray, [actor], patience=0.05)
    pool.resize(1)
    with pytest.raises(EngineError, match=r"none of 1 workers could be started in 0 s: the cluster has {'CPU': 3.0}"):
        gathered(pool, range(3))


def test_tasks_go_only_to_actors_that_are_ready():
    """One that waits for a machine holds up nobody."""
    ray = Ray()
    late = Actor(nothing, died)
    late.ready.remote = lambda: ray.never.add(reference := Reference(nothing, ())) or reference
    pool = pool_of(ray, [late, Actor(nothing, same)])
    pool.resize(2)
    assert gathered(pool, range(20)) == list(range(20))


def test_closing():
    """All actors are ended, once."""
    ray = Ray()
    pool = pool_of(ray, [Actor(nothing, nothing) for _ in range(2)])
    pool.resize(2)
    pool.close()
    pool.close()
    assert len(ray.killed) == 2
