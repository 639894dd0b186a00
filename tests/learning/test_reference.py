"""The model travels as its difference from what clients hold."""

import hashlib
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from laconic import codecs, engines, learning
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError, NonFiniteError
from laconic.federated import at_clients, at_server, federated_computation
from laconic.learning import _reference

BATCH = 4


@pytest.fixture
def wide_model():
    """A model large enough for its codes to outweigh headers."""
    return learning.models.perceptron(6, (64, 64), 3)


def process_of(model, workers=1, **arguments):
    """FedAvg whose model travels as a difference."""
    return learning.fed_avg(
        model,
        optax.sgd(0.3),
        distributor=learning.reference_broadcast(**arguments),
        engine=engines.local(workers),
    )


def rounds(process, clients, count, seed=3):
    """The states before the first round and after each, and the rounds' results."""
    states, results = [process.initialize(seed=seed)], []
    cohort = clients.batched(BATCH).cohort(clients.client_ids)
    for _ in range(count):
        state, result = process.next(states[-1], cohort)
        states.append(state)
        results.append(result)
    return states, results


def flat(tree):
    """All entries as one vector of float64."""
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])


def test_first_round_sends_nothing_but_headers(model, clients):
    """Before training there is no difference: clients start from the initial model, bit for bit, for a few bytes."""
    process = process_of(model)
    (state, _), (result,) = rounds(process, clients, 1)
    jax.tree.map(np.testing.assert_array_equal, process.broadcast_weights(state), state.weights)
    assert result.traffic.broadcast_bytes <= 40 * len(clients)


@pytest.mark.parametrize("step_in_rms", [0.1, 1.0, 2.0])
def test_received_model(model, clients, step_in_rms):
    """It is on the grid around the reference, half a step from the server's at most; the step follows it."""
    process = process_of(model, step_in_rms=step_in_rms)
    states, _ = rounds(process, clients, 4)
    reference = flat(states[0].weights)
    for state in states[1:]:
        difference = flat(state.weights) - reference
        received = flat(process.broadcast_weights(state)) - reference
        wanted = step_in_rms * np.sqrt(np.mean(difference**2))
        codes = received[received != 0]
        step = np.abs(codes).min() if step_in_rms >= 1 else wanted
        multiples = codes / step
        if step_in_rms >= 1:
            assert 2**-0.27 <= step / wanted <= 2**0.27
            np.testing.assert_allclose(multiples, np.rint(multiples), atol=1e-3)
        assert np.abs(received - difference).max() <= 0.505 * 2**0.26 * wanted


def test_trains_like_fp32_with_a_fine_step(model, clients):
    """With steps that vanish, training is that of the uncompressed model."""
    plain = learning.fed_avg(model, optax.sgd(0.3))
    (*_, compressed), _ = rounds(process_of(model, step_in_rms=1e-4), clients, 5)
    (*_, exact), _ = rounds(plain, clients, 5)
    np.testing.assert_allclose(flat(compressed.weights), flat(exact.weights), atol=2e-4)


def test_learns_with_a_coarse_step(model, clients):
    """With two root mean squares a step, accuracy rises as it should, for few bytes even in a tiny model."""
    process = process_of(model, step_in_rms=2.0)
    states, results = rounds(process, clients, 40)
    assert results[-1].metrics["accuracy"] > 0.8 > results[0].metrics["accuracy"] + 0.1
    down = [result.traffic.broadcast_bytes for result in results]
    headers = down[0]  # of a round without a difference
    assert max(down) - headers < 4 * flat(states[0].weights).size * len(clients) / 8


def test_any_number_of_workers_gives_the_same_bits(model, clients):
    """As everywhere."""
    (*_, first), _ = rounds(process_of(model), clients, 3)
    (*_, second), _ = rounds(process_of(model, workers=3), clients, 3)
    jax.tree.map(np.testing.assert_array_equal, first.weights, second.weights)


