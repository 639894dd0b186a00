"""Codecs bound to trees: who gets which codec, sizes known beforehand, seeds, and values that do not travel."""

import itertools
import zlib

import hypothesis
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from codec_support import (
    DTYPES,
    FLOATS,
    Noise,
    Split,
    Trim,
    array_of,
    few_examples,
    run_elsewhere,
    same_bits,
    seeds,
    shapes,
)
from hypothesis import strategies as st

from laconic import codecs
from laconic.codecs import FixedWidth, Flatten, Identity, Raw, TensorSpec, UniformQuantizer, random
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError, NonFiniteError

MODEL = {
    "dense": {"kernel": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4), "bias": np.zeros(4, np.float32)},
    "steps": np.int32(7),
}


def test_one_codec_for_all():
    """A codec is bound to every tensor."""
    bound = codecs.bind(codecs.identity(), MODEL)
    assert bound.codecs == (codecs.identity(),) * 3
    assert [spec.name for spec in bound.specs] == ["dense/bias", "dense/kernel", "steps"]
    assert [str(spec) for spec in bound.specs] == ["float32[4]", "float32[3,4]", "int32"]


def test_a_function_gives_each_tensor_its_codec():
    """The function is called once for each tensor, with its spec."""
    seen = []

    def codec_for(spec):
        seen.append((spec.name, spec.size, spec.nbytes, spec.is_float))
        return codecs.uniform_quantization(8) if spec.size > 4 else codecs.identity()

    bound = codecs.bind(codec_for, MODEL)
    assert seen == [("dense/bias", 4, 16, True), ("dense/kernel", 12, 48, True), ("steps", 1, 4, False)]
    assert [len(list(codec.stages)) for codec in bound.codecs] == [1, 1, 1]
    assert bound.codecs[1] == codecs.uniform_quantization(8)


def test_a_tree_gives_each_branch_its_codec():
    """A tree of codecs may end above the tensors, and mix codecs and functions."""
    flat = codecs.chain(Flatten())
    bound = codecs.bind({"dense": lambda spec: flat, "steps": codecs.identity()}, MODEL)
    assert bound.codecs == (flat, flat, codecs.identity())
    bound = codecs.bind({"dense": {"kernel": flat, "bias": Identity()}, "steps": codecs.identity()}, MODEL)
    assert bound.codecs == (codecs.identity(), flat, codecs.identity())


@pytest.mark.parametrize(
    "codec",
    [
        {"dense": codecs.identity()},
        {"dense": codecs.identity(), "step": codecs.identity()},
        [codecs.identity()] * 2,
        {"dense": [codecs.identity()] * 2, "steps": codecs.identity()},
        {"dense": None, "steps": codecs.identity()},
    ],
)
def test_trees_of_codecs_that_do_not_fit(codec):
    """Another tree than the tensors' is an error."""
    with pytest.raises(ArgumentError, match="the tree of codecs does not fit the tree of tensors"):
        codecs.bind(codec, MODEL)


@pytest.mark.parametrize(
    ("codec", "got"),
    [
        (8, "got 8 of type int"),
        (Raw(), r"got Raw\(\) of type Raw"),
        (lambda spec: None, "got None of type NoneType"),
        ({"dense": codecs.identity(), "steps": "raw"}, "the codec of steps must be a Codec, .*got 'raw' of type str"),
    ],
)
def test_things_that_are_no_codecs(codec, got):
    """What is not a codec is named with the tensor it was for."""
    with pytest.raises(ArgumentTypeError, match=rf"must be a Codec, such as codecs.identity\(\), .*{got}|{got}"):
        codecs.bind(codec, MODEL)


def test_bind_takes_shapes_instead_of_arrays():
    """`jax.ShapeDtypeStruct`s and specs will do, and named specs keep their names."""
    structs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype), MODEL)
    assert codecs.bind(codecs.identity(), structs) is codecs.bind(codecs.identity(), MODEL)
    named = codecs.bind(codecs.identity(), [TensorSpec("model/kernel", (2,), np.dtype(np.float32))])
    assert [spec.name for spec in named.specs] == ["model/kernel"]
    assert codecs.payload_size(structs, codecs.identity()) == len(codecs.encode(MODEL, codecs.identity()))


