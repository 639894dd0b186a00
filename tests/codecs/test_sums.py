"""Many to one: sums run in the encoded domain as far as the stages commute, and lose nothing."""

import dataclasses
from typing import ClassVar

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from codec_support import Custom, Scale, Split, Square, few_examples, gathered, same_bits
from hypothesis import strategies as st

from laconic import codecs
from laconic.codecs import FixedWidth, Flatten, Identity, UniformQuantizer, random
from laconic.errors import ArgumentError, DecodeError

XS = [np.random.default_rng(client).uniform(-1, 1, 10).astype(np.float32) for client in range(7)]
# Without random numbers, which take long to compile; test_uniform_quantizer.py sums with them.
GRID = UniformQuantizer(8, value_range=(-8.0, 8.0), stochastic=False)
OWN_RANGE = UniformQuantizer(8, stochastic=False)


def summands(codec, x):
    """The arrays that a contribution is decoded to before the sum."""
    bound = codecs.bind(codec, x)
    return bound.read_contribution(bound.encode_contribution(x, key=random.key(0)).blob).summands


def separate_sum(codec, xs, seed=0):
    """What adding up separate decodings of the same encodings gives, in double precision."""
    bound = codecs.bind(codec, xs[0])
    keys = [random.derive(random.key(seed), client) for client in range(len(xs))]
    decoded = [bound.decode(bound.encode(x, key=key)[0].blob) for x, key in zip(xs, keys, strict=True)]
    return np.sum(decoded, axis=0, dtype=np.float64)


TREES = {
    "identity": codecs.identity(),
    "all commute": codecs.chain(Scale(2.0), Flatten(), GRID, Flatten(), FixedWidth(8)),
    "none commutes": codecs.chain(Square(), OWN_RANGE, FixedWidth(8)),
    "outer commutes, inner does not": codecs.chain(Scale(4.0), Square()),
    "inner commutes, outer does not": codecs.chain(Square(), Scale(4.0), GRID),
    "the middle does not": codecs.chain(Scale(2.0), Square(), Scale(3.0)),
    "one branch commutes": codecs.branch(Split(), even=codecs.chain(GRID, FixedWidth(8)), odd=OWN_RANGE),
    "branches under one that does not": codecs.branch(Split(commutes=False), even=GRID, odd=Scale(3.0)),
}


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("count", [1, 7])
def test_decoding_the_sum_is_the_sum_of_decodings(name, count):
    """For every tree of stages the gathered sum is the sum of the separate decodings at 1e-5."""
    codec = TREES[name]
    summed, _ = gathered(codecs.bind(codec, XS[0]), XS[:count])
    np.testing.assert_allclose(summed, separate_sum(codec, XS[:count]), rtol=1e-5, atol=1e-5 * count)
    assert summed.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "dtypes"),
    [
        ("identity", ["float32"]),
        ("all commute", ["uint8", "float32"]),  # codes, and no numbers for the range
        ("none commutes", ["float32"]),
        ("outer commutes, inner does not", ["float32"]),
        ("inner commutes, outer does not", ["float32"]),
        ("one branch commutes", ["uint8", "float32", "float32"]),
        ("branches under one that does not", ["float32"]),
    ],
)
def test_sums_stay_encoded_as_far_as_stages_commute(name, dtypes):
    """Before the sum only that is decoded which does not commute, and what is above it and below it not."""
    assert [array.dtype.name for array in summands(TREES[name], XS[0])] == dtypes


def test_what_is_added_is_the_first_stage_that_does_not_commute_undone():
    """Scale commutes and is kept, the square below it is undone: the summand is twice x, not x and not 4 x^2."""
    [summand] = summands(codecs.chain(Scale(2.0), Square(), Scale(3.0)), XS[0])
    np.testing.assert_allclose(summand, 2 * XS[0], rtol=1e-5)
    [summand] = summands(codecs.chain(Square(), Scale(3.0)), XS[0])
    np.testing.assert_allclose(summand, XS[0], rtol=1e-5)


