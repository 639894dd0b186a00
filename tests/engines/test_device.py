"""The engine for accelerators, on whatever devices there are."""

import functools
import os
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from laconic import codecs, data, engines, learning
from laconic.errors import ArgumentError, ArgumentTypeError, NonFiniteError, PlacementError
from laconic.federated import (
    CLIENTS,
    ClientPass,
    ClientWork,
    ReferenceEngine,
    SequenceOf,
    at_clients,
    at_server,
    federated_broadcast,
    federated_client_key,
    federated_computation,
    federated_map,
    federated_max,
    federated_mean,
    federated_sum,
    federated_value,
)

RAGGED = [3, 1, 14, 9, 5, 7, 2, 30, 4]  # examples of clients, in batches of two
X = np.zeros(1000, np.float32)


def clients(sizes):
    """Clients with linearly separable examples of six features in three classes, as many as the sizes say."""
    generator = np.random.default_rng(0)
    directions = generator.standard_normal((6, 3))
    examples = [generator.standard_normal((size, 6)).astype(np.float32) for size in sizes]
    return data.from_arrays(
        {f"client{i}": {"x": x, "y": (x @ directions).argmax(axis=1).astype(np.int32)} for i, x in enumerate(examples)}
    )


def trained(engine, compression, optimizer, sizes=RAGGED, rounds=2):
    """The state and result of the last of some rounds of training a perceptron."""
    model = learning.models.perceptron(6, (8,), 3)
    process = learning.fed_avg(model, optimizer, compression=compression, engine=engine)
    state = process.initialize(seed=3)
    batched = clients(sizes).batched(2, shuffle=True)
    for round_number in range(rounds):
        state, result = process.next(state, batched.cohort(batched.client_ids, round_number))
    return state, result


def compression_with(codec):
    """The model as it is, updates by a codec."""
    return learning.Compression("", learning.encoded_broadcast(), learning.encoded_mean(codec))


@pytest.mark.parametrize(
    "compression",
    [
        None,
        compression_with(codecs.uniform_quantization(8)),
        learning.presets.balanced(),
        compression_with(codecs.error_feedback(codecs.uniform_quantization(4, stochastic=False))),
        compression_with(codecs.auto(bits_per_parameter=3)),
    ],
    ids=["fp32", "8 bit", "balanced", "error feedback", "promised rate"],
)
def test_training_agrees_with_the_local_engine(compression):
    """Weights, metrics and memories agree within rounding; the traffic has the same entries, of about the same size."""
    expected, expected_result = trained(engines.local(1), compression, optax.sgd(0.1))
    found, found_result = trained(engines.device(clients_per_stack=4, workers=2), compression, optax.sgd(0.1))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=1e-3, atol=1e-4)
    assert found_result.metrics == pytest.approx(expected_result.metrics, rel=1e-4)
    names = [
        [(entry.direction, entry.value, entry.tensor, entry.kind) for entry in result.traffic.entries]
        for result in (found_result, expected_result)
    ]
    assert names[0] == names[1]
    assert found_result.traffic.aggregate_bytes == pytest.approx(expected_result.traffic.aggregate_bytes, rel=0.01)


def test_a_stateful_optimizer_does_not_move_on_padding():
    """Adam would go on without a gradient, so clients with fewer batches than their stack's show every false step."""
    sizes = [19, 20, 20, 20, 19, 17, 18, 20]
    expected, _ = trained(engines.local(1), None, optax.adam(0.01), sizes, rounds=1)
    found, _ = trained(engines.device(), None, optax.adam(0.01), sizes, rounds=1)
    for ours, theirs in zip(jax.tree.leaves(found.weights), jax.tree.leaves(expected.weights), strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=1e-4, atol=1e-5)


def total(carry, element):
    """A step that would make NaN of a padded element."""
    count, weighted = carry
    return count + 1, weighted + element * (element / element)


TOTALS = ClientWork(lambda _: (jnp.int32(0), jnp.float32(0)), total, lambda carry, offset: (*carry, offset))