def test_reference_of_ones_own(model, clients):
    """A named model that clients hold takes the place of the initial one; it must fit."""
    installed = model.init(codecs.random.key(77))
    process = process_of(model, reference=installed, step_in_rms=0.5)
    (state, after), (result,) = rounds(process, clients, 1)
    received = flat(process.broadcast_weights(state))
    assert np.abs(received - flat(state.weights)).max() > 0
    assert result.traffic.broadcast_bytes > 50 * len(clients)
    assert np.all(np.isfinite(flat(after.weights)))
    with pytest.raises(ArgumentError, match="reference must be .*, like the model"):
        process_of(model, reference={"other": jnp.zeros(3)}).initialize(seed=0)


def test_a_client_refuses_another_reference(model):
    """The fingerprint tells: never a wrong model."""
    weights, other = model.init(codecs.random.key(1)), model.init(codecs.random.key(2))
    codes = jax.tree.map(lambda w: jnp.ones(w.shape, jnp.int16), weights)
    print_ = learning.fingerprint(weights)
    message = learning.ReferenceMessage(codes, jnp.float32(0.5), print_, np.int32(0), np.int32(-1))
    rebuilt = learning.HeldReference(weights).rebuild(message)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b + np.float32(0.5)), rebuilt, weights)
    with pytest.raises(DecodeError, match="for the reference [0-9a-f]{16}, but this client holds"):
        learning.HeldReference(other).rebuild(message)


def test_fingerprint_as_specified():
    """It is the first eight bytes of a hash over names, shapes, dtypes and numbers, as docs/wire-format.md says."""
    weights = {"b": np.arange(3, dtype=np.float32), "a": {"k": np.ones((2, 1), np.float32)}}
    hashed = b"a/k\0002,1\0float32\0" + np.ones(2, "<f4").tobytes()
    hashed += b"b\0003\0float32\0" + np.arange(3, dtype="<f4").tobytes()
    assert learning.fingerprint(weights).astype("<u4").tobytes() == hashlib.sha256(hashed).digest()[:8]


def test_fingerprint():
    """It depends on values, shapes, dtypes and names, and on nothing else."""
    base = {"a": np.arange(6, dtype=np.float32)}
    print_ = learning.fingerprint(base)
    assert print_.dtype == np.uint32
    assert print_.shape == (2,)
    np.testing.assert_array_equal(print_, learning.fingerprint({"a": jnp.arange(6.0)}))
    np.testing.assert_array_equal(print_, learning.fingerprint({"a": np.arange(12, dtype=np.float32)[:6]}))
    for other in (
        {"b": base["a"]},
        {"a": base["a"].reshape(2, 3)},
        {"a": base["a"].astype(np.float64)},
        {"a": base["a"] + 1},
    ):
        assert not np.array_equal(print_, learning.fingerprint(other))


def test_scales():
    """Models of tiny and of huge weights are sent as well as others."""
    for scale in (1e-30, 1.0, 1e30):
        distributor = learning.reference_broadcast(step_in_rms=0.5)
        reference = {"w": np.float32(scale) * np.ones((3, 4), np.float32), "b": np.zeros(0, np.float32)}
        state = distributor.initialize(reference)
        moved = {"w": reference["w"] * np.linspace(0, 2, 12, dtype=np.float32).reshape(3, 4), "b": reference["b"]}
        received = distributor.received(state, moved)
        assert (
            np.abs(received["w"] - moved["w"]).max() <= 0.36 * scale
        )  # half of 0.5 root mean squares, each 1.2 of the scale, and a quarter octave


