"""The engine on a real cluster of several nodes, all on this machine."""

import os
import signal
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from laconic import codecs, data, engines, learning
from laconic.engines import _ray
from laconic.errors import ArgumentError, ArgumentTypeError, EngineError, NonFiniteError
from laconic.federated import at_clients, federated_computation, federated_max, federated_mean, federated_sum

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or Ray warns that it will behave so one day

CLIENTS = 9


class Cluster:
    """Ray's, whose first node has no processor to give: that is where the program and its data are."""

    def __init__(self):
        from ray import cloudpickle
        from ray.cluster_utils import Cluster

        cloudpickle.register_pickle_by_value(sys.modules[__name__])  # other nodes do not have it
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self._cluster.connect()

    def add_node(self):
        """Adds a machine of one processor."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # JAX's, that it does not like forks
            return self._cluster.add_node(num_cpus=1)

    def shutdown(self):
        """Ends all."""
        import ray

        ray.shutdown()
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one processor each, and the one of the program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what Ray imports and leaves open
        made = Cluster()
        made.add_node()
        made.add_node()
        yield made
        made.shutdown()


@pytest.fixture(scope="module")
def engine(cluster):
    """As many workers as there is room for."""
    with engines.ray() as made:
        yield made


def examples(client_id):
    """A client's own."""
    generator = np.random.default_rng(int(client_id.removeprefix("client")))
    x = generator.standard_normal((7, 6)).astype(np.float32)
    return {"x": x, "y": np.abs(x).argmax(axis=1).astype(np.int32)}


def plain():
    """Clients whose data is with the program."""
    return data.from_arrays({f"client{i}": examples(f"client{i}") for i in range(CLIENTS)})


def deadly(victim, flag, end):
    """The same; but whoever first loads this client's data comes to its end."""

    def load(client_id):
        if client_id == victim and not flag.exists():
            flag.touch()
            end()
        return examples(client_id)

    return data.from_loader([f"client{i}" for i in range(CLIENTS)], load)


def end_worker():
    """This process."""
    os._exit(1)


def end_node():
    """The node that this process belongs to, with all of its processes."""
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()


def process_on(engine, compression=None):
    """Training of a perceptron."""
    compression = compression or learning.presets.balanced()
    model = learning.models.perceptron(6, (8,), 6)
    return learning.fed_avg(model, optax.sgd(0.1), optax.adam(0.01), compression=compression, engine=engine)


def trained(process, clients, rounds=2):
    """The state and the last round's result."""
    batched = clients.batched(3, shuffle=True)
    state = process.initialize(seed=1)
    for round_number in range(rounds):
        state, result = process.next(state, batched.cohort(batched.client_ids, round_number), per_client_traffic=True)
    return state, result


@pytest.fixture(scope="module")
def expected():
    """What the local engine gives."""
    return trained(process_on(engines.local(1)), plain())


def same(found, expected):
    """Whether states and results have the same bits."""
    jax.tree.map(np.testing.assert_array_equal, found[0], expected[0])
    assert found[1] == expected[1]


def test_the_bits_of_the_local_engine(engine, expected):
    """State, metrics and traffic, each client's, too."""
    same(trained(process_on(engine), plain()), expected)
    assert engine.replaced_workers == 0


def test_clients_memories_come_back(engine):
    """Error feedback is each client's own, and kept by the program between rounds."""
    compression = learning.Compression(
        "",
        learning.encoded_broadcast(),
        learning.encoded_mean(codecs.error_feedback(codecs.top_k(0.1))),
    )
    found, local = (trained(process_on(each, compression), plain()) for each in (engine, engines.local(1)))
    assert len(found[0].memories) == CLIENTS
    same(found, local)


def test_evaluation_at_clients(engine):
    """Metrics of a model at the clients' own data."""
    model = learning.models.perceptron(6, (8,), 6)
    weights = process_on(engines.local(1)).initialize(seed=0).weights
    cohort = plain().batched(3).cohort(plain().client_ids)
    found, local = (learning.evaluation(model, engine=each).federated(weights, cohort) for each in (engine, None))
    assert found == local