@federated_computation(at_server(jnp.float32), at_clients(SequenceOf(jnp.float32)))
def totals(offset, values):
    """The number of elements, their sum, and something that all clients received; summed, and each client's own."""
    own = federated_map(TOTALS, (federated_broadcast(offset), values))
    return federated_sum(own), own


def integers(sizes):
    """A list of small whole numbers for each size, none of them zero."""
    return [[np.float32(1 + (i + j) % 5) for j in range(size)] for i, size in enumerate(sizes)]


@pytest.mark.parametrize("sizes", [[1], [6, 5], RAGGED, [0, 3], [7] * 23, [40, 1, 1, 1]])
@pytest.mark.parametrize("clients_per_stack", [1, 3, 64])
def test_sums_of_sequences_are_exact(sizes, clients_per_stack):
    """Whole numbers are summed exactly, each element once and no padding, and clients' results come in order."""
    values = integers(sizes)
    engine = engines.device(clients_per_stack=clients_per_stack, workers=2)
    summed, own = totals(np.float32(5), values, engine=engine)
    expected = [(len(each), sum(each), 5) for each in values]
    assert [tuple(map(float, each)) for each in own] == expected
    assert tuple(map(float, summed)) == tuple(map(sum, zip(*expected, strict=True)))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(own))


CODECS = {
    "as it is": None,
    "4 bit": codecs.uniform_quantization(4),
    "dithered": codecs.dithered(nmse=0.1),
    "rotated": codecs.hadamard_quantization(2),
    "top-k": codecs.top_k(0.1),
    "grid": codecs.stochastic_grid(step_in_rms=2.0),
    "shared mask": codecs.random_k(0.1),
    "promised rate": codecs.auto(bits_per_parameter=2),
    "low rank": codecs.low_rank(2),
}


@pytest.mark.parametrize("name", CODECS)
def test_the_same_values_are_drawn_the_same(name):
    """Keys are each client's, whatever its stack, so equal values are rounded equally, to the same bytes."""
    shape = (20, 50) if name == "low rank" else (1000,)
    mean = federated_computation(at_clients(np.zeros(shape, np.float32)))(
        lambda values: federated_mean(values, codec=CODECS[name])
    )
    generator = np.random.default_rng(0)
    values = [generator.standard_normal(shape, dtype=np.float32) for _ in range(7)]
    expected = mean.run(values, key=1, engine=ReferenceEngine())
    found = mean.run(values, key=1, engine=engines.device(clients_per_stack=3))
    np.testing.assert_allclose(np.asarray(found.result), np.asarray(expected.result), rtol=1e-5, atol=1e-6)
    assert found.traffic == expected.traffic


@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
def test_whole_numbers_add_up_in_64_bits(dtype):
    """A sum may pass through what its dtype cannot hold, or reach the edge of it, and is exact."""
    largest = np.iinfo(dtype).max
    values = [np.array([largest, 1], dtype), np.array([0, 2], dtype), np.array([0, 3], dtype)]
    summed = federated_computation(at_clients(values[0]))(
        lambda values: federated_sum(federated_map(lambda x: x - x + x, values))
    )
    assert np.asarray(summed(values, engine=engines.device())).tolist() == [largest, 6]


def test_everything_that_a_client_may_start_from():
    """Constants, keys, arguments, what was broadcast and nothing at all reach clients as in the reference engine."""

    @federated_computation(at_server(jnp.float32), at_clients(jnp.float32))
    def everything(scale, values):
        received, constant = federated_broadcast(scale), federated_value(np.float32(2), CLIENTS)
        key = federated_client_key()
        drawn = federated_map(lambda key, x: codecs.random.uniform(key, ()) + x, (key, values))
        largest = federated_max(federated_map(lambda a, b, c: a * b + c, (received, constant, values)))
        again = federated_map(jnp.subtract, (drawn, federated_broadcast(largest)))
        return federated_sum(received), federated_sum(values), largest, drawn, again, values, received, key

    arguments = np.float32(3), [np.float32(i) for i in range(5)]
    expected = everything.run(*arguments, key=1, per_client_traffic=True)
    found = everything.run(*arguments, key=1, per_client_traffic=True, engine=engines.device(clients_per_stack=2))
    for ours, theirs in zip(jax.tree.leaves(found.result), jax.tree.leaves(expected.result), strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=1e-6)
    assert found.traffic == expected.traffic