def test_step_by_a_schedule(model, clients):
    """A schedule that is constant trains as its constant does; another one is asked for each broadcast's number."""
    (*_, constant), _ = rounds(process_of(model, step_in_rms=0.5), clients, 3)
    (*_, scheduled), _ = rounds(process_of(model, step_in_rms=optax.constant_schedule(0.5)), clients, 3)
    jax.tree.map(np.testing.assert_array_equal, constant.weights, scheduled.weights)
    process = process_of(model, step_in_rms=optax.exponential_decay(4.0, transition_steps=1, decay_rate=0.25))
    states, _ = rounds(process, clients, 4)
    for number, state in enumerate(states[1:], start=1):
        difference, received = (
            flat(weights) - flat(states[0].weights) for weights in (state.weights, process.broadcast_weights(state))
        )
        step = 4.0 * 0.25**number * np.sqrt(np.mean(difference**2))
        codes = (received - difference) / step
        assert np.abs(codes).max() <= 0.505 * 2**0.26
        assert number > 2 or np.abs(codes).max() > 0.3


@pytest.mark.parametrize("nmse", [0.01, 0.3])
def test_codec_that_promises_an_error(wide_model, clients, nmse):
    """What clients receive has this error, drawn anew each round, for fewer bytes; the server's model is the one."""
    process = process_of(wide_model, codec=codecs.auto(nmse=nmse))
    states, results = rounds(process, clients, 3)
    down = [result.traffic.broadcast_bytes for result in results]
    weights = states[-1].weights
    assert down[0] < 60 * len(clients)
    assert max(down) < 4 * flat(weights).size * len(clients) / 4
    jax.tree.map(np.testing.assert_array_equal, process.broadcast_weights(states[-1]), weights)

    distributor = learning.reference_broadcast(codec=codecs.auto(nmse=nmse))
    state = states[-1].distributor

    @federated_computation(at_server(state), at_server(weights), at_clients(jnp.float32))
    def received(state, weights, who):
        return distributor.next(state, weights)[1]

    difference = flat(weights) - flat(states[0].weights)
    errors = []
    for seed in range(30):
        (at_client,) = received.run(state, weights, [np.float32(0)], key=seed).result
        errors.append(np.mean((flat(at_client) - flat(weights)) ** 2) / np.mean(difference**2))
    np.testing.assert_allclose(np.mean(errors), nmse, rtol=0.1)
    assert len(set(errors)) > 20


def test_codec_for_each_tensor(model, clients):
    """A function is asked by the model's own names; a tree of codecs serves, too; adaptive ones keep their state."""
    asked = set()

    def choose(spec):
        asked.add(spec.name)
        return codecs.dithered(step_in_rms=0.01) if len(spec.shape) > 1 else codecs.identity()

    (*_, chosen), _ = rounds(process_of(model, codec=choose), clients, 3)
    assert asked == {spec.name for spec in codecs.bind(codecs.identity(), chosen.weights).specs}
    (*_, exact), _ = rounds(learning.fed_avg(model, optax.sgd(0.3)), clients, 3)
    np.testing.assert_allclose(flat(chosen.weights), flat(exact.weights), atol=0.01)
    tree = jax.tree.map(lambda leaf: choose(codecs.TensorSpec("", leaf.shape, leaf.dtype)), exact.weights)
    (*_, same), _ = rounds(process_of(model, codec=tree), clients, 3)
    jax.tree.map(np.testing.assert_array_equal, chosen.weights, same.weights)
    adaptive = codecs.concatenate(codecs.adaptive(decay=0.5, initial_step=0.1))
    states, _ = rounds(process_of(model, codec=adaptive), clients, 3)
    np.testing.assert_allclose(jax.tree.leaves(states[-1].distributor.codec), [0.1 * 0.5**3], rtol=1e-6)


