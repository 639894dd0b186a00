"""Error feedback: what is lost comes later, memories stay bounded, and both ends agree."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from codec_support import Custom, same_bits

from laconic import codecs
from laconic.codecs import EF21, ErrorFeedback, Shrink, error_feedback, memory_norm
from laconic.errors import ArgumentError, ArgumentTypeError
from laconic.testing import check_stage

KEY = codecs.random.key(0)
GAUSSIAN = np.random.default_rng(0).standard_normal((200, 64), dtype=np.float32)


@codecs.register
@dataclasses.dataclass(frozen=True)
class Largest(Custom):
    """The entry of largest magnitude and zeros: biased, contractive with c = 1 - 1 / d."""

    name: ClassVar[str] = "ef_test.largest"

    def encode(self, key, x, parameters):
        flat = x.reshape(-1)
        return {"values": jnp.where(jnp.arange(flat.size) == jnp.argmax(jnp.abs(flat)), flat, 0).astype(x.dtype)}


@codecs.register
@dataclasses.dataclass(frozen=True)
class MeanSign(Custom):
    """Signs times the mean magnitude: biased, contractive."""

    name: ClassVar[str] = "ef_test.mean_sign"

    def encode(self, key, x, parameters):
        flat = x.reshape(-1)
        return {"values": jnp.sign(flat) * jnp.mean(jnp.abs(flat))}


@codecs.register
@dataclasses.dataclass(frozen=True)
class Sampled(Custom):
    """Each entry times `1 / share` with probability `share`, else zero: unbiased, nmse 1 / share - 1."""

    name: ClassVar[str] = "ef_test.sampled"
    share: float = 0.2
    grows: bool = False

    @property
    def is_unbiased(self):
        return True

    @property
    def is_stochastic(self):
        return True

    def expected_nmse(self, size):
        return float(size) if self.grows else 1 / self.share - 1

    def encode(self, key, x, parameters):
        flat = x.reshape(-1)
        return {"values": jnp.where(codecs.random.uniform(key, flat.shape) < self.share, flat / self.share, 0)}


@codecs.register
@dataclasses.dataclass(frozen=True)
class Change(Custom):
    """What has changed since the last encoding, which is no use to anyone; it remembers."""

    name: ClassVar[str] = "ef_test.change"

    def initial_memory(self, spec):
        return {"last": jnp.zeros(spec.shape, spec.dtype)}

    def encode_remembering(self, key, x, parameters, memory):
        return {"values": x - memory["last"] / 2}

    def update_memory(self, memory, x, received):
        return {"last": x}


def memory_norms(codec, inputs):
    """Of one client's memory, after each input."""
    bound = codecs.bind(codec, inputs[0])
    memory, norms = bound.initial_memory(), []
    for i, x in enumerate(inputs):
        _, memory = bound.contribute(x, memory, key=codecs.random.key(i))
        norms.append(memory_norm(memory))
    return norms


BIASED = {
    "largest": codecs.chain(Largest()),
    "sign": codecs.chain(MeanSign()),
    "rounded": codecs.uniform_quantization(2, stochastic=False),
}


class Party:
    """Clients and the server of many rounds."""

    def __init__(self, codec, like, clients=1):
        self.bound = codecs.bind(codec, like)
        self.memories = [self.bound.initial_memory() for _ in range(clients)]
        self.state = self.bound.initial_state()
        self.round = 0

    def add(self, updates):
        """One round; updates by client. Gives the decoded sum."""
        gather, parameters = self.bound.gather(self.state), self.bound.encode_parameters(self.state)
        for client, x in updates.items():
            key = codecs.random.derive(codecs.random.key(self.round), client)
            payload, self.memories[client] = self.bound.contribute(
                x, self.memories[client], key=key, parameters=parameters
            )
            gather.add(payload.blob)
        total, self.state = gather.result()
        self.round += 1
        return np.asarray(total, np.float64)

    def remembered(self, client, name):
        """What the outermost stage of a client remembers."""
        return np.asarray(self.memories[client][0]["self"][name], np.float64)


