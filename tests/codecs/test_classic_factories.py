"""The ready-made codecs of the literature: what they claim, on every kind of tensor, and through bytes."""

import contextlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from codec_support import same_bits

from laconic import codecs
from laconic.codecs import Concatenate, FixedWidth, UniformQuantizer, random
from laconic.codecs import _classic_factories as factories
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError, NonFiniteError

MAKE = {
    "cast": lambda: factories.cast("float16"),
    "stochastic cast": lambda: factories.cast(stochastic=True),
    "qsgd": lambda: factories.qsgd(15, 4),
    "ternary": lambda: factories.ternary(),
    "clipped ternary": lambda: factories.ternary(2.5),
    "sign": lambda: factories.sign(),
    "natural": lambda: factories.natural(),
    "top_k": lambda: factories.top_k(0.3),
    "top_k, 8-bit values": lambda: factories.top_k(0.3, values=codecs.uniform_quantization(8)),
    "threshold": lambda: factories.threshold(0.5, values="float16"),
    "random_k": lambda: factories.random_k(0.5),
    "shared random_k": lambda: factories.random_k(0.5, seed=1),
    "sparse_ternary": lambda: factories.sparse_ternary(0.3),
    "low_rank": lambda: factories.low_rank(1, values="bfloat16"),
}
NORMAL = np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
SMALL = NORMAL[:60].reshape(6, 10)


def tensors(name):
    """All kinds of shapes and dtypes that a codec takes."""
    wide = np.float32 if name == "stochastic cast" else np.float64
    return [
        NORMAL[0].astype(np.float16),
        np.zeros((0, 3), np.float32),
        NORMAL[:24].reshape(2, 3, 4).astype(wide),
        SMALL.T.astype(jnp.bfloat16),
    ]


@pytest.mark.parametrize("name", [name for name in MAKE if name not in ("ternary", "clipped ternary", "top_k")])
def test_every_kind_of_tensor(name):
    """Scalars, empty and strided tensors in all precisions come back in kind, finite, and no larger than they may."""
    xs = tensors(name)
    decoded = codecs.decode(codecs.encode(xs, MAKE[name](), seed=1))
    for x, x_hat in zip(xs, decoded, strict=True):
        assert (x_hat.shape, x_hat.dtype) == (x.shape, x.dtype)
        wide = np.asarray(x_hat, np.float64)
        assert np.isfinite(wide).all()
        assert np.abs(wide).max(initial=0) <= 4 * np.abs(x.astype(np.float64)).max(initial=0)


@pytest.mark.parametrize(
    ("name", "is_unbiased", "commutes", "is_stochastic"),
    [
        ("cast", False, True, False),
        ("stochastic cast", True, True, True),
        ("qsgd", True, False, True),
        ("ternary", True, False, True),
        ("clipped ternary", False, False, True),
        ("sign", False, False, False),
        ("natural", True, False, True),
        ("top_k", False, False, False),
        ("top_k, 8-bit values", False, False, True),
        ("threshold", False, True, False),
        ("random_k", True, False, True),
        ("shared random_k", False, True, False),
        ("sparse_ternary", False, False, False),
        ("low_rank", False, False, True),
    ],
)
def test_claims(name, is_unbiased, commutes, is_stochastic):
    """What each codec says of itself."""
    codec = MAKE[name]()
    assert (codec.is_unbiased, codec.commutes_with_sum, codec.is_stochastic) == (is_unbiased, commutes, is_stochastic)
    assert not codec.needs_client_state
    assert not codec.has_receiver_memory


def test_claims_of_random_k():
    """Unbiased with values that are, too, whatever their codec; not with values rounded to the nearest."""
    quantized = factories.random_k(0.5, values=codecs.uniform_quantization(4))
    assert quantized.is_unbiased
    assert quantized.shares_randomness
    assert not factories.random_k(0.5, values="float16").is_unbiased
    assert not factories.random_k(0.5, seed=0).shares_randomness


def test_claims_of_codecs_with_memories():
    """Warm start is the client's memory, a count sketch the server's."""
    assert factories.low_rank(warm_start=True).needs_client_state
    sketch = factories.count_sketch()
    assert (sketch.has_receiver_memory, sketch.commutes_with_sum, sketch.is_stochastic) == (True, True, False)


@pytest.mark.parametrize("name", ["qsgd", "clipped ternary", "natural", "top_k", "random_k", "sparse_ternary"])
def test_expected_error_is_what_comes_out(name):
    """On 20,000 Gaussian entries the error is what theory expects, at 5 %."""
    codec = MAKE[name]()
    x_hat = np.asarray(codecs.decode(codecs.encode(NORMAL, codec, seed=0)))
    measured = ((x_hat - NORMAL) ** 2).sum() / (NORMAL**2).sum()
    assert measured == pytest.approx(codec.expected_nmse(NORMAL.size), rel=0.05)


