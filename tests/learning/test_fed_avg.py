"""Federated Averaging, against its definition written out in NumPy and plain JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from laconic import codecs, data, engines, learning
from laconic.errors import ArgumentError, ArgumentTypeError, PlacementError
from laconic.federated import SequenceOf

from .conftest import CLASSES, FEATURES, make_clients

BATCH = 4


def cohort(clients, ids=None, epochs=1):
    """The batches of some clients, in their own order."""
    return clients.batched(BATCH, epochs=epochs).cohort(clients.client_ids if ids is None else ids)


def process_of(model, **arguments):
    """FedAvg with plain SGD."""
    return learning.fed_avg(model, client_optimizer=optax.sgd(0.3), server_optimizer=optax.sgd(1.0), **arguments)


def trained_by_hand(model, weights, examples):
    """One pass of SGD over unpadded batches."""

    def loss(weights, x, y):
        return model.loss(model.predict(weights, x), y).mean()

    for start in range(0, len(examples["y"]), BATCH):
        rows = slice(start, start + BATCH)
        gradient = jax.grad(loss)(weights, examples["x"][rows], examples["y"][rows])
        weights = jax.tree.map(lambda w, g: w - 0.3 * g, weights, gradient)
    return weights


def assert_trees_close(found, expected, **tolerance):
    """Compares trees leaf by leaf."""
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, **(tolerance or {"rtol": 2e-4, "atol": 2e-6}))


def test_a_round_is_the_weighted_mean_of_local_training(model, clients):
    """Padded and masked batches, broadcast, mean and server step give what the algorithm says (McMahan et al. 2017)."""
    process = process_of(model)
    state = process.initialize(seed=0)
    trained = [trained_by_hand(model, state.weights, clients[name]) for name in clients.client_ids]
    sizes = [clients.num_examples(name) for name in clients.client_ids]
    expected = jax.tree.map(lambda *leaves: np.average(leaves, axis=0, weights=sizes), *trained)
    after, result = process.next(state, cohort(clients))
    assert_trees_close(process.model_weights(after), expected)
    assert (result.clients, result.left_out) == (5, 0)
    assert int(after.round_number) == 1


@pytest.mark.parametrize(
    ("weighting", "weights_of"),
    [("uniform", lambda n: 1.0), ("examples", lambda n: n), (lambda examples, metrics: examples**2, lambda n: n**2)],
)
def test_weighting(model, clients, weighting, weights_of):
    """Clients count by examples, all alike, or as a function says."""
    process = process_of(model, weighting=weighting)
    state = process.initialize(seed=0)
    trained = [trained_by_hand(model, state.weights, clients[name]) for name in clients.client_ids]
    counts = [weights_of(clients.num_examples(name)) for name in clients.client_ids]
    expected = jax.tree.map(lambda *leaves: np.average(leaves, axis=0, weights=counts), *trained)
    assert_trees_close(process.next(state, cohort(clients))[0].weights, expected)


def test_metrics_are_over_all_examples_of_the_round(model, clients):
    """Training metrics are those of predictions before each step; with no learning they are the initial model's."""
    process = learning.fed_avg(model, client_optimizer=optax.sgd(0.0))
    state = process.initialize(seed=1)
    _, result = process.next(state, cohort(clients))
    everything = clients.examples()
    outputs = model.predict(state.weights, everything["x"])
    assert result.metrics["accuracy"] == pytest.approx(np.mean(outputs.argmax(axis=1) == everything["y"]))
    assert result.metrics["loss"] == pytest.approx(float(model.loss(outputs, everything["y"]).mean()), rel=1e-5)


def test_each_client_starts_with_a_fresh_optimizer(model, clients):
    """Momentum does not leak between clients or rounds: a client's update does not depend on who else takes part."""
    process = learning.fed_avg(model, client_optimizer=optax.sgd(0.1, momentum=0.9))
    state = process.initialize(seed=0)
    alone, _ = process.next(state, cohort(clients, ["client3"]))
    again, _ = process.next(process.with_model_weights(alone, state.weights), cohort(clients, ["client3"]))
    assert_trees_close(alone.weights, again.weights, rtol=0)