@pytest.mark.parametrize("codec", BIASED.values(), ids=BIASED)
def test_what_is_lost_comes_later(codec):
    """In every round the decoded arrays add up to the inputs less the error that is remembered."""
    party, sent, received = Party(error_feedback(codec), GAUSSIAN[0]), 0, 0
    for x in GAUSSIAN[:20]:
        sent, received = sent + x.astype(np.float64), received + party.add({0: x})
        np.testing.assert_allclose(received, sent - party.remembered(0, "error"), atol=1e-4)


@pytest.mark.parametrize("codec", [BIASED["largest"], BIASED["sign"]], ids=["largest", "sign"])
def test_the_mean_is_recovered(codec):
    """Of a constant input the mean over rounds tends to it; without feedback it stays as wrong as in the first."""
    x = GAUSSIAN[0, :16]
    party = Party(error_feedback(codec), x)
    mean = np.mean([party.add({0: x}) for _ in range(200)], axis=0)
    assert np.linalg.norm(mean - x) < 0.1 * np.linalg.norm(x)
    assert np.linalg.norm(Party(codec, x).add({0: x}) - x) > 0.4 * np.linalg.norm(x)


def test_decay():
    """With decay a, what is sent is x + a e, and e' is what of that does not arrive."""
    party, error = Party(error_feedback(BIASED["largest"], decay=0.5), GAUSSIAN[0]), np.zeros(64)
    for x in GAUSSIAN[:10]:
        due = x + 0.5 * error
        error = np.where(np.arange(64) == np.abs(due).argmax(), 0, due)
        party.add({0: x})
        np.testing.assert_allclose(party.remembered(0, "error"), error, atol=1e-5)


@pytest.mark.parametrize("codec", [codecs.chain(codecs.Dithered(nmse=4.0)), codecs.chain(Sampled(0.2))], ids=str)
def test_an_unbiased_codec_is_made_contractive(codec):
    """At an nmse of 4 what is fed back grows without end, and with the factor 1 / 5 it is bounded by theory's bound."""
    assert "Shrink(factor=0.2)" in str(error_feedback(codec))
    tame = memory_norms(error_feedback(codec), GAUSSIAN)
    # e' = x + e - C(x + e): in the mean |e'| <= sqrt(c) (|x| + |e|) with c = 4 / 5.
    assert max(tame) < np.sqrt(0.8) / (1 - np.sqrt(0.8)) * np.linalg.norm(GAUSSIAN, axis=1).max()
    assert max(tame[100:]) < 1.5 * max(tame[:100])
    assert memory_norms(error_feedback(codec, shrink=1), GAUSSIAN[:50])[-1] > 1e6


@pytest.mark.parametrize(("stage", "name"), [(ErrorFeedback(), "error"), (EF21(1), "estimate")], ids=str)
def test_what_would_leave_the_dtype_saturates(stage, name):
    """Neither NaN nor infinity is ever remembered or encoded, for then nothing would come after them."""
    memory = {name: jnp.float32([3e38, -3e38, 3e38])}
    x, received = jnp.float32([3e38, -3e38, -3e38]), jnp.float32([-3e38, jnp.inf, 3e38])
    assert np.all(np.isfinite(stage.encode_remembering(KEY, x, {}, memory)["values"]))
    assert np.all(np.isfinite(stage.update_memory(memory, x, {"values": received})[name]))
    half = stage.encode_remembering(KEY, jnp.float16([6e4, -6e4, 0]), {}, memory)["values"]
    assert half.dtype == np.float16
    assert np.all(np.isfinite(half))