def test_a_codec_is_given_root_mean_squares():
    """Of all tensors together: a step is common to them however far they moved, and nothing is added to no change."""
    generator = np.random.default_rng(0)
    reference = {"large": np.ones((40, 50), np.float32), "small": np.ones(30, np.float32)}
    codec = codecs.dithered(step=0.5)
    for size in (0.0, 1e-12, 1e-3, 1e4):
        change = {"large": 3 * size, "small": 0.01 * size}
        weights = {
            name: (reference[name] + generator.normal(size=reference[name].shape) * change[name]).astype(np.float32)
            for name in reference
        }
        distributor = learning.reference_broadcast(codec=codec)
        state = distributor.initialize(reference)

        @federated_computation(at_server(state), at_server(weights), at_clients(jnp.float32))
        def received(state, weights, who, distributor=distributor):
            return distributor.next(state, weights)[1]

        (at_client,) = received.run(state, weights, [np.float32(0)], key=0).result
        error = flat(at_client) - flat(weights)
        rms = np.sqrt(np.mean((flat(weights) - flat(reference)) ** 2))
        assert np.abs(error).max() <= 0.25 * rms * (1 + 1e-5) + 1e-6 * np.abs(flat(weights)).max()
        for name in reference if size > 1e-6 else ():
            np.testing.assert_allclose(np.std(at_client[name] - weights[name]), 0.5 * rms / 12**0.5, rtol=0.3)


def test_a_client_refuses_a_difference_from_another_reference(model):
    """As with codes."""
    weights, other = model.init(codecs.random.key(1)), model.init(codecs.random.key(2))
    message = _reference._difference(weights, learning.fingerprint(weights), other)
    rebuilt = learning.HeldReference(weights).rebuild(message)
    np.testing.assert_allclose(flat(rebuilt), flat(other), atol=1e-6)
    with pytest.raises(DecodeError, match="for the reference [0-9a-f]{16}, but this client holds"):
        learning.HeldReference(other).rebuild(message)


@pytest.mark.parametrize("step_in_rms", [1e-12, 1e-6])
def test_steps_are_not_finer_than_floats(step_in_rms):
    """However fine a step is asked for, what is received is as near as float32 allows, and not a saturated code."""
    distributor = learning.reference_broadcast(step_in_rms=step_in_rms)
    reference = {"w": np.zeros((64, 64), np.float32)}
    weights = {"w": np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)}
    received = distributor.received(distributor.initialize(reference), weights)
    np.testing.assert_allclose(received["w"], weights["w"], atol=4 * max(step_in_rms, 2.0**-22))


@pytest.mark.parametrize("codec", [None, codecs.dithered(step_in_rms=1.0)], ids=["nearest", "dithered"])
def test_one_weight_that_is_not_finite_does_not_travel(codec, clients):
    """NaN or infinity anywhere in a large model is an error, and not a code or a silent zero."""
    arguments = {} if codec is None else {"codec": codec}
    process = process_of(learning.models.perceptron(6, (100, 100), 3), **arguments)
    states, _ = rounds(process, clients, 1)
    cohort = clients.batched(BATCH).cohort(clients.client_ids)
    for bad, place in ((np.nan, 5), (np.nan, 9_999), (np.inf, 5_000)):
        kernel = np.array(states[-1].weights["dense2"]["kernel"])
        kernel.flat[place] = bad
        weights = states[-1].weights | {"dense2": {**states[-1].weights["dense2"], "kernel": kernel}}
        with pytest.raises(NonFiniteError):
            process.next(states[-1]._replace(weights=weights), cohort)


def test_a_schedule_that_ends_at_zero_is_refused(model, clients):
    """Rather than send a model that is none."""
    process = process_of(model, step_in_rms=optax.linear_schedule(1.0, 0.0, transition_steps=2))
    with pytest.raises(NonFiniteError, match="step"):
        rounds(process, clients, 3)


def test_a_model_of_one_array():
    """It travels through the codec, too."""
    distributor = learning.reference_broadcast(codec=codecs.dithered(step_in_rms=0.5))
    state = distributor.initialize(np.zeros(50_000, np.float32))
    weights = np.random.default_rng(0).normal(size=50_000).astype(np.float32)

    @federated_computation(at_server(state), at_server(weights), at_clients(jnp.float32))
    def received(state, weights, who):
        return distributor.next(state, weights)[1]

    run = received.run(state, weights, [np.float32(0)], key=0)
    assert np.abs(run.result[0] - weights).max() < 0.3
    assert run.traffic.broadcast_bytes < weights.nbytes / 8