@codecs.register
@dataclasses.dataclass(frozen=True)
class Centred(Custom):
    """Adds a constant that decoding has to take away once for each summand."""

    name: ClassVar[str] = "test.centred"

    @property
    def commutes_with_sum(self):
        return True

    def encode(self, key, x, parameters):
        return {"values": x + 10}

    def decode(self, encoded, parameters, *, num_summands, spec):
        return (encoded["values"] - 10 * num_summands).astype(spec.dtype)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_decoding_is_told_the_number_of_summands(count):
    """Every commuting stage on the way learns how many encodings were added."""
    codec = codecs.chain(Centred(), Flatten(), Centred())
    summed, _ = gathered(codecs.bind(codec, XS[0]), XS[:count])
    np.testing.assert_allclose(summed, np.sum(XS[:count], axis=0), atol=1e-4)


@few_examples
@hypothesis.given(st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=3, max_size=3), min_size=1, max_size=5))
def test_integer_sums_are_exact(clients):
    """int32 tensors add up exactly, or it is an error: they never wrap around."""
    xs = [np.array(numbers, np.int32) for numbers in clients]
    exact = np.sum(xs, axis=0, dtype=np.int64)
    bound = codecs.bind(codecs.identity(), xs[0])
    if np.array_equal(exact, exact.astype(np.int32)):
        np.testing.assert_array_equal(gathered(bound, xs)[0], exact)
    else:
        with pytest.raises(ArgumentError, match=rf"the sum of {len(xs)} encodings.* must fit int32, got values from"):
            gathered(bound, xs)


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int16, np.uint32, np.int64, np.uint64], ids=lambda dtype: dtype.__name__
)
def test_sums_at_the_ends_of_integer_dtypes(dtype):
    """A sum may reach the ends of its dtype, and one further is an error that names it."""
    info = np.iinfo(dtype)
    bound = codecs.bind(codecs.identity(), {"n": np.zeros(2, dtype)})
    ends = np.array([info.min, info.max], dtype)
    down = -1 if info.min else 0
    inner, one = np.array([info.min - down, info.max - 1], dtype), np.array([down, 1], dtype)
    for xs in ([ends], [inner, one], [one, inner]):
        assert same_bits(np.asarray(gathered(bound, [{"n": x} for x in xs])[0]["n"]), ends)
    for xs in ([ends, one], [one, ends]):
        with pytest.raises(ArgumentError, match=rf"the sum.* must fit {np.dtype(dtype)}"):
            gathered(bound, [{"n": x} for x in xs])


def test_truth_values_do_not_add_up():
    """Two times true does not fit a bool."""
    bound = codecs.bind(codecs.identity(), np.array([True, False]))
    np.testing.assert_array_equal(
        gathered(bound, [np.array([True, False]), np.array([False, False])])[0], [True, False]
    )
    with pytest.raises(ArgumentError, match="must fit bool, got values from 0 to 2"):
        gathered(bound, [np.array([True, False])] * 2)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_is_added_in_float32(dtype):
    """1000 small updates to a large one add up; in half precision each would be lost."""
    bound = codecs.bind(codecs.identity(), np.zeros(1, dtype))
    gather = bound.gather()
    gather.add(bound.encode_contribution(np.full(1, 512, dtype)).blob)
    small = bound.read_contribution(bound.encode_contribution(np.full(1, 0.125, dtype)).blob)
    for _ in range(1000):
        gather.add(small)
    summed, _ = gather.result()
    assert summed.dtype == dtype
    assert float(summed[0]) == pytest.approx(637, rel=float(jnp.finfo(dtype).eps))


def test_floats_that_overflow_show():
    """A sum of floats beyond the dtype is infinite, without a warning; whoever divides it sees it."""
    for dtype, large in ((np.float32, 3e38), (np.float16, 60000), (np.float64, 1.7e308)):
        summed, _ = gathered(codecs.bind(codecs.identity(), np.zeros(1, dtype)), [np.full(1, large, dtype)] * 2)
        assert np.isposinf(summed[0])


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_encoded_sum_of_many_clients(bits):
    """2000 clients' codes of up to 16 bits add up without overflow: each one's largest, half and smallest code."""
    bound = codecs.bind(
        codecs.uniform_quantization(bits, value_range=(-1, 1), stochastic=False), np.zeros(3, np.float32)
    )
    gather = bound.gather()
    contribution = bound.read_contribution(bound.encode_contribution(np.array([1, -1, 0.5], np.float32)).blob)
    for _ in range(2000):
        gather.add(contribution)
    summed, _ = gather.result()
    np.testing.assert_allclose(
        summed, np.array([2000, -2000, 1000 if bits > 1 else 2000]), rtol=1e-2 if bits < 16 else 1e-4
    )
    assert gather.count == 2000


