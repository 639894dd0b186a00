"""Adaptive stages: state at the one of the many, parameters down, reports up."""

import dataclasses
from typing import ClassVar

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from codec_support import Alternate, Custom, LargestSeen, Split, few_examples, gathered, same_bits
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from laconic import codecs
from laconic.codecs import Flatten, Merge, UniformQuantizer, random
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError

X = np.linspace(-2, 3, 6, dtype=np.float32)
ADAPTIVE = codecs.chain(Flatten(), LargestSeen())


def own_state(state):
    """The one adaptive stage's state in `ADAPTIVE` for one tensor, as NumPy scalars."""
    return {name: np.asarray(value) for name, value in state[0]["below"]["values"]["self"].items()}


def test_rounds_of_many_to_one():
    """Over rounds of cohorts of varying size, state holds what all clients of a round reported."""
    bound = codecs.bind(ADAPTIVE, X)
    state, scale = bound.initial_state(), 1.0
    for round_number, cohort in enumerate([3, 1, 5, 2]):
        sign = (-1) ** round_number
        xs = [sign * (np.abs(X) + client + round_number) for client in range(cohort)]
        summed, state = gathered(bound, xs, state=state)
        np.testing.assert_allclose(summed, np.sum(xs, axis=0), rtol=1e-5)
        scale = max(scale, np.abs(xs).max())
        told = own_state(state)
        assert told["scale"] == np.float32(scale)
        assert told["low"] == np.min(xs)
        assert told["high"] == np.max(xs)
        assert told["count"] == cohort * X.size
        assert told["mean"] == pytest.approx(np.mean(xs), rel=1e-6)


def test_rounds_of_one_to_many():
    """A broadcaster's state moves on with its own report, and every receiver decodes with what travelled."""
    sender, receiver = codecs.bind(ADAPTIVE, X), codecs.bind(ADAPTIVE, X)
    state = sender.initial_state()
    for factor in (1.0, 10.0, 3.0):
        payload, state = sender.encode(factor * X, state=state)
        np.testing.assert_allclose(receiver.decode(payload.blob), factor * X, rtol=1e-6)
    assert own_state(state)["scale"] == 30
    assert own_state(state)["count"] == X.size


def test_parameters_travel_one_to_many_and_reports_many_to_one():
    """Four bytes of parameters go down beside the tensor, sixteen of reports come up, and nothing else."""
    bound = codecs.bind(ADAPTIVE, X)
    down, _ = bound.encode(X)
    up = bound.encode_contribution(X)
    assert (down.tensors[0].payload, down.tensors[0].side_information) == (24, 4)
    assert (up.tensors[0].payload, up.tensors[0].side_information) == (24, 16)
    assert len(down.blob) == 8 + 24 + 4 == bound.static_size()
    assert len(up.blob) == 8 + 24 + 16
    assert (bound.num_summand_arrays, bound.num_report_arrays) == (1, 4)


def test_reports_are_those_of_the_format():
    """Reports travel in ascending order of their names."""
    up = codecs.bind(ADAPTIVE, X).encode_contribution(X)
    count = np.frombuffer(up.blob[-20:-16], "<i4")
    high, low, means = np.frombuffer(up.blob[-16:-4], "<f4")
    assert (count[0], high, low) == (6, 3, -2)
    assert means == pytest.approx(0.5)


def test_clients_encode_with_the_parameters_of_the_round():
    """What a client encodes depends on what it was told, and decodes with the same state only."""
    bound = codecs.bind(ADAPTIVE, X)
    _, state = gathered(bound, [4 * X])
    assert not np.array_equal(
        bound.encode_contribution(X).blob, bound.encode_contribution(X, parameters=bound.encode_parameters(state)).blob
    )
    np.testing.assert_allclose(gathered(bound, [X, X], state=state)[0], 2 * X, rtol=1e-6)
    stale = bound.encode_contribution(X).blob
    np.testing.assert_allclose(bound.read_contribution(stale, state).summands[0], X)
    gather = bound.gather(state)
    gather.add(stale)
    np.testing.assert_allclose(gather.result()[0], 12 * X, rtol=1e-6)