def test_references_that_are_no_reference():
    """Models that do not fit, hold NaN, or hold nothing are refused in one sentence."""
    weights = {"w": np.ones((3, 4), np.float32)}
    for reference, message in (
        ({"w": np.full((3, 4), np.nan, np.float32)}, "reference must be finite"),
        ({"w": np.ones((4, 3), np.float32)}, "reference must be .*, like the model"),
        ({"v": np.ones((3, 4), np.float32)}, "reference must be .*, like the model"),
    ):
        with pytest.raises(ArgumentError, match=message):
            learning.reference_broadcast(reference=reference).initialize(weights)
    with pytest.raises(ArgumentError, match="at least one tensor, got none"):
        learning.reference_broadcast().initialize({})


def test_a_reference_of_float64(model):
    """NumPy's default is the same reference at both ends: what JAX makes of it."""
    reference = {"w": np.linspace(0, 1, 12).reshape(3, 4)}
    state = learning.reference_broadcast(reference=reference).initialize({"w": np.ones((3, 4), np.float32)})
    message = _reference._difference(state.reference, state.fingerprint, state.reference)
    rebuilt = learning.HeldReference(reference).rebuild(message)
    np.testing.assert_array_equal(rebuilt["w"], reference["w"].astype(np.float32))


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
@pytest.mark.parametrize(
    ("then", "now"), [(1.0, 1.0), (1.0, 0.70703125), (3e-5, 1.0), (1.0, 2.0**-19), (1.0, 2.0**-60)]
)
def test_predicted_codes(dtype, then, now):
    """Codes at another step, to the nearest; exactly themselves at the same; zero where they would leave 32 bits."""
    then, now = (np.float32(jnp.asarray(each, jnp.bfloat16)) for each in (then, now))
    most = 2**15 - 1 if dtype == np.int16 else 2**22
    codes = np.array([0, 1, -1, 2, -3, 100, -1000, most, -most], dtype)
    earlier = learning.ReferenceMessage({"w": codes}, then, np.zeros(2, np.uint32), np.int32(0), np.int32(-1))
    predicted = np.asarray(_reference.predicted_codes(earlier, now)["w"])
    assert predicted.dtype == dtype
    exact = np.floor(codes.astype(object) * Fraction(float(then)) / Fraction(float(now)) + Fraction(1, 2))
    expected = np.array([int(each) for each in exact], object)
    for found, wanted, code in zip(predicted, expected, codes, strict=True):
        wrapped = (int(wanted) + 2**31) % 2**32 - 2**31
        as_dtype = np.array([wrapped]).astype(dtype)[0]
        if then == now:
            assert found == code
        elif max(abs(code), abs(wanted)) < 2**20 and abs(np.log2(then / now)) < 19:
            assert found == as_dtype
        else:
            assert found in (as_dtype, 0)


def test_rejects():
    """Steps that are none, a codec beside what it stands for, and models of integers."""
    with pytest.raises(ArgumentError, match="step_in_rms must be left out, got 2.0"):
        learning.reference_broadcast(codec=codecs.identity(), step_in_rms=2.0)
    with pytest.raises(ArgumentError, match="with a codec cached_rounds must be 0, got 3"):
        learning.reference_broadcast(codec=codecs.identity(), cached_rounds=3)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ArgumentError, match="step_in_rms must be a finite number above zero"):
            learning.reference_broadcast(step_in_rms=wrong)
    with pytest.raises(ArgumentTypeError, match="step_in_rms must be a number"):
        learning.reference_broadcast(step_in_rms="2")
    with pytest.raises(ArgumentTypeError, match="models of floats only, got a int32"):
        learning.reference_broadcast().initialize({"w": np.zeros(2, np.int32)})