def test_the_same_binding_is_compiled_once():
    """Binding again gives the same object."""
    assert codecs.bind(codecs.uniform_quantization(3), MODEL["dense"]) is codecs.bind(
        codecs.uniform_quantization(3), MODEL["dense"]
    )
    assert codecs.bind(codecs.uniform_quantization(3), MODEL["dense"]) is not codecs.bind(
        codecs.uniform_quantization(4), MODEL["dense"]
    )


STATIC_CODECS = [
    codecs.identity(),
    codecs.chain(Flatten(), Identity()),
    codecs.uniform_quantization(3, stochastic=False),
    codecs.uniform_quantization(11, stochastic=False, packing="tff"),
    codecs.uniform_quantization(8, stochastic=False, value_range=(-1, 1)),
    codecs.branch(Split(), even=UniformQuantizer(2, stochastic=False), odd=Flatten()),
]


@few_examples
@hypothesis.given(
    drawn=st.lists(st.tuples(shapes, st.sampled_from(DTYPES), st.sampled_from(STATIC_CODECS)), max_size=3),
    seed=st.integers(0, 99),
)
def test_sizes_are_known_beforehand(drawn, seed):
    """For every codec without entropy coding `payload_size` is the length of `encode`, from shapes and dtypes alone."""
    tree = [array_of(shape, dtype, seed) for shape, dtype, _ in drawn]
    codec = [codec if dtype in FLOATS else codecs.identity() for _, dtype, codec in drawn]
    blob = codecs.encode(tree, codec)
    assert codecs.payload_size(tree, codec) == len(blob)
    bound = codecs.bind(codec, tree)
    payload, _ = bound.encode(tree)
    assert bound.static_size() == len(payload.blob)
    assert bound.static_size(described=True) == len(blob)
    assert payload.framing == 8
    assert len(payload.blob) == 8 + sum(size.payload + size.side_information for size in payload.tensors)


compiled = codecs.bind(codecs.chain(Noise()), MODEL["dense"])


@few_examples
@hypothesis.given(first=seeds, second=seeds)
def test_seeds_decide_the_bytes(first, second):
    """The same seed gives the same bytes, another seed others."""
    blobs = [codecs.encode(MODEL["dense"], codecs.chain(Noise()), seed=seed) for seed in (first, first, second)]
    assert blobs[0] == blobs[1]
    assert (blobs[0] == blobs[2]) == (first == second)


def test_another_process_encodes_the_same():
    """The same seed gives the same bytes in a fresh process, for a codec function and nested trees."""
    script = """
import numpy as np
from laconic import codecs
x = np.sin(np.arange(300, dtype=np.float32))
tree = {"b": [x, x.astype(np.float16)], "a": x.astype(np.float64)}
print(codecs.encode(tree, lambda spec: codecs.uniform_quantization(5 + len(spec.name)), seed=2**40 + 1).hex())
"""
    x = np.sin(np.arange(300, dtype=np.float32))
    tree = {"b": [x, x.astype(np.float16)], "a": x.astype(np.float64)}
    blob = codecs.encode(tree, lambda spec: codecs.uniform_quantization(5 + len(spec.name)), seed=2**40 + 1)
    assert run_elsewhere(script).strip() == blob.hex()


def test_keys_of_numpy_and_jax_are_alike():
    """A key may be on the host or on the device."""
    key = random.key(9)
    first, _ = compiled.encode(MODEL["dense"], key=key)
    second, _ = compiled.encode(MODEL["dense"], key=jnp.asarray(key))
    assert first.blob == second.blob


def test_stages_that_draw_need_a_seed():
    """Without a seed there is an error, and none for codecs that do not draw."""
    with pytest.raises(ArgumentError, match="the codec rounds at random, so encoding needs a key or seed, got None"):
        codecs.encode(MODEL["dense"], codecs.uniform_quantization(8))
    assert codecs.encode(MODEL, codecs.identity()) == codecs.encode(MODEL, codecs.identity(), seed=3)