def test_state_that_needs_no_report():
    """A stage that reports nothing still moves on, once a round, in both directions."""
    bound = codecs.bind(codecs.chain(Alternate()), X)
    state = bound.initial_state()
    for sign in (1, -1, 1, -1):
        assert int(state[0]["self"]) == sign
        payload, next_state = bound.encode(X, state=state)
        assert same_bits(np.asarray(bound.decode(payload.blob)), X)
        summed, state = gathered(bound, [X, X], state=state)
        np.testing.assert_array_equal(summed, 2 * X)
        assert jax.tree.all(jax.tree.map(np.array_equal, state, next_state))


def test_a_described_payload_of_an_adaptive_codec_stands_alone():
    """`codecs.encode` uses the initial state, and bytes of any state decode by themselves: parameters travel."""
    np.testing.assert_allclose(codecs.decode(codecs.encode(X, ADAPTIVE)), X, rtol=1e-6)
    bound = codecs.bind(ADAPTIVE, X)
    _, state = bound.encode(7 * X)
    payload, _ = bound.encode(X, state=state, described=True)
    np.testing.assert_allclose(codecs.decode(payload.blob), X, rtol=1e-6)


def test_a_described_contribution_needs_its_receiver():
    """A contribution whose parameters stayed at the server says so; one without parameters decodes by itself."""
    contribution = codecs.bind(ADAPTIVE, X).encode_contribution(X, described=True)
    with pytest.raises(DecodeError, match="one of many to a receiver that holds its codec's state"):
        codecs.decode(contribution.blob)
    with pytest.raises(DecodeError, match="made by another codec or for other shapes"):
        codecs.bind(ADAPTIVE, X).decode(contribution.blob)
    plain = codecs.bind(codecs.identity(), X).encode_contribution(X, described=True)
    assert same_bits(codecs.decode(plain.blob), X)


def test_adaptive_stages_anywhere_in_a_tree():
    """Stages in two branches and two tensors keep apart what they hold."""
    codec = codecs.branch(Split(), even=LargestSeen(), odd=codecs.chain(LargestSeen(), UniformQuantizer(8, (-1, 1))))
    tree = {"a": X, "b": 100 * X}
    bound = codecs.bind(codec, tree)
    _, state = gathered(bound, [tree, tree])
    even, odd = (np.abs(part).max() for part in (X[0::2], X[1::2]))
    scales = [float(own["below"][half]["self"]["scale"]) for own in state for half in ("even", "odd")]
    np.testing.assert_allclose(scales, [even, odd, 100 * even, 100 * odd], rtol=1e-6)
    summed, _ = gathered(bound, [tree, tree], state=state)
    np.testing.assert_allclose(summed["b"], 200 * X, atol=2 * 2 * 300 / 255)


reports = st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8]).flatmap(
    lambda dtype: st.lists(
        hnp.arrays(
            dtype,
            (2,),
            elements=st.integers(0, 20) if dtype is np.uint8 else st.integers(-1000, 1000),
        ),
        min_size=1,
        max_size=6,
    )
)


@hypothesis.settings(few_examples, max_examples=100)
@hypothesis.given(reports)
def test_merges(clients):
    """Merges are NumPy's reductions, in the reports' dtype, for any signs and any number of clients."""
    stacked = np.stack(clients)
    for merge, expected in (
        (Merge.SUM, stacked.sum(axis=0).astype(stacked.dtype)),
        (Merge.MIN, stacked.min(axis=0)),
        (Merge.MAX, stacked.max(axis=0)),
        (Merge.STACK, stacked),
    ):
        assert same_bits(merge(clients), expected)


@pytest.mark.parametrize("sign", [-1, 1])
def test_extremes_of_one_sign(sign):
    """The largest of all-negative and the smallest of all-positive reports is not zero."""
    clients = [jnp.float32(sign * magnitude) for magnitude in (3, 1, 2)]
    assert Merge.MAX(clients) == max(sign, 3 * sign)
    assert Merge.MIN(clients) == min(sign, 3 * sign)
    assert Merge.MAX(clients[:1]) == Merge.MIN(clients[:1]) == 3 * sign


def test_sums_of_reports_lose_nothing():
    """Integer reports are summed in 64 bits and must fit their dtype in the end; halves are summed in float32."""
    near = np.int32(2**31 - 1)
    assert Merge.SUM([near, near, -near]) == near
    with pytest.raises(ArgumentError, match="the sum must fit int32, got values from 4294967294"):
        Merge.SUM([near, near])
    assert Merge.SUM([np.float16(512)] + [np.float16(0.125)] * 1000) == np.float16(637)
    assert Merge.SUM([np.bool_(True), np.bool_(False)]) == np.bool_(True)