def test_the_factor_follows_from_the_error():
    """1 / (1 + nmse) for each unbiased stage, of whose errors that of the worst size counts; none for other stages."""
    assert str(error_feedback(codecs.dithered(nmse=0.25))).startswith("ErrorFeedback() > Shrink(factor=0.8)")
    assert "Shrink(factor=0.01)" in str(error_feedback(codecs.chain(Sampled(grows=True)), size=99))
    # Rounded values below a random choice, and above one: neither codec is unbiased, both would grow without end.
    assert "Shrink(factor=0.2)" in str(error_feedback(codecs.chain(Sampled(0.2), BIASED["rounded"])))
    assert "Shrink(factor=0.1)" in str(error_feedback(codecs.chain(MeanSign(), Sampled(0.2), Sampled(0.5))))
    assert "Shrink" not in str(error_feedback(BIASED["sign"])) + str(error_feedback(codecs.identity()))
    assert "Shrink(factor=0.3)" in str(error_feedback(BIASED["sign"], shrink=0.3))


def test_shrinking_gives_the_least_error():
    """The measured nmse of a shrunk unbiased codec is nmse / (1 + nmse)."""
    bound = codecs.bind(codecs.chain(Shrink(1 / 4), codecs.dithered(nmse=3.0)), GAUSSIAN)
    decoded = [bound.decode(bound.encode(GAUSSIAN, key=codecs.random.key(i))[0]) for i in range(4)]
    nmse = np.mean([np.sum((np.asarray(each) - GAUSSIAN) ** 2) for each in decoded]) / np.sum(GAUSSIAN**2)
    assert nmse == pytest.approx(0.75, rel=0.02)


# EF21.


def test_estimates_converge():
    """Of a constant input the estimate at both ends tends to it, and the decoded array with it."""
    x = GAUSSIAN[0, :8]
    party = Party(error_feedback(BIASED["largest"], kind="ef21", num_clients=1), x)
    errors = [np.linalg.norm(party.add({0: x}) - x) for _ in range(9)]
    assert np.all(np.diff(errors[:8]) < 0)
    assert errors[-1] < 1e-6  # one entry a round
    np.testing.assert_allclose(party.remembered(0, "estimate"), x, atol=1e-6)


def test_the_sum_over_all_clients_whoever_takes_part():
    """Of m contributions comes m / n of the sum of all n clients' estimates, which begin at zero."""
    cohorts = [(0, 1), (1, 2, 3), (3,), (0, 1, 2, 3, 4)]
    party = Party(error_feedback(BIASED["largest"], kind="ef21", num_clients=5), GAUSSIAN[0], clients=5)
    for cohort in cohorts:
        decoded = party.add({client: GAUSSIAN[client] for client in cohort})
        estimates = sum(party.remembered(client, "estimate") for client in range(5))
        np.testing.assert_allclose(decoded, len(cohort) / 5 * estimates, atol=1e-5)


def test_momentum():
    """From the first x on v' = (1 - a) v + a x, and the estimate follows it."""
    codec = error_feedback(codecs.identity(), kind="ef21_sgdm", num_clients=1, momentum=0.25)
    party, average = Party(codec, GAUSSIAN[0]), GAUSSIAN[0]
    for i, x in enumerate(GAUSSIAN[:6]):
        average = x if i == 0 else 0.75 * average + 0.25 * x
        np.testing.assert_allclose(party.add({0: x}), average, atol=1e-5)
    assert "momentum=0.1" in str(error_feedback(codecs.identity(), kind="ef21_sgdm", num_clients=1))


def test_ef21_refuses_what_it_cannot_mean():
    """More contributions than clients, and receivers that have not heard all that went before."""
    party = Party(error_feedback(BIASED["sign"], kind="ef21", num_clients=1), GAUSSIAN[0], clients=2)
    with pytest.raises(ArgumentError, match="told of num_clients=1, got 2 contributions"):
        party.add({0: GAUSSIAN[0], 1: GAUSSIAN[1]})
    with pytest.raises(ArgumentError, match="serves contributions to one receiver only"):
        codecs.encode(GAUSSIAN[0], error_feedback(BIASED["sign"], kind="ef21", num_clients=1))


# Memories.