@pytest.mark.parametrize("key", [7, np.zeros(2, np.int32), np.zeros(3, np.uint32), jax.random.key(0)], ids=repr)
def test_keys_of_the_wrong_kind(key, monkeypatch):
    """A key is uint32[2]; seeds and JAX's typed keys are not."""
    # The tests' type checker would be first to complain; users do not have it.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ArgumentTypeError, match=r"key must be uint32\[2\], as codecs.random.key\(seed\) makes it, got"):
        compiled.encode(MODEL["dense"], key=key)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range(seed):
    """A seed has 64 bits."""
    with pytest.raises(ArgumentError, match="seed must lie in"):
        codecs.encode(MODEL, codecs.identity(), seed=seed)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_values_that_are_not_finite(dtype):
    """NaN and infinity anywhere are an error that names the tensor; they never travel."""
    clean = np.ones((3, 5), dtype)
    for codec in (codecs.identity(), codecs.uniform_quantization(8, stochastic=False)):
        bound = codecs.bind(codec, [np.ones(3, np.float32), {"w": clean}])
        for bad, place in ((np.nan, 0), (np.inf, 7), (-np.inf, 14)):
            dirty = clean.copy()
            dirty.flat[place] = bad
            tree = [np.ones(3, np.float32), {"w": dirty}]
            with pytest.raises(NonFiniteError, match=r"^1/w \(\w+\[3,5\]\) holds NaN or infinity, which is not sent"):
                bound.encode(tree)
            with pytest.raises(NonFiniteError, match="^1/w"):
                bound.encode_contribution(tree)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("size", [4097, 100_001])
def test_one_value_among_many_that_is_not_finite(dtype, size):
    """Nor is it missed in a large tensor, wherever it is, or where it is when decoded; large values are no error."""
    generator = np.random.default_rng(size)
    clean = generator.standard_normal(size).astype(dtype)
    clean[: size // 2] *= np.finfo(np.float16).max / 8
    bound = codecs.bind(codecs.identity(), clean)
    blob = bound.encode(clean, described=True)[0].blob
    np.testing.assert_array_equal(bound.decode(blob), clean)
    width = clean.dtype.itemsize
    start = blob.index(clean.tobytes())
    for bad, place in itertools.product(
        (np.nan, np.inf, -np.inf), (0, size // 3, size - 1, *generator.integers(size, size=3))
    ):
        dirty = clean.copy()
        dirty[place] = bad
        with pytest.raises(NonFiniteError):
            bound.encode(dirty)
        first = start + int(place) * width
        damaged = blob[:first] + dirty[place : place + 1].tobytes() + blob[first + width : -4]
        with pytest.raises(DecodeError, match="decodes to NaN or infinity"):
            bound.decode(damaged + zlib.crc32(damaged).to_bytes(4, "little"))


def test_a_number_too_large_for_float32():
    """A Python number that float32 cannot hold is infinite, and does not travel."""
    with pytest.raises(NonFiniteError, match=r"^x \(float32\) holds NaN or infinity"):
        codecs.encode({"x": 1e300}, codecs.identity())


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": np.ones(3, np.float32)}, r"the tree must have the structure PyTreeDef\(\[\*\]\), got"),
        ([np.ones(4, np.float32)], r"0 must be float32\[3\], got float32\[4\]"),
        ([np.ones(3, np.float64)], r"0 must be float32\[3\], got float64\[3\]"),
        ([1.0], r"0 must be float32\[3\], got float32$"),
    ],
)
def test_trees_that_do_not_fit_the_binding(tree, message):
    """What is encoded must be what was bound; the error names both."""
    with pytest.raises(ArgumentError, match=message):
        codecs.bind(codecs.identity(), [np.ones(3, np.float32)]).encode(tree)


def test_payloads_without_description():
    """They are 8 bytes and the sections; only the same codec for the same tensors decodes them."""
    x = {"w": np.arange(6, dtype=np.float32)}
    bound = codecs.bind(codecs.identity(), x)
    blob = bound.encode(x)[0].blob
    assert len(blob) == 8 + 24
    assert same_bits(jax.tree.map(np.asarray, bound.decode(blob)), x)
    with pytest.raises(DecodeError, match="carries no description; decode it with the codec and the specs"):
        codecs.decode(blob)
    others = [
        (codecs.chain(Flatten()), x),
        (codecs.identity(), {"v": x["w"]}),
        (codecs.identity(), {"w": x["w"].reshape(2, 3)}),
        (codecs.identity(), {"w": x["w"].astype(np.int32)}),
        (codecs.uniform_quantization(8), x),
    ]
    for codec, tree in others:
        with pytest.raises(DecodeError, match="damaged or truncated, or made by another codec or for other shapes"):
            codecs.bind(codec, tree).decode(blob)


def test_payloads_with_description_and_another_codec():
    """A described payload that is decoded with another codec than its own is an error."""
    x = np.arange(6, dtype=np.float32)
    blob = codecs.encode(x, codecs.identity())
    assert same_bits(np.asarray(codecs.bind(codecs.identity(), x).decode(blob)), x)
    with pytest.raises(DecodeError, match="made by another codec or for other shapes than those it is decoded with"):
        codecs.bind(codecs.chain(Flatten()), x).decode(blob)