def adaptive_class(**methods):
    """An adaptive stage with these methods and declarations."""
    defaults = {
        "name": "test.mine",
        "initial_state": lambda self, spec: jnp.float32(1),
        "parameters": lambda self, state: ({"scale": state}, {"scale": state}),
        "commutes_with_sum": True,
    }
    return dataclasses.dataclass(frozen=True)(type("Mine", (Custom,), {**defaults, **methods}))


@pytest.mark.parametrize(
    ("methods", "error", "message"),
    [
        (
            {"parameters": lambda self, state: ({"scale": 2.0}, {})},
            ArgumentTypeError,
            "parameter 'scale' of stage 'test.mine' must be an array, since it travels, got 2.0 of type float; make it",
        ),
        (
            {"parameters": lambda self, state: ({}, {"scale": 2})},
            ArgumentTypeError,
            "parameter 'scale' of stage 'test.mine' must be an array",
        ),
        (
            {"merges": {"norm": Merge.SUM}},
            ArgumentError,
            r"declares the merges \['norm'\], but report returned \[\]",
        ),
        (
            {"report": lambda self, x, encoded, parameters: {"norm": x.sum()}},
            ArgumentError,
            r"declares the merges \[\], but report returned \['norm'\]",
        ),
        (
            {"merges": {"norm": Merge.SUM}, "report": lambda self, x, encoded, parameters: {"norm": 1}},
            ArgumentTypeError,
            "report 'norm' of stage 'test.mine' must be an array, since it travels, got 1 of type int",
        ),
    ],
    ids=["encode's number", "decode's number", "missing report", "undeclared report", "report's number"],
)
def test_wrong_declarations(methods, error, message):
    """Wrong parameters and reports are errors when the codec is bound, which name the stage and what is wrong."""
    with pytest.raises(error, match=message):
        codecs.bind(adaptive_class(**methods)(), X)


def test_state_of_another_structure():
    """A state that becomes another tree is an error in the round in which it happens."""
    bound = codecs.bind(adaptive_class(update_state=lambda self, state, merged: {"scale": state})(), X)
    with pytest.raises(ArgumentError, match="stage 'test.mine' must update its state to a tree like PyTreeDef"):
        bound.encode(X)


@pytest.mark.parametrize("change", [lambda state: jnp.stack([state, state]), lambda state: state.astype(jnp.float16)])
def test_parameters_of_another_shape(change):
    """Parameters that change shape or dtype would be read wrongly; encoding with them is an error."""
    bound = codecs.bind(adaptive_class(update_state=lambda self, state, merged: change(state))(), {"w": X})
    _, state = bound.encode({"w": X})
    with pytest.raises(ArgumentError, match=r"w: self/scale was float32 when the codec was bound, and is now float"):
        bound.encode({"w": X}, state=state)


@codecs.register
@dataclasses.dataclass(frozen=True)
class Codebook(Custom):
    """Told to encoder and decoder apart: the decoder alone learns the offset."""

    name: ClassVar[str] = "test.codebook"

    def decode(self, encoded, parameters, *, num_summands, spec):
        return encoded["values"] + parameters["offset"]

    def encode(self, key, x, parameters):
        return {"values": x - parameters["centre"]}

    def parameters(self, state):
        return {"centre": jnp.float32(3)}, {"offset": jnp.float32(3)}


def test_encoder_and_decoder_may_be_told_different_things():
    """Only what decoding needs travels with a payload; what encoding needs is told beforehand."""
    bound = codecs.bind(codecs.chain(Codebook()), X)
    assert [list(own["self"]) for own in bound.encode_parameters(bound.initial_state())] == [["centre"]]
    payload, _ = bound.encode(X)
    assert payload.tensors[0].side_information == 4
    np.testing.assert_allclose(bound.decode(payload.blob), X, rtol=1e-6)
    np.testing.assert_allclose(gathered(bound, [X, X])[0], 2 * X, rtol=1e-6)


def test_clients_in_other_keys_report_alike():
    """Reports do not depend on the key."""
    bound = codecs.bind(codecs.chain(LargestSeen(), UniformQuantizer(3)), X)
    contributions = [
        bound.read_contribution(bound.encode_contribution(X, key=random.key(seed)).blob) for seed in range(2)
    ]
    assert same_bits(contributions[0].reports, contributions[1].reports)
    assert not same_bits(contributions[0].summands, contributions[1].summands)