def test_a_sender_of_broadcasts_remembers_in_its_state():
    """Self-describing payloads of one sender add up to its inputs less its last error."""
    codec = error_feedback(codecs.uniform_quantization(1, stochastic=False))
    state, received = codecs.initial_state(GAUSSIAN[0], codec), 0
    for x in GAUSSIAN[:10]:
        blob, state = codecs.encode(x, codec, state=state)
        received = received + codecs.decode(blob)
    error = state[0]["memory"]["self"]["error"]
    np.testing.assert_allclose(received, GAUSSIAN[:10].sum(axis=0) - error, atol=1e-4)


def test_memories_travel_as_trees_of_arrays():
    """A memory stored as bytes, with nothing pickled, goes on with the same bits."""
    codec = error_feedback(codecs.dithered(nmse=0.5), kind="ef21_sgdm", num_clients=1)
    bound, key = codecs.bind(codec, {"a": GAUSSIAN[0]}), codecs.random.key(5)
    _, memory = bound.contribute({"a": GAUSSIAN[1]}, bound.initial_memory(), key=key)
    stored = codecs.decode(codecs.encode(memory, codecs.identity()))
    one, two = (bound.contribute({"a": GAUSSIAN[2]}, each, key=key) for each in (memory, stored))
    assert one[0].blob == two[0].blob
    assert same_bits(one[1], two[1])


def test_tensors_joined_to_one_vector_are_fed_back_as_one():
    """Around a concatenation the feedback goes inside, so that there is still one vector."""
    codec = error_feedback(codecs.concatenate(BIASED["largest"]))
    bound = codecs.bind(codec, {"a": GAUSSIAN[0], "b": GAUSSIAN[:3]})
    assert [leaf.shape for leaf in jax.tree.leaves(bound.initial_memory())] == [(256,)]
    _, memory = bound.contribute({"a": GAUSSIAN[0], "b": GAUSSIAN[:3]}, bound.initial_memory())
    assert np.count_nonzero(memory[0]["below"]["values"]["self"]["error"]) == 255


def test_an_inner_codec_may_remember_too():
    """Memories of stages below are kept beside the feedback's own."""
    party, received = Party(error_feedback(codecs.chain(Change())), GAUSSIAN[0]), 0
    for x in GAUSSIAN[:5]:
        received = received + party.add({0: x})
    np.testing.assert_allclose(received, GAUSSIAN[:5].sum(axis=0) - party.remembered(0, "error"), atol=1e-4)


@pytest.mark.parametrize("kind", ["ef14", "ef21", "ef21_sgdm"])
def test_shapes_and_dtypes(kind):
    """Memories are in float32 at least, so that what rounding to half precision loses is fed back as well."""
    generator = np.random.default_rng(1)
    tree = {
        f"{np.dtype(dtype)}{shape}": generator.standard_normal(shape).astype(dtype)
        for dtype in (np.float16, jnp.bfloat16, np.float32, np.float64)
        for shape in ((), (0,), (1,), (3, 5))
    }
    bound = codecs.bind(error_feedback(BIASED["rounded"], kind=kind, num_clients=None if kind == "ef14" else 1), tree)
    memory, state = bound.initial_memory(), bound.initial_state()
    for each in (tree, jax.tree.map(np.zeros_like, tree), tree):
        payload, memory = bound.contribute(each, memory)
        gather = bound.gather(state)
        gather.add(payload.blob)
        decoded, state = gather.result()
        for name, x in decoded.items():
            assert (x.shape, x.dtype) == (tree[name].shape, tree[name].dtype)
    for name, own in zip(sorted(tree), memory, strict=True):
        wide = np.float64 if tree[name].dtype == np.float64 else np.float32
        assert {leaf.dtype for leaf in jax.tree.leaves(own) if leaf.dtype != np.bool_} == {np.dtype(wide)}