@pytest.mark.parametrize("blob", ["text", None, 7, np.zeros((4, 4))[::2, ::2]], ids=repr)
def test_payloads_that_are_not_bytes(blob):
    """Decoding what is not bytes is a type error."""
    with pytest.raises(ArgumentTypeError, match="a payload must be bytes, got"):
        codecs.decode(blob)


@pytest.mark.parametrize("kind", [bytearray, memoryview, lambda blob: np.frombuffer(blob, np.uint8)])
def test_payloads_in_any_buffer(kind):
    """Whatever has the buffer protocol will do."""
    assert codecs.decode(kind(codecs.encode(np.int8(3), codecs.identity()))) == 3


def test_a_tensor_that_is_too_large_to_describe():
    """Shapes beyond the format's limits are refused when the codec is bound."""
    with pytest.raises(ArgumentError, match="w must have at most 64 dimensions and 281474976710656 elements, got"):
        codecs.bind(codecs.identity(), {"w": jax.ShapeDtypeStruct((2**49,), np.float32)})


def test_coders_check_what_reaches_them():
    """A coder that cannot take its array is an error that names the output."""
    with pytest.raises(ArgumentTypeError, match="^w/range is float32"):
        codecs.bind(
            codecs.Codec(UniformQuantizer(8), (("quantized", FixedWidth(8)), ("range", FixedWidth(8)))),
            {"w": np.ones(3, np.float32)},
        )


def test_decoding_that_overflows():
    """A sender's own codec that turns finite numbers to infinity is found where they are decoded."""

    class Huge(Split):
        def decode(self, encoded, parameters, *, num_summands, spec):
            return super().decode(encoded, parameters, num_summands=num_summands, spec=spec) * jnp.inf

    Huge.name = "test.huge"
    bound = codecs.bind(Huge(), {"w": np.ones(3, np.float32)})
    blob = bound.encode({"w": np.ones(3, np.float32)})[0].blob
    with pytest.raises(DecodeError, match=r"w \(float32\[3\]\) decodes to NaN or infinity, which no encoder sends"):
        bound.decode(blob)


@pytest.mark.parametrize("described", [True, False])
def test_payloads_decode_without_their_bytes(described):
    """In one process a payload decodes to what its bytes decode to, and knows how many they would be."""
    bound = codecs.bind(codecs.chain(Flatten(), Trim()), MODEL)
    payload, _ = bound.encode(MODEL, described=described)
    assert len(payload) == len(payload.blob)
    assert len(payload) == payload.framing + sum(size.payload + size.side_information for size in payload.tensors)
    assert same_bits(jax.tree.map(np.asarray, bound.decode(payload)), jax.tree.map(np.asarray, MODEL))
    gathers = [bound.gather(), bound.gather()]
    for gather, sent in zip(gathers, (payload, payload.blob), strict=True):
        gather.add(sent)
    assert same_bits(*(jax.tree.map(np.asarray, gather.result()[0]) for gather in gathers))
    with pytest.raises(DecodeError, match="made by another codec or for other shapes than those it is decoded with"):
        codecs.bind(codecs.identity(), MODEL).decode(payload)


def test_payloads_hold_what_was_encoded():
    """Changing an array after it was encoded changes nothing that travels, even before its bytes are asked for."""
    x = np.ones(100_000, np.float32)
    payload, _ = codecs.bind(codecs.identity(), x).encode(x)
    x[:] = 2
    np.testing.assert_array_equal(np.frombuffer(payload.blob[4:-4], np.float32), 1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.zeros((2, 3), np.float32), True),
        (jnp.zeros((2, 3)), True),
        (np.zeros((2, 3), ">f4"), False),
        (np.zeros((3, 2), np.float32), False),
        (np.zeros((2, 3), np.float64), False),
        (jnp.zeros((2, 3), jnp.bfloat16), False),
        (jax.ShapeDtypeStruct((2, 3), np.float32), False),
        (1.0, False),
        (None, False),
    ],
)
def test_a_spec_knows_its_arrays(value, expected):
    """Of its shape and dtype, in the machine's byte order."""
    assert TensorSpec("x", (2, 3), np.dtype(np.float32)).is_of(value) is expected