def test_the_server_optimizer_takes_the_negated_mean_as_a_gradient(model, clients):
    """A server step of half the size goes half the way; Adam keeps its state from round to round."""
    whole, half = process_of(model), learning.fed_avg(model, optax.sgd(0.3), optax.sgd(0.5))
    state = whole.initialize(seed=0)
    step = jax.tree.map(jnp.subtract, whole.next(state, cohort(clients))[0].weights, state.weights)
    expected = jax.tree.map(lambda w, d: w + 0.5 * d, state.weights, step)
    assert_trees_close(half.next(half.initialize(seed=0), cohort(clients))[0].weights, expected)

    adam = learning.fed_avg(model, optax.sgd(0.3), optax.adam(0.01))
    after, _ = adam.next(adam.initialize(seed=0), cohort(clients))
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), after.weights, state.weights)
    assert max(map(float, jax.tree.leaves(moved))) == pytest.approx(0.01, rel=1e-3)
    assert int(after.finalizer[0].count) == 1


def test_padding_changes_nothing(model):
    """A short last batch gives the same update as the same examples in a batch that just fits."""
    clients = make_clients([3])
    process = process_of(model)
    state = process.initialize(seed=0)
    padded, _ = process.next(state, clients.batched(4).cohort(["client0"]))
    exact, _ = process.next(state, clients.batched(3).cohort(["client0"]))
    assert_trees_close(padded.weights, exact.weights, rtol=1e-5, atol=1e-7)


def test_the_same_seed_gives_the_same_bits_for_any_number_of_workers(model, clients):
    """Three rounds with stochastic codecs both ways, on 1, 2 and 4 workers."""
    codec = codecs.uniform_quantization(4)
    ends = []
    for workers in (1, 2, 4):
        process = process_of(
            model,
            distributor=learning.encoded_broadcast(codec),
            aggregator=learning.encoded_mean(codec),
            engine=engines.local(workers=workers),
        )
        state = process.initialize(seed=7)
        for _ in range(3):
            state, _ = process.next(state, cohort(clients))
        ends.append(state)
    for other in ends[1:]:
        assert_trees_close(other, ends[0], rtol=0)


def test_seeds_matter(model, clients):
    """Another seed gives another model and other rounding."""
    process = process_of(model, aggregator=learning.encoded_mean(codecs.uniform_quantization(2)))
    first, second = process.initialize(seed=0), process.initialize(seed=1)
    assert not np.array_equal(first.weights["dense1"]["kernel"], second.weights["dense1"]["kernel"])
    other_key = first._replace(key=second.key)
    one, _ = process.next(first, cohort(clients))
    two, _ = process.next(other_key, cohort(clients))
    assert not np.array_equal(one.weights["dense1"]["kernel"], two.weights["dense1"]["kernel"])


def test_rounds_round_apart(model, clients):
    """The same work in another round draws other numbers, or errors would correlate over rounds."""
    process = process_of(model, aggregator=learning.encoded_mean(codecs.uniform_quantization(2)))
    state = process.initialize(seed=0)
    later = state._replace(round_number=np.int32(5))
    one, _ = process.next(state, cohort(clients))
    two, _ = process.next(later, cohort(clients))
    assert not np.array_equal(one.weights["dense1"]["kernel"], two.weights["dense1"]["kernel"])


def test_state_is_not_changed(model, clients):
    """`next` is a function: the state it was given can be used again."""
    process = process_of(model)
    state = process.initialize(seed=0)
    before = jax.tree.map(np.array, state)
    one, _ = process.next(state, cohort(clients))
    two, _ = process.next(state, cohort(clients))
    assert_trees_close(state, before, rtol=0)
    assert_trees_close(one, two, rtol=0)


