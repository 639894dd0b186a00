"""Tensors that are joined to one vector: grouping, dtypes, sums, sizes."""

import jax.numpy as jnp
import numpy as np
import pytest
from codec_support import gathered, same_bits

from laconic import codecs, testing
from laconic.codecs import Concatenate
from laconic.errors import ArgumentError, ArgumentTypeError, NonFiniteError

GENERATOR = np.random.default_rng(0)
TREE = {
    "a": GENERATOR.normal(size=(3, 4)).astype(np.float32),
    "b": {"c": np.float32(2.5), "d": np.zeros((0, 2), np.float32)},
    "e": GENERATOR.normal(size=5).astype(np.float32),
}
LOSSLESS = codecs.concatenate(codecs.identity())


def test_all_tensors_make_one_section():
    """Joined tensors share one range: the smallest and largest of all of them."""
    codec = codecs.concatenate(codecs.uniform_quantization(8))
    payload, _ = codecs.bind(codec, TREE).encode(TREE, key=codecs.random.key(0))
    assert [size.name for size in payload.tensors] == ["a and 3 more"]
    assert len(payload) == 8 + 18 + 8
    decoded = codecs.decode(codecs.encode(TREE, codec, seed=0))
    assert max(decoded["a"].max(), decoded["e"].max(), decoded["b"]["c"]) == 2.5


def test_lossless_and_across_dtypes():
    """Floats of several dtypes come back bit for bit, each in its own dtype and shape."""
    tree = [TREE, np.float16([1.5, 65504.0]), jnp.bfloat16(3.0), np.float64([np.pi])]
    decoded = codecs.decode(codecs.encode(tree, LOSSLESS))
    assert same_bits(decoded, [TREE, tree[1], np.asarray(tree[2]), tree[3]])


def test_groups():
    """Tensors of other codecs, or of another group, make vectors of their own, in the order of their first tensors."""

    def codec_for(spec):
        if spec.size == 1:
            return codecs.concatenate(codecs.identity(), group=1)
        return LOSSLESS if spec.name != "e" else codecs.identity()

    payload, _ = codecs.bind(codec_for, TREE).encode(TREE)
    assert [size.name for size in payload.tensors] == ["a and 1 more", "b/c", "e"]
    assert same_bits(codecs.decode(codecs.encode(TREE, codec_for)), TREE)


def test_sum_of_joined_tensors():
    """Contributions of joined tensors add up in the encoded domain, and come back as tensors."""
    bound = codecs.bind(codecs.concatenate(codecs.stochastic_grid(step=0.25)), TREE)
    assert bound.num_summand_arrays == 2
    total, _ = gathered(bound, [TREE] * 400)
    np.testing.assert_allclose(np.asarray(total["a"]) / 400, TREE["a"], atol=0.05)
    assert total["b"]["c"] == 1000
    assert total["b"]["d"].shape == (0, 2)


def test_a_sum_of_halves_is_kept_wide():
    """Half-precision tensors that are joined are summed in float32."""
    x = [np.float16([1.0, 2048.0]), np.float16([1.0])]
    total, _ = gathered(codecs.bind(LOSSLESS, x), [x] * 3)
    np.testing.assert_array_equal(np.asarray(total[0]), np.float16([3.0, 6144.0]))


def test_integers_and_floats_are_not_joined():
    """Tensors without a common dtype are refused by name."""
    with pytest.raises(ArgumentTypeError, match=r"got a \(float32\[2\]\) and b \(int32\[2\]\)"):
        codecs.bind(LOSSLESS, {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.int32)})
    assert same_bits(codecs.decode(codecs.encode(np.arange(4), LOSSLESS)), np.arange(4))


def test_wrong_group():
    """A group is a whole number from 0."""
    with pytest.raises(ArgumentError, match="group must be 0 or more, got -1"):
        Concatenate(-1)
    with pytest.raises(ArgumentTypeError, match="group must be an integer"):
        Concatenate(1.5)


def test_inside_a_chain_it_flattens():
    """Below another stage it is a flatten; the kit finds nothing against it."""
    x = GENERATOR.normal(size=(2, 3)).astype(np.float32)
    assert same_bits(codecs.decode(codecs.encode(x, codecs.chain(codecs.Identity(), Concatenate()))), x)
    testing.check_stage(Concatenate(), inputs=x, other_process=False)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named_among_the_joined(bad):
    """The tensor that holds it is named, and no other; numbers whose squares leave float32 are finite."""
    bound = codecs.bind(LOSSLESS, TREE)
    huge = {**TREE, "a": np.full((3, 4), 3e38, np.float32)}
    decoded = bound.decode(bound.encode(huge)[0].blob)
    assert same_bits(decoded, huge)
    with pytest.raises(NonFiniteError, match=r"^e \(float32\[5\]\) holds NaN or infinity"):
        bound.encode({**huge, "e": np.float32([1, 2, bad, 3e38, 0])})
