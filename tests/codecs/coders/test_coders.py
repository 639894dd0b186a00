"""Coders write the bits that the format says, refuse what they cannot write, and reject what nobody wrote."""

import hypothesis
import numpy as np
import pytest
from codec_support import DTYPES, INTEGERS, Trim, array_of, few_examples, same_bits
from hypothesis import strategies as st

from laconic import codecs
from laconic.codecs import FixedWidth, Raw, TensorSpec
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError

TUTORIAL = {
    "conv1": {"kernel": (5, 5, 1, 32), "bias": (32,)},
    "conv2": {"kernel": (5, 5, 32, 64), "bias": (64,)},
    "dense": {"kernel": (3136, 512), "bias": (512,)},
    "logits": {"kernel": (512, 10), "bias": (10,)},
}
"""Shapes of the tutorial's CNN, 1,663,370 parameters."""


def spec(shape, dtype=np.uint16):
    """A spec without a name."""
    return TensorSpec("", shape, np.dtype(dtype))


def bit_stream(codes, bits):
    """The codes as one number whose bits are the stream: slow, and plain to see."""
    return sum(int(code) << (i * bits) for i, code in enumerate(codes))


def dense_reference(codes, bits):
    """The stream's bytes."""
    return bit_stream(codes, bits).to_bytes(-(-len(codes) * bits // 8), "little")


def tff_reference(codes, bits):
    """The stream's 28-bit limbs, each an int32."""
    stream = bit_stream(codes, bits)
    count = -(-len(codes) * bits // 28)
    return b"".join(((stream >> (28 * i)) & (2**28 - 1)).to_bytes(4, "little") for i in range(count))


lengths_and_codes = st.integers(1, 16).flatmap(
    lambda bits: st.tuples(st.just(bits), st.lists(st.integers(0, 2**bits - 1), max_size=70))
)


@pytest.mark.parametrize(("packing", "reference"), [("dense", dense_reference), ("tff", tff_reference)])
@hypothesis.settings(few_examples, max_examples=200)
@hypothesis.given(drawn=lengths_and_codes)
def test_packing_is_the_bit_stream(packing, reference, drawn):
    """For every width and length the bytes are those of a slow reference, and come back."""
    bits, codes = drawn
    coder = FixedWidth(bits, packing)
    array = np.array(codes, np.uint16)
    coded = bytes(coder.encode(array))
    assert coded == reference(codes, bits)
    assert len(coded) == coder.size(spec(array.shape))
    np.testing.assert_array_equal(coder.decode(memoryview(coded), spec(array.shape)), array)


@pytest.mark.parametrize("bits", range(1, 17))
def test_packing_of_many_codes(bits):
    """Every width round-trips all its codes, through lengths that do not fill the last byte, in both packings."""
    codes = np.random.default_rng(bits).integers(0, 2**bits, (3, 5, 67)).astype(np.uint16)
    codes.flat[:2] = 0, 2**bits - 1
    for packing, reference in (("dense", dense_reference), ("tff", tff_reference)):
        coder = FixedWidth(bits, packing)
        coded = bytes(coder.encode(codes))
        assert coded == reference(codes.ravel(), bits)
        assert same_bits(coder.decode(memoryview(coded), spec(codes.shape)), codes)


@pytest.mark.parametrize(("bits", "limbs"), [(1, [13]), (2, [81]), (3, [577]), (4, [4353]), (8, [16842753, 0])])
def test_tff_limbs(bits, limbs):
    """Packing 1, 0, 1, 1, 0 gives the limbs that tensor_encoding gives."""
    coded = FixedWidth(bits, "tff").encode(np.array([1, 0, 1, 1, 0]))
    np.testing.assert_array_equal(np.frombuffer(coded, "<i4"), limbs)


@pytest.mark.parametrize("packing", ["dense", "tff"])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_packing_of_any_integer_dtype(dtype, packing):
    """Codes may be of any integer dtype that holds them, and come back in it; no codes take no bytes."""
    for codes in (np.arange(100, dtype=dtype), np.zeros((0, 3), dtype), np.array(5, dtype)):
        coder = FixedWidth(7, packing)
        coded = coder.encode(codes)
        assert same_bits(coder.decode(memoryview(coded), spec(codes.shape, dtype)), codes)
    assert len(coder.encode(np.zeros(0, dtype))) == 0


@pytest.mark.parametrize("packing", ["dense", "tff"])
@pytest.mark.parametrize("bits", [1, 5, 8, 16])
def test_codes_out_of_range(bits, packing):
    """A code that does not fit its bits is an error in either direction, where TFF would be silently wrong."""
    for wrong in (-1, 2**bits, -(2**bits), 2**40):
        with pytest.raises(ArgumentError, match=rf"must lie in 0\.\.{2**bits - 1}, got values from"):
            FixedWidth(bits, packing).encode(np.array([0, wrong]))
    with pytest.raises(ArgumentError, match="give the coder more bits"):
        codecs.encode(np.array([3, 2**bits]), codecs.chain(codecs.Identity(), FixedWidth(bits, packing)))


@pytest.mark.parametrize(("packing", "length"), [("dense", 5), ("tff", 8)])
def test_wrong_length(packing, length):
    """A section must have exactly the bytes that its codes take."""
    assert FixedWidth(5, packing).size(spec((8,))) == length
    for wrong in (0, length - 1, length + 1):
        with pytest.raises(DecodeError, match=rf"for uint16\[8\] must have {length} bytes, got {wrong}"):
            FixedWidth(5, packing).decode(memoryview(bytes(wrong)), spec((8,)))


def test_bits_after_the_stream():
    """Bits that no code occupies must be zero."""
    with pytest.raises(DecodeError, match="unused bits at the end of a fixed-width section are not zero"):
        FixedWidth(3).decode(memoryview(b"\x40"), spec((2,)))
    with pytest.raises(DecodeError, match="unused bits at the end of a tff-packed section are not zero"):
        FixedWidth(3, "tff").decode(memoryview(b"\x00\x01\x00\x00"), spec((2,)))
    for top in (b"\x00\x00\x00\x10", b"\x00\x00\x00\x80"):
        with pytest.raises(DecodeError, match=r"a limb of a tff-packed section is not below 2\*\*28"):
            FixedWidth(3, "tff").decode(memoryview(top), spec((9,)))


def test_codes_that_the_dtype_does_not_hold():
    """A code beyond the array's own dtype does not wrap around."""
    with pytest.raises(DecodeError, match=r"holds 200, which does not fit it"):
        FixedWidth(8).decode(memoryview(bytes([200])), spec((1,), np.int8))
    with pytest.raises(DecodeError, match=r"holds 256, which does not fit it"):
        FixedWidth(16).decode(memoryview(b"\x00\x01"), spec((1,), np.uint8))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.bool_])
def test_fixed_width_takes_integers(dtype):
    """Packing floats is an error that says what to do, when the codec is bound."""
    with pytest.raises(ArgumentTypeError, match=r"^w/values is .*, but fixed-width coding takes integers; quantize"):
        codecs.bind(codecs.chain(codecs.Identity(), FixedWidth(8)), {"w": np.zeros(3, dtype)})


def test_wrong_options():
    """Wrong bits and packings are named."""
    with pytest.raises(ArgumentError, match=r"bits must lie in 1\.\.16, got 17"):
        FixedWidth(17)
    with pytest.raises(ArgumentTypeError, match="bits must be a whole number"):
        FixedWidth(2.0)
    with pytest.raises(ArgumentError, match="packing must be one of 'dense', 'tff', got 'zip'"):
        codecs.uniform_quantization(8, packing="zip")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_raw_is_the_arrays_bytes(dtype):
    """Raw writes the elements in C order, whatever the layout in memory, and reads them back."""
    array = array_of((3, 4), dtype)
    for layout in (array, np.asfortranarray(array), array[::-1, ::2]):
        coded = bytes(Raw().encode(layout))
        assert coded == np.ascontiguousarray(layout).tobytes()
        assert same_bits(Raw().decode(memoryview(coded), spec(layout.shape, dtype)), np.ascontiguousarray(layout))
        assert len(coded) == Raw().size(spec(layout.shape, dtype))


def test_raw_rejects():
    """Wrong lengths, and truth values that are neither 0 nor 1."""
    with pytest.raises(DecodeError, match=r"for float32\[2\] must have 8 bytes, got 7"):
        Raw().decode(memoryview(bytes(7)), spec((2,), np.float32))
    with pytest.raises(DecodeError, match="holds a truth value that is neither 0 nor 1"):
        Raw().decode(memoryview(b"\x00\x02"), spec((2,), np.bool_))


@pytest.mark.parametrize(
    ("packing", "quantized_bits"),
    # ceil(n * 8 / 28) int32, or n bytes, for the two large tensors; and their two float32 ranges.
    [("tff", 32 * (14_629 + 458_752) + 4 * 32), ("dense", 8 * (51_200 + 1_605_632) + 4 * 32)],
)
def test_traffic_of_the_tutorial(packing, quantized_bits):
    """The tutorial's model takes TFF's 15,357,536 bits at 8 bit and 53,227,840 in fp32, and that is what travels."""
    model = {
        layer: {name: np.ones(shape, np.float32) for name, shape in own.items()} for layer, own in TUTORIAL.items()
    }

    def codec_for(tensor):
        large = codecs.uniform_quantization(8, stochastic=False, packing=packing)
        return large if tensor.size > 10_000 else codecs.identity()

    plain, _ = codecs.bind(codecs.identity(), model).encode(model)
    assert sum(tensor.tensor_bits for tensor in plain.tensors) == 1_663_370 * 32 == 53_227_840
    assert len(plain.blob) == 53_227_840 // 8 + plain.framing
    payload, _ = codecs.bind(codec_for, model).encode(model)
    bits = sum(tensor.tensor_bits for tensor in payload.tensors)
    assert bits == quantized_bits + 6_538 * 32 == {"tff": 15_357_536, "dense": 13_464_000}[packing]
    assert 8 * (len(payload.blob) - payload.framing) == bits
    assert [tensor.name for tensor in payload.tensors] == [
        f"{layer}/{name}" for layer in ("conv1", "conv2", "dense", "logits") for name in ("bias", "kernel")
    ]
    assert [tensor.side_information for tensor in payload.tensors] == [0, 0, 0, 8, 0, 8, 0, 0]


def test_tensor_bits_of_truth_values():
    """TFF counts one bit for a truth value; a byte travels."""
    payload, _ = codecs.bind(codecs.identity(), np.zeros(9, bool)).encode(np.zeros(9, bool))
    assert payload.tensors[0].tensor_bits == 9
    assert payload.tensors[0].payload == 9


def test_a_coder_whose_length_depends_on_the_values():
    """Its sections carry their length, which counts as side information; no size is known beforehand."""
    codec = codecs.chain(codecs.Identity(), Trim())
    tree = [np.zeros(1000, np.float32), np.arange(3, dtype=np.int16)]
    assert codecs.payload_size(tree, codec) is None
    assert codecs.bind(codec, tree).static_size() is None
    payload, _ = codecs.bind(codec, tree).encode(tree)
    assert [tensor.side_information for tensor in payload.tensors] == [1, 1]
    assert len(payload.blob) < 100
    assert same_bits(codecs.decode(codecs.encode(tree, codec)), tree)