def test_half_precision_feeds_its_own_rounding_back():
    """A change too small for float16 gets through in the end."""
    x, received = np.array([1024.25], np.float32), np.zeros(1)
    codec = error_feedback(codecs.chain(codecs.Identity()))
    bound = codecs.bind(codec, x.astype(np.float16))
    memory = [{"self": {"error": jnp.array([0.25], jnp.float32)}, "below": {"values": {"self": (), "below": {}}}}]
    for _ in range(8):
        payload, memory = bound.contribute(np.array([1024], np.float16), memory)
        contribution = bound.read_contribution(payload)
        received += contribution.summands[0].astype(np.float64)
    assert received[0] + memory[0]["self"]["error"][0] == 8 * 1024 + 0.25


def test_the_same_bits_with_wide_types():
    """JAX's 64-bit mode changes neither bytes nor memories."""
    bound = codecs.bind(error_feedback(codecs.dithered(nmse=2.0)), GAUSSIAN[0])

    def contributed():
        memory = bound.initial_memory()
        for i in range(3):
            payload, memory = bound.contribute(GAUSSIAN[i], memory, key=codecs.random.key(i))
        return payload.blob, memory

    narrow = contributed()
    with jax.enable_x64(True):
        wide = contributed()
    assert narrow[0] == wide[0]
    assert same_bits(narrow[1], wide[1])


def test_memory_norm():
    """The Euclidean norm of all floats, at scales whose squares leave float32."""
    memory = [{"self": {"error": np.float32([3e30, 0])}}, {"self": {"error": np.float32([[4e30]]), "on": np.bool_(1)}}]
    assert memory_norm(memory) == pytest.approx(5e30)
    assert memory_norm([]) == 0


@pytest.mark.parametrize("stage", [ErrorFeedback(), EF21(10, 0.5), Shrink(0.5)], ids=lambda stage: stage.name)
def test_stages_keep_their_promises(stage):
    """Of shapes, dtypes, sums, states and memories."""
    check_stage(stage, other_process=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: error_feedback("sign"), "codec must be a Codec, such as .*, got 'sign' of type str"),
        (lambda: error_feedback(lambda spec: codecs.identity()), "where tensors have codecs of their own, wrap each"),
        (
            lambda: error_feedback(codecs.identity(), kind="ef22"),
            "kind must be one of 'ef14', 'ef21', 'ef21_sgdm', got",
        ),
        (lambda: error_feedback(codecs.identity(), kind="ef21"), "'ef21' needs num_clients.*; got None"),
        (
            lambda: error_feedback(codecs.identity(), num_clients=3),
            "num_clients is for kind 'ef21' or 'ef21_sgdm', got",
        ),
        (lambda: error_feedback(codecs.identity(), momentum=0.5), "momentum is for kind 'ef21_sgdm', got kind='ef14'"),
        (lambda: error_feedback(codecs.identity(), kind="ef21", decay=0.5), "decay is for kind 'ef14'"),
        (lambda: error_feedback(codecs.identity(), decay=0), "decay must be above 0 and at most 1, got 0"),
        (lambda: error_feedback(codecs.identity(), decay="1"), "decay must be a number, got '1' of type str"),
        (lambda: error_feedback(codecs.identity(), shrink=1.5), "shrink must be above 0 and at most 1, got 1.5"),
        (lambda: error_feedback(codecs.identity(), shrink=float("nan")), "shrink must be above 0"),
        (lambda: EF21(0), "num_clients must lie in 1.."),
        (lambda: EF21(2.0), "num_clients must be a whole number"),
        (
            lambda: error_feedback(codecs.dithered(step=0.1)),
            "not known beforehand.*shrink=1 where the error is bounded",
        ),
        (lambda: error_feedback(codecs.chain(Sampled(grows=True))), "grows with the array's size; give size="),
        (lambda: error_feedback(codecs.dithered(nmse=1.0), size=0), "size must lie in 1.."),
        (lambda: error_feedback(error_feedback(codecs.identity())), "must be without error feedback"),
        (lambda: codecs.bind(error_feedback(codecs.identity()), np.int32(1)), "takes floating-point arrays"),
    ],
)
def test_bad_arguments(make, message):
    """Each mistake is named in one sentence, with the way out."""
    with pytest.raises((ArgumentError, ArgumentTypeError), match=message):
        make()