def test_a_round_compiles_once():
    """A second round of the same shapes traces nothing anew, though other clients have other sizes."""
    traced = []

    def step(carry, element):
        traced.append(1)
        return carry + element

    work = ClientWork(lambda: jnp.float32(0), step, lambda carry: carry)
    summed = federated_computation(at_clients(SequenceOf(jnp.float32)))(
        lambda values: federated_sum(federated_map(work, values))
    )
    traced.clear()
    engine = engines.device()
    assert float(summed(integers([20, 20, 19, 18]), engine=engine)) == sum(map(sum, integers([20, 20, 19, 18])))
    count = len(traced)
    assert count > 0
    summed(integers([18, 20, 20, 20]), engine=engine)
    summed(integers([18, 20, 20, 20]), engine=engines.device())
    assert len(traced) == count


def test_memory_does_not_grow_with_the_cohort(monkeypatch):
    """A window of four stacks, and what is on its way, is all that waits for its turn."""
    held, most = 0, 0
    begin, reduce = ClientPass.run_stack, ClientPass.reduce

    def beginning(self, clients, **options):
        nonlocal held, most
        held += len(clients)
        most = max(most, held)
        return begin(self, clients, **options)

    def reducing(self, outputs):
        def taken():
            nonlocal held
            for output in outputs:
                held -= 1
                yield output

        return reduce(self, taken())

    monkeypatch.setattr(ClientPass, "run_stack", beginning)
    monkeypatch.setattr(ClientPass, "reduce", reducing)
    values = integers([1 + i % 3 for i in range(200)])
    engine = engines.device(clients_per_stack=4, devices=jax.local_devices()[:1])
    summed, _ = totals(np.float32(0), values, engine=engine)
    assert float(summed[0]) == sum(map(len, values))
    assert most <= 4 * 4 + 2 * 4


def test_bytes_are_coded_while_the_next_stack_computes(monkeypatch):
    """The second stack has begun before the first one's messages are packed, and the third waits for these."""
    second = threading.Event()
    begun, packed = [], []
    begin = ClientPass.run_stack

    def beginning(self, clients, **options):
        begun.append(len(packed))
        if len(begun) == 2:
            second.set()

        def delayed(finish):
            assert second.wait(60)
            output = finish()
            packed.append(1)
            return output

        return [functools.partial(delayed, finish) for finish in begin(self, clients, **options)]

    monkeypatch.setattr(ClientPass, "run_stack", beginning)
    engine = engines.device(clients_per_stack=2, workers=2, devices=jax.local_devices()[:1])
    totals(np.float32(0), integers([3] * 6), engine=engine)
    assert begun[:2] == [0, 0]
    assert begun[2] >= 2


def test_an_error_stops_the_rest(monkeypatch):
    """The first client's error is raised, and most stacks are not begun."""
    begun = []
    begin = ClientPass.run_stack
    monkeypatch.setattr(
        ClientPass, "run_stack", lambda self, *given, **options: begun.append(1) or begin(self, *given, **options)
    )
    mean = federated_computation(at_clients(X))(lambda values: federated_mean(values))
    values = [np.full(1000, np.nan if i == 0 else 1, np.float32) for i in range(200)]
    engine = engines.device(clients_per_stack=2, workers=2, devices=jax.local_devices()[:1])
    with pytest.raises(NonFiniteError) as caught:
        mean(values, engine=engine)
    assert caught.value.__notes__ == ["at client '0'"]
    assert len(begun) < 20


class Dataset:
    """A named client, whose sequence tells a number of batches."""

    def __init__(self, client_id, elements, num_batches):
        self.client_id, self.elements, self.num_batches = client_id, elements, num_batches

    def __iter__(self):
        return iter(self.elements)