def test_sizes_that_shapes_fix():
    """One bit for a sign, two bytes for a half, k values for random-k; 8 bytes of framing, 4 of scale, 8 of key."""
    for codec, size in (
        (factories.sign(), 8 + 2500 + 4),
        (factories.cast("bfloat16"), 8 + 40_000),
        (factories.random_k(0.01), 8 + 8 + 800),
        (factories.random_k(0.01, values="float16"), 8 + 8 + 400),
    ):
        bound = codecs.bind(codec, NORMAL)
        assert bound.static_size() == size
        assert len(bound.encode(NORMAL, key=random.key(0))[0].blob) == size


def test_low_rank_size():
    """Rank (m + n) values."""
    x = np.ones((30, 20), np.float32)
    assert codecs.bind(factories.low_rank(3, values="float16"), x).static_size() == 8 + 3 * 50 * 2


def test_values_of_top_k_through_a_quantizer():
    """Positions are exact, and values within a step of the 8-bit grid over them."""
    x_hat = np.asarray(codecs.decode(codecs.encode(NORMAL, MAKE["top_k, 8-bit values"](), seed=0)))
    kept = np.sort(np.argsort(-np.abs(NORMAL), kind="stable")[:6000])
    step = np.ptp(NORMAL[kept]) / 255
    assert np.abs(x_hat - NORMAL)[kept].max() < step * 1.001
    assert not np.delete(x_hat, kept).any()


def test_sparsifiers_over_a_whole_model():
    """Concatenated, the largest entries of all tensors are kept, wherever they are."""
    tree = {"a": np.float32([1, 9, 2]), "b": np.float32([[8, 0.5], [7, 3]]), "c": np.float32(0.1)}
    codec = codecs.chain(Concatenate(), factories.top_k(3 / 8))
    decoded = codecs.decode(codecs.encode(tree, codec))
    assert same_bits(
        jax.tree.map(np.asarray, decoded),
        {"a": np.float32([0, 9, 0]), "b": np.float32([[8, 0], [7, 0]]), "c": np.float32(0)},
    )


@pytest.mark.parametrize("name", ["qsgd", "top_k", "random_k"])
def test_jax_configuration_changes_nothing(name):
    """The bytes are the same where a program has switched JAX to 64 bits for all it does."""
    here = codecs.encode(SMALL, MAKE[name](), seed=5)
    with jax.enable_x64(True):
        assert codecs.encode(SMALL, MAKE[name](), seed=5) == here


@pytest.mark.parametrize("name", ["qsgd", "natural", "top_k", "threshold", "random_k", "sparse_ternary", "low_rank"])
def test_damaged_sections_do_no_harm(name):
    """Any bytes with a right checksum give an array of the right kind, or a DecodeError."""
    bound = codecs.bind(MAKE[name](), SMALL)
    payload, _ = bound.encode(SMALL, key=random.key(0), described=True)
    blob, length = payload.blob, sum(payload.unit_sizes) + len(payload.key)
    generator = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(blob[:-4])
        for place in generator.integers(len(damaged) - length, len(damaged), generator.integers(1, 4)):
            damaged[place] = generator.integers(256)
        damaged += zlib.crc32(damaged).to_bytes(4, "little")
        with contextlib.suppress(DecodeError):
            decoded = codecs.decode(bytes(damaged))
            assert (decoded.shape, decoded.dtype) == (SMALL.shape, SMALL.dtype)
            assert np.isfinite(decoded).all()


@pytest.mark.parametrize("name", ["top_k"])
def test_not_a_number_is_refused(name):
    """NaN and infinity are errors, wherever they are."""
    for value in (np.nan, np.inf):
        with pytest.raises(NonFiniteError, match=r"\(float32\[6,10\]\) holds NaN or infinity"):
            codecs.encode(np.where(SMALL > 1, np.float32(value), SMALL), MAKE[name](), seed=0)


def test_values_of_the_wrong_kind():
    """Values travel as a known dtype, or through a stage, codec or coder."""
    for make in (factories.top_k, factories.random_k, factories.low_rank, factories.count_sketch):
        with pytest.raises(ArgumentTypeError, match="values must be the name of a dtype, a stage, codec or coder"):
            make(values=16)
        with pytest.raises(ArgumentError, match="dtype must be one of"):
            make(values="int8")
    stage = factories.top_k(values=UniformQuantizer(4))
    coder = factories.sign().children[0][1]
    assert "UniformQuantizer" in str(stage)
    assert coder == FixedWidth(1)


def test_a_cast_beyond_the_dtype_is_an_error():
    """float16 ends at 65504; nothing becomes infinite silently."""
    with pytest.raises(ArgumentError, match="holds values beyond the range of its codec"):
        codecs.encode(jnp.float32([1, 70_000]), factories.cast("float16"))