def test_values_that_have_no_origin(engine):
    """Arrays as clients' own values, results that stay at clients, and reductions other than sums."""

    @federated_computation(at_clients(np.zeros(40, np.float32)), at_clients(jnp.int32))
    def several(values, numbers):
        return federated_mean(values, codec=codecs.uniform_quantization(4)), federated_max(numbers), values

    generator = np.random.default_rng(0)
    cohort = (
        [generator.standard_normal(40).astype(np.float32) for _ in range(200)],
        list(np.arange(200, dtype=np.int32)),
    )
    found, local = (several.run(*cohort, key=1, engine=each) for each in (engine, engines.local(1)))
    jax.tree.map(np.testing.assert_array_equal, found.result, local.result)
    assert found.traffic == local.traffic


def test_a_clients_error(engine):
    """It is the one of the local engine, and names the client."""

    @federated_computation(at_clients(jnp.float32))
    def total(values):
        return federated_sum(values)

    with pytest.raises(NonFiniteError) as caught:
        total([1.0, float("nan"), 3.0], engine=engine)
    assert caught.value.__notes__ == ["at client '1'"]
    assert total([1.0, 2.0, 3.0], engine=engine) == 6


def test_a_worker_dies_in_a_round(engine, expected, tmp_path):
    """Its clients are run again by another one: the same bits, and nobody counted twice."""
    before = engine.replaced_workers
    same(trained(process_on(engine), deadly("client4", tmp_path / "flag", end_worker)), expected)
    assert engine.replaced_workers == before + 1


def test_a_node_dies_in_a_round_and_another_comes(cluster, engine, expected, tmp_path):
    """The rest goes on without it, with the same bits; a node that is added has a worker in the next round."""
    same(trained(process_on(engine), deadly("client7", tmp_path / "flag", end_node)), expected)
    assert (tmp_path / "flag").exists()
    cluster.add_node()
    same(trained(process_on(engine), plain()), expected)


def test_an_engine_can_be_closed_and_used_again(engine, expected):
    """Closed, its workers are gone; the next round starts others."""
    engine.close()
    same(trained(process_on(engine), plain()), expected)


def test_no_room_for_a_worker(cluster, monkeypatch):
    """The error comes after some patience, and says what there is."""
    monkeypatch.setattr(_ray, "_PATIENCE", 2.0)
    with engines.ray(workers=1, num_cpus=1000) as engine, pytest.raises(EngineError, match="none of 1 workers could"):
        trained(process_on(engine), plain())


def test_what_clients_run_must_not_hold_the_engine(engine):
    """The error says so, and what to do."""

    @federated_computation(at_clients(jnp.float32))
    def total(values):
        assert engine
        return federated_sum(values)

    with pytest.raises(
        ArgumentTypeError, match="cannot be sent to workers: an engine cannot be sent to its own workers"
    ):
        total([1.0], engine=engine)


@pytest.mark.parametrize(
    ("arguments", "kind", "match"),
    [
        ({"workers": 0}, ArgumentError, "workers must be at least 1, got 0"),
        ({"workers": "2"}, ArgumentTypeError, "workers must be a whole number, got '2'"),
        ({"num_cpus": 0}, ArgumentError, "num_cpus must be positive, got 0"),
        ({"num_gpus": -1}, ArgumentError, "num_gpus must be not negative, got -1"),
        ({"num_cpus": "1"}, ArgumentTypeError, "num_cpus must be a number, got '1' of type str"),
        ({"address": "auto"}, ArgumentError, "address must be left out, since Ray is connected already"),
    ],
)
def test_wrong_arguments(cluster, arguments, kind, match):
    """Each is named."""
    with pytest.raises(kind, match=match):
        engines.ray(**arguments)