def test_encoded_sum_that_overflows():
    """A sum of codes beyond 32 bits is an error, not a wrong model."""
    bound = codecs.bind(codecs.uniform_quantization(16, value_range=(-1, 1), stochastic=False), np.ones(1, np.float32))
    one = bound.read_contribution(bound.encode_contribution(np.ones(1, np.float32)).blob)
    gather = bound.gather()
    for _ in range(32768):
        gather.add(one)
    assert gather.result()[0][0] == 32768
    gather.add(one)
    with pytest.raises(
        ArgumentError, match="the sum of 32769 encodings must fit int32, .*use a wider dtype, fewer bits"
    ):
        gather.result()


def test_sums_of_trees_with_several_codecs():
    """Each tensor is summed in its own codec's domain."""
    trees = [{"a": x, "b": [np.int32(client), x.astype(np.float64)]} for client, x in enumerate(XS)]
    bound = codecs.bind({"a": TREES["all commute"], "b": codecs.identity()}, trees[0])
    summed, state = gathered(bound, trees)
    np.testing.assert_allclose(summed["a"], np.sum(XS, axis=0), atol=7 * 16 / 255 / 2)
    assert summed["b"][0] == sum(range(7))
    np.testing.assert_allclose(summed["b"][1], np.sum(XS, axis=0, dtype=np.float64), rtol=1e-12)
    assert not jax.tree.leaves(state)
    assert bound.num_summand_arrays == 4
    assert bound.num_report_arrays == 0


def test_a_gather_takes_payloads_and_contributions():
    """Bytes and what was read from them add up alike, and the count is known."""
    bound = codecs.bind(codecs.identity(), XS[0])
    gather = bound.gather()
    gather.add(bound.encode_contribution(XS[0]).blob)
    gather.add(bound.read_contribution(bound.encode_contribution(XS[1], described=True).blob))
    assert gather.count == 2
    np.testing.assert_array_equal(gather.result()[0], XS[0] + XS[1])


def test_sums_run_in_the_order_given():
    """The sum has the bits of adding one after another in float32."""
    expected = XS[0].copy()
    for x in XS[1:]:
        expected += x
    assert same_bits(np.asarray(gathered(codecs.bind(codecs.identity(), XS[0]), XS)[0]), expected)


def test_an_empty_gather():
    """A sum of nothing is an error, also of a tree without tensors."""
    with pytest.raises(ArgumentError, match="a sum needs at least one contribution, got none"):
        codecs.bind(codecs.identity(), XS[0]).gather().result()
    bound = codecs.bind(codecs.identity(), {})
    gather = bound.gather()
    gather.add(bound.encode_contribution({}).blob)
    assert gather.result()[0] == {}


def test_a_gather_refuses_others_payloads():
    """A payload of another codec, or for other shapes, is a DecodeError, and nothing is added."""
    bound = codecs.bind(codecs.identity(), XS[0])
    others = [codecs.bind(codecs.chain(Flatten()), XS[0]), codecs.bind(codecs.identity(), XS[0][:-1])]
    gather = bound.gather()
    for other, x in zip(others, (XS[0], XS[0][:-1]), strict=True):
        with pytest.raises(DecodeError, match="made by another codec or for other shapes"):
            gather.add(other.encode_contribution(x).blob)
        with pytest.raises(DecodeError, match="made by another codec or for other shapes"):
            gather.add(other.encode_contribution(x, described=True).blob)
    assert gather.count == 0


def test_identity_keeps_integers_it_does_not_sum():
    """One contribution is decoded as what it is, whatever its bits."""
    x = np.array([2**32 - 1, 0], np.uint32)
    assert same_bits(np.asarray(gathered(codecs.bind(codecs.chain(Identity(), Flatten()), x), [x])[0]), x)
