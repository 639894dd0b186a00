"""The engine for one machine."""

import threading
import weakref

import jax.numpy as jnp
import numpy as np
import pytest

from laconic import codecs, engines
from laconic.engines._local import ordered_map
from laconic.errors import ArgumentError, ArgumentTypeError
from laconic.federated import ReferenceEngine, at_clients, federated_computation, federated_mean


@federated_computation(at_clients(np.zeros(1000, np.float32)), at_clients(jnp.float32))
def mean(values, weights):
    """A mean whose bits depend on the order of its sum."""
    return federated_mean(values, weights, codec=codecs.uniform_quantization(4))


def cohort(count):
    """Values of very different sizes, so that another order of summation gives other bits."""
    generator = np.random.default_rng(0)
    values = [np.float32(10.0 ** generator.integers(-4, 4) * generator.standard_normal(1000)) for _ in range(count)]
    return values, [np.float32(w) for w in generator.random(count)]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_same_bits_for_any_number_of_workers(workers):
    """Results and traffic agree with the reference engine's, bit for bit."""
    expected = mean.run(*cohort(13), key=1, engine=ReferenceEngine())
    found = mean.run(*cohort(13), key=1, engine=engines.local(workers=workers))
    np.testing.assert_array_equal(np.asarray(found.result), np.asarray(expected.result))
    assert found.traffic == expected.traffic


def test_results_come_in_order():
    """A slow first item does not let others overtake it."""
    release = threading.Event()

    def work(i):
        if i == 0:
            release.wait(5)
        elif i == 1:
            release.set()
        return i

    assert list(ordered_map(work, range(8), 2)) == list(range(8))


def test_memory_does_not_grow_with_the_cohort():
    """However many clients, only a few results wait for their turn."""

    class Result:
        """What can be watched."""

    alive: weakref.WeakSet[Result] = weakref.WeakSet()
    most = 0

    def work(_):
        result = Result()
        alive.add(result)
        return result

    for result in ordered_map(work, range(300), 3):
        most = max(most, len(alive))
        del result
    assert most <= 2 * 3 + 3


def test_an_error_stops_the_rest():
    """The first client's error is raised, and clients not yet begun are dropped."""
    begun = []

    def work(i):
        begun.append(i)
        raise ValueError(f"client {i}")

    with pytest.raises(ValueError, match="client 0"):
        list(ordered_map(work, range(1000), 2))
    assert len(begun) < 100


def test_workers_default_to_the_processors():
    """Without a number, one worker for each processor."""
    assert engines.local().workers >= 1
    assert repr(engines.local(workers=3)) == "engines.local(workers=3)"


@pytest.mark.parametrize(
    ("workers", "error"),
    [(0, ArgumentError), (-1, ArgumentError), (1.5, ArgumentTypeError), (True, ArgumentTypeError)],
)
def test_workers_are_checked(workers, error):
    """A number of workers is a positive whole number."""
    with pytest.raises(error, match=f"workers must be .*, got {workers}"):
        engines.local(workers=workers)