def test_any_earlier_message_and_the_difference_make_the_later_one(model, clients):
    """From every s to every t, bit for bit, also where the step has changed in between."""
    process = process_of(model, step_in_rms=1.0, cached_rounds=100)
    states, _ = rounds(process, clients, 7)
    messages = [_reference._quantized(state.distributor, state.weights, 1.0) for state in states]
    assert len({float(message.step) for message in messages}) > 2
    for s, earlier in enumerate(messages):
        for later in messages[s + 1 :]:
            device = learning.HeldReference(states[0].weights)
            device.rebuild(earlier)
            received = device.rebuild(_reference._since(later, earlier))
            whole = learning.HeldReference(states[0].weights).rebuild(later)
            jax.tree.map(np.testing.assert_array_equal, received, whole)
    assert [int(message.number) for message in messages] == list(range(8))


def test_a_client_refuses_what_it_cannot_use(model):
    """A difference from a message that it does not hold."""
    weights = model.init(codecs.random.key(1))
    codes = jax.tree.map(lambda w: jnp.ones(w.shape, jnp.int16), weights)
    print_ = learning.fingerprint(weights)
    first = learning.ReferenceMessage(codes, jnp.float32(0.5), print_, np.int32(4), np.int32(-1))
    later = first._replace(number=np.int32(6), since=np.int32(5))
    device = learning.HeldReference(weights)
    with pytest.raises(DecodeError, match="that hold message 5, but this client holds none"):
        device.rebuild(later)
    device.rebuild(first)
    with pytest.raises(DecodeError, match="that hold message 5, but this client holds message 4"):
        device.rebuild(later)
    device.rebuild(later._replace(since=np.int32(4)))


def test_cached_clients(wide_model, clients):
    """Training is the same bits; who returns in time is sent less; each client's bytes are counted by themselves."""
    plain = process_of(wide_model, step_in_rms=0.5)
    caching = process_of(wide_model, step_in_rms=0.5, cached_rounds=3)
    states = [plain.initialize(seed=1), caching.initialize(seed=1)]
    everybody, first, others = clients.client_ids, clients.client_ids[:1], clients.client_ids[1:]
    down = []
    for ids in (everybody, everybody, others, others, others, everybody):
        cohort = clients.batched(BATCH).cohort(ids)
        (a, full), (b, fewer) = (
            process.next(state, cohort, per_client_traffic=True)
            for process, state in zip((plain, caching), states, strict=True)
        )
        states = [a, b]
        jax.tree.map(np.testing.assert_array_equal, a.weights, b.weights)
        down.append({name: (full.traffic.clients[name][0], fewer.traffic.clients[name][0]) for name in ids})
        assert sum(each for _, each in down[-1].values()) == fewer.traffic.broadcast_bytes
    assert all(own[0] == own[1] for own in down[0].values())  # nobody holds anything yet
    assert all(own[1] < own[0] for own in down[3].values())
    assert down[5][first[0]][1] == down[5][first[0]][0]  # the last time is more than three rounds ago
    assert all(down[5][name][1] < down[5][name][0] for name in others)
    forgetful = caching.without_memories(states[1], first)
    assert set(forgetful.caches["held"]) == set(others)
    assert not caching.without_memories(states[1]).caches
    held = states[1].caches
    assert set(held["held"]) == set(everybody)
    assert set(held["broadcasts"]) == {"5"}
    assert not states[0].caches


def test_caching_rejects():
    """Rounds that are no number of rounds."""
    with pytest.raises(ArgumentError, match="cached_rounds must not be negative"):
        learning.reference_broadcast(cached_rounds=-1)
    with pytest.raises(ArgumentTypeError, match="cached_rounds must be a whole number"):
        learning.reference_broadcast(cached_rounds=1.5)