def test_a_client_whose_update_is_not_finite_is_left_out_and_counted(model, clients):
    """NaN in one client's data spoils neither the model nor the metrics, and the result says so."""
    poisoned = {name: dict(clients[name]) for name in clients.client_ids}
    poisoned["client2"]["x"] = np.full_like(poisoned["client2"]["x"], np.nan)
    bad, good = data.from_arrays(poisoned), clients.select([f"client{i}" for i in (0, 1, 3, 4)])
    process = process_of(model)
    state = process.initialize(seed=0)
    with_bad, result = process.next(state, cohort(bad))
    without, expected = process.next(state, cohort(good))
    assert (result.clients, result.left_out) == (5, 1)
    assert_trees_close(with_bad.weights, without.weights, rtol=1e-6)
    assert result.metrics == pytest.approx(expected.metrics)


def test_a_cohort_that_is_left_out_whole_changes_nothing(model, clients):
    """With no finite update at all the model stays as it is."""
    poisoned = data.from_arrays(
        {name: {"x": clients[name]["x"] * np.nan, "y": clients[name]["y"]} for name in clients.client_ids}
    )
    process = process_of(model)
    state = process.initialize(seed=0)
    after, result = process.next(state, cohort(poisoned))
    assert result.left_out == 5
    assert_trees_close(after.weights, state.weights, rtol=0)


def test_a_negative_weight_leaves_the_client_out(model, clients):
    """A weighting function cannot make updates count against each other."""
    process = process_of(model, weighting=lambda examples, metrics: jnp.where(examples > 6, examples, -examples))
    state = process.initialize(seed=0)
    _, result = process.next(state, cohort(clients))
    assert result.left_out == 2


def test_traffic_of_a_round(model, clients):
    """Down the model, up the update, a weight and two metrics of two sums each; everything named."""
    process = process_of(model)
    _, result = process.next(process.initialize(seed=0), cohort(clients), per_client_traffic=True)
    parameters = FEATURES * 8 + 8 + 8 * CLASSES + CLASSES
    assert result.traffic.by("direction", "kind") == {
        ("broadcast", "payload"): 5 * 4 * parameters,
        ("broadcast", "framing"): 5 * 8,
        ("aggregate", "payload"): 5 * 4 * parameters,
        ("aggregate", "weights"): 5 * 4,
        ("aggregate", "metrics"): 5 * 16,
        ("aggregate", "framing"): 5 * 8,
    }
    assert set(result.traffic.clients) == set(clients.client_ids)


def test_a_codec_in_the_encoded_domain(model, clients):
    """With a given range the server adds integer codes, and the mean is as close as the step allows."""
    codec = codecs.uniform_quantization(12, value_range=(-64, 64))
    process = process_of(model, aggregator=learning.encoded_mean(codec))
    plain = process_of(model)
    state = process.initialize(seed=0)
    coded, exact = (p.next(state, cohort(clients))[0].weights for p in (process, plain))
    step = 128 / (2**12 - 1)
    assert_trees_close(coded, exact, rtol=0, atol=5 * step / sum(map(clients.num_examples, clients.client_ids)))


def test_training_learns(model):
    """Twenty rounds of 8-bit FedAvg separate what is separable."""
    clients = make_clients([30] * 6)
    codec = codecs.uniform_quantization(8)
    process = process_of(model, distributor=learning.encoded_broadcast(codec), aggregator=learning.encoded_mean(codec))
    state = process.initialize(seed=0)
    train = clients.batched(10, epochs=2, shuffle=True)
    for round_number in range(20):
        state, _ = process.next(state, train.sample(3, seed=0, round_number=round_number))
    metrics = learning.evaluation(model).central(state.weights, data.batches(clients.examples(), 50))
    assert metrics["accuracy"] > 0.9


def test_the_round_is_a_federated_computation(model, clients):
    """It is written in the language, so it shows its type."""
    process = process_of(model)
    state = process.initialize(seed=0)
    signature = process.computation(state, SequenceOf(clients.batched(BATCH).batch_spec)).type_signature
    assert "{<x=float32[4,6],y=int32[4],mask=float32[4]>*}@CLIENTS" in signature