def test_a_sequence_without_a_length():
    """A stream that can be read once, and does not tell its length, is read once."""
    streams = [iter(values) for values in integers([3, 4])]
    summed, _ = totals(np.float32(0), streams, engine=engines.device())
    assert float(summed[0]) == 7


def test_a_sequence_that_tells_too_little():
    """More elements than announced would be lost; the error says whose and which way out there is."""
    cohort = [Dataset("honest", integers([2])[0], 2), Dataset("long", integers([5])[0], 2)]
    with pytest.raises(ArgumentError, match="more elements than the 2 .*num_batches or len") as caught:
        totals(np.float32(0), cohort, engine=engines.device())
    assert caught.value.__notes__ == ["at client 'long'"]


@pytest.mark.parametrize("codec", [codecs.uniform_quantization(4), codecs.auto(bits_per_parameter=2)])
def test_what_cannot_be_sent_is_named(codec):
    """A client whose update is not finite is named, whether it encodes with its stack or by itself."""
    mean = federated_computation(at_clients(X))(lambda values: federated_mean(values, codec=codec, label="update"))
    values = [np.ones(1000, np.float32) for _ in range(5)]
    values[3] = np.full(1000, np.nan, np.float32)
    with pytest.raises(NonFiniteError, match="update.*NaN or infinity") as caught:
        mean(values, key=0, engine=engines.device(clients_per_stack=2))
    assert caught.value.__notes__ == ["at client '3'"]


def test_values_beyond_a_codec_s_range_are_named():
    """A client whose values its codec cannot express is named."""
    codec = codecs.dithered(step=1e-9)
    mean = federated_computation(at_clients(X))(lambda values: federated_mean(values, codec=codec))
    values = [np.zeros(1000, np.float32), np.full(1000, 1e9, np.float32)]
    with pytest.raises(ArgumentError, match="beyond the range of its codec") as caught:
        mean(values, key=0, engine=engines.device())
    assert caught.value.__notes__ == ["at client '1'"]


def test_a_wrong_element_is_named():
    """A batch of another shape is refused, and its client named."""
    cohort = [[np.float32(1)], [np.zeros(2, np.float32)]]
    with pytest.raises(PlacementError, match=r"must be float32, got float32\[2\]") as caught:
        totals(np.float32(0), cohort, engine=engines.device())
    assert caught.value.__notes__ == ["at client '1'"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"clients_per_stack": 0}, ArgumentError, "clients_per_stack must be at least 1, got 0"),
        ({"clients_per_stack": 2.0}, ArgumentTypeError, "clients_per_stack must be a whole number, got 2.0"),
        ({"workers": 0}, ArgumentError, "workers must be at least 1, got 0"),
        ({"devices": []}, ArgumentError, "devices must be at least one, different, and of one kind, got "),
        ({"devices": jax.local_devices()[:1] * 2}, ArgumentError, "devices must be at least one, different"),
        ({"devices": ["cpu:0"]}, ArgumentTypeError, "devices must be JAX devices, .*, got 'cpu:0'"),
    ],
)
def test_unsuitable_arguments(arguments, error, message):
    """Arguments are checked, by name."""
    with pytest.raises(error, match=message):
        engines.device(**arguments)


def test_the_plan_covers_a_cohort_in_windows():
    """Positions are the cohort's, and no stack goes beyond a stretch of four full stacks."""
    engine = engines.device(clients_per_stack=2, devices=jax.local_devices()[:1])
    plan = engine.plan([3] * 20)
    assert sorted(position for stack in plan for position in stack.members) == list(range(20))
    assert all(len({position // 8 for position in stack.members}) == 1 for stack in plan)
    assert repr(engine) == f"engines.device(1 x {jax.default_backend()}, clients_per_stack=2)"


def test_four_devices_share_the_work():
    """On four devices a ragged cohort trains as on one, and cohorts that do not divide by four do."""
    script = Path(__file__).with_name("four_devices.py")
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "agreed\n"