def test_parts_can_be_replaced(model, clients):
    """`compose` takes four parts; a distributor of one's own that halves the model halves what clients receive."""
    from laconic.federated import federated_broadcast, federated_map

    def halved(state, weights):
        return state, federated_broadcast(federated_map(lambda tree: jax.tree.map(lambda w: w / 2, tree), weights))

    process = learning.compose(
        learning.Distributor(lambda weights: (), halved),
        learning.local_training(model, optax.sgd(0.0)),
        learning.encoded_mean(),
        learning.server_optimizer(optax.sgd(1.0)),
    )
    state = process.initialize(seed=0)
    _, result = process.next(state, cohort(clients))
    half = jax.tree.map(lambda w: w / 2, state.weights)
    everything = clients.examples()
    expected = model.loss(model.predict(half, everything["x"]), everything["y"]).mean()
    assert result.metrics["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_model_weights_can_be_set(model):
    """Other weights go in only if they fit."""
    process = process_of(model)
    state = process.initialize(seed=0)
    zeros = jax.tree.map(np.zeros_like, state.weights)
    assert not np.any(process.model_weights(process.with_model_weights(state, zeros))["dense1"]["kernel"])
    with pytest.raises(ArgumentError, match="weights must be <dense1="):
        process.with_model_weights(state, zeros["dense1"])


def test_a_model_with_randomness_draws_apart(clients):
    """A model's training key differs by client, step and round, and a masked row never matters."""
    seen = []

    def noisy(weights, x, key):
        jax.debug.callback(lambda k: seen.append(tuple(np.asarray(k))), key)
        return x @ weights

    model = learning.Model(
        init=lambda key: jnp.zeros((FEATURES, CLASSES)),
        predict=lambda weights, x: x @ weights,
        loss=optax.losses.softmax_cross_entropy_with_integer_labels,
        predict_train=noisy,
    )
    process = learning.fed_avg(model, optax.sgd(0.1), engine=engines.local(workers=1))
    state = process.initialize(seed=0)
    for _ in range(2):
        state, _ = process.next(state, cohort(clients))
    jax.effects_barrier()
    batches = sum(-(-clients.num_examples(name) // BATCH) for name in clients.client_ids)
    assert len(set(seen)) == 2 * batches


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: learning.fed_avg("cnn", optax.sgd(1.0)), "model must be a learning.Model, got 'cnn' of type str"),
        (lambda m: learning.fed_avg(m, 0.1), "client_optimizer must be an optax.GradientTransformation"),
        (lambda m: learning.fed_avg(m, optax.sgd(1.0), 1.0), "server_optimizer must be an optax"),
        (lambda m: learning.fed_avg(m, optax.sgd(1.0), weighting="size"), "weighting must be 'examples', 'uniform' or"),
        (lambda m: learning.fed_avg(m, optax.sgd(1.0), distributor=3), "distributor must be a learning.Distributor"),
        (lambda m: process_of(m).initialize(seed=-1), "seed must lie in"),
        (lambda m: process_of(m).initialize(seed="zero"), "seed must be an integer, got 'zero'"),
    ],
)
def test_bad_arguments(model, make, message):
    """Each mistake is named in one sentence."""
    with pytest.raises((ArgumentError, ArgumentTypeError), match=message):
        make(model)


def test_bad_cohorts(model, clients):
    """An empty cohort, unbatched clients and clients with unlike batches are refused."""
    process = process_of(model)
    state = process.initialize(seed=0)
    with pytest.raises(ArgumentError, match="at least one client, got none; sample some"):
        process.next(state, [])
    with pytest.raises(ArgumentTypeError, match=r"make them with ClientData.batched\(...\)"):
        process.next(state, [clients["client0"]])
    unlike = [*cohort(clients, ["client0"]), *clients.batched(7).cohort(["client1"])]
    with pytest.raises(ArgumentError, match="must be of one type, got .* from 'client0' and .* from 'client1'"):
        process.next(state, unlike)


def test_data_that_does_not_fit_the_model(clients):
    """The error names the types of the values that the client work was built on."""
    process = process_of(learning.models.perceptron(FEATURES + 1))
    with pytest.raises(PlacementError, match=r"client work does not take .*<x=float32\[4,6\].*: dot_general"):
        process.next(process.initialize(seed=0), cohort(clients))
