"""Decoding is total: any bytes give arrays or a DecodeError, and no more memory than they deserve."""

import time
import tracemalloc
import zlib
from pathlib import Path

import hypothesis
import jax
import numpy as np
import pytest
from codec_support import Split, Trim, few_examples
from hypothesis import strategies as st

from laconic import codecs
from laconic.codecs import random
from laconic.codecs._wire import text, varint, write_constant
from laconic.errors import DecodeError

GOLDEN = {file.stem: file.read_bytes() for file in sorted((Path(__file__).parent / "golden").glob("*.bin"))}
VECTOR = np.linspace(-1, 1, 5, dtype=np.float32)


def with_checksum(body):
    """A payload whose checksum is right, whatever it says."""
    return body + zlib.crc32(body).to_bytes(4, "little")


def payload(description, sections=b"", first=b"LAC\x81"):
    """A payload that says what a test wants, in a whole frame."""
    return with_checksum(first + varint(len(description)) + description + sections)


def component(name, **fields):
    """A stage or coder as a description has it."""
    written = b"".join(text(field) + write_constant(value) for field, value in fields.items())
    return text(name) + varint(len(fields)) + written


def stage(name, outputs, **fields):
    """A stage with its outputs."""
    return component(name, **fields) + varint(len(outputs)) + b"".join(text(k) + v for k, v in outputs.items())


RAW = component("raw")
IDENTITY = stage("identity", {"values": RAW})
LEAF = b"\x00"


def uniform(bits=8, value_range=None, quantized=RAW, outer=RAW):
    """A uniform quantizer."""
    outputs = {"quantized": quantized, "range": outer}
    return stage("uniform_quantizer", outputs, bits=bits, value_range=value_range, stochastic=False)


def tensor(shape=(2,), dtype=11, codec=0):
    """A tensor of a description; float32."""
    return varint(codec) + bytes([dtype]) + varint(len(shape)) + b"".join(map(varint, shape))


def described(*codec_table, tree=LEAF, tensors=None, use=b"\x00", rest=b""):
    """A description."""
    tensors = tensor() if tensors is None else tensors
    return use + varint(len(codec_table)) + b"".join(codec_table) + tree + tensors + rest


def whole(*codec_table, sections=b"", first=b"LAC\x81", **description):
    """A payload with such a description."""
    return payload(described(*codec_table, **description), sections, first)


def outcome(blob, decode=codecs.decode):
    """The arrays, or the DecodeError; any other error fails the test."""
    try:
        return [np.asarray(leaf) for leaf in jax.tree.leaves(decode(blob))]
    except DecodeError as error:
        return error


def test_the_helpers_make_payloads():
    """What the tests damage is whole before."""
    blob = payload(described(IDENTITY), VECTOR[:2].tobytes())
    assert blob == codecs.encode(VECTOR[:2], codecs.identity())
    blob = payload(described(uniform(quantized=component("fixed_width", bits=8, packing="dense"))), bytes(2 + 8))
    np.testing.assert_array_equal(codecs.decode(blob), np.zeros(2))


@pytest.mark.parametrize("name", GOLDEN)
def test_every_truncation(name):
    """No beginning of a payload is one."""
    for length in range(len(GOLDEN[name])):
        assert isinstance(outcome(GOLDEN[name][:length]), DecodeError)


@pytest.mark.parametrize("name", GOLDEN)
def test_every_flipped_bit(name):
    """A payload with one bit flipped is never decoded: a CRC finds every such error."""
    for i in range(len(GOLDEN[name])):
        for bit in range(8):
            damaged = bytearray(GOLDEN[name])
            damaged[i] ^= 1 << bit
            assert isinstance(outcome(damaged), DecodeError)


def test_every_flipped_bit_without_description():
    """The same for a payload whose description the reader knows."""
    bound = codecs.bind(codecs.uniform_quantization(3, stochastic=False), VECTOR)
    blob = bound.encode(VECTOR)[0].blob
    for decode in (bound.decode, lambda blob: bound.read_contribution(blob).summands):
        assert not isinstance(outcome(blob, decode), DecodeError)
        for i in range(8 * len(blob)):
            damaged = bytearray(blob)
            damaged[i // 8] ^= 1 << (i % 8)
            assert isinstance(outcome(damaged, decode), DecodeError)
        for length in range(len(blob)):
            assert isinstance(outcome(blob[:length], decode), DecodeError)


@pytest.mark.parametrize("extra", [b"\x00", b"LAC", bytes(100)])
def test_bytes_after_the_end(extra):
    """Nothing may follow, even with a checksum that counts it."""
    for blob in GOLDEN.values():
        assert isinstance(outcome(blob + extra), DecodeError)
        assert isinstance(outcome(with_checksum(blob[:-4] + extra)), DecodeError)


FUZZED = {
    "raw": codecs.encode({"a": VECTOR, "b": [np.int16(3), None]}, codecs.identity()),
    "quantized": codecs.encode(VECTOR, codecs.uniform_quantization(5, stochastic=False)),
    "tff": codecs.encode(VECTOR, codecs.uniform_quantization(3, value_range=(-1, 1), stochastic=False, packing="tff")),
    "trimmed": codecs.encode(VECTOR, codecs.branch(Split(), even=Trim(), odd=codecs.chain(codecs.Flatten(), Trim()))),
}


@pytest.mark.parametrize("name", FUZZED)
def test_every_byte_changed_under_a_right_checksum(name):
    """Every byte of description and sections, replaced by others, gives arrays or a DecodeError, and nothing else."""
    blob = FUZZED[name]
    for i in range(4, len(blob) - 4):
        for value in {0, 127, 255, (blob[i] + 1) % 256} - {blob[i]}:
            damaged = bytearray(blob[:-4])
            damaged[i] = value
            outcome(with_checksum(bytes(damaged)))


edits = st.lists(
    st.tuples(st.sampled_from(["set", "insert", "delete"]), st.integers(0, 400), st.integers(0, 255)),
    min_size=1,
    max_size=4,
)


@hypothesis.settings(few_examples, max_examples=300)
@hypothesis.given(name=st.sampled_from(sorted(FUZZED)), edits=edits)
def test_random_edits_under_a_right_checksum(name, edits):
    """Bytes set, inserted and deleted anywhere give arrays or a DecodeError, and nothing else."""
    body = bytearray(FUZZED[name][:-4])
    for edit, place, value in edits:
        at = place % len(body)
        if edit == "insert":
            body.insert(at, value)
        elif edit == "delete":
            del body[at]
        else:
            body[at] = value
    outcome(with_checksum(bytes(body)))


@hypothesis.settings(few_examples, max_examples=200)
@hypothesis.given(st.binary(max_size=60), st.binary(max_size=20))
def test_random_bytes_in_a_frame(description, sections):
    """Random descriptions and sections in a whole frame give arrays or a DecodeError, and nothing else."""
    outcome(payload(description, sections))
    outcome(description)


def nested(prefix, depth, inner):
    """The prefix, many times, and then the inner."""
    return prefix * depth + inner


DEEP_CODEC = text("flatten") + b"\x00\x01" + text("values")

MALFORMED = {
    "no bytes": (b"", "the bytes are not a Laconic payload"),
    "another beginning": (whole(IDENTITY, sections=bytes(8), first=b"ZIP\x81"), "begins with b'LAC', got .* b'ZIP'"),
    "version 2": (
        whole(IDENTITY, sections=bytes(8), first=b"LAC\x82"),
        "version 2, but this release reads version 1; upg",
    ),
    "version 0": (whole(IDENTITY, sections=bytes(8), first=b"LAC\x80"), "format version 0"),
    "use 2": (whole(IDENTITY, use=b"\x02", sections=bytes(8)), "use must be 0 or 1, got 2"),
    "empty description": (payload(b""), "truncated: the payload's use needs 1 bytes, 0 are left"),
    "long description": (with_checksum(b"LAC\x81\xff\xff\x7f"), "truncated: the description needs 2097151 bytes"),
    "rest": (whole(IDENTITY, rest=b"\x00", sections=bytes(8)), "1 bytes follow the description's end"),
    "short section": (whole(IDENTITY, sections=bytes(7)), "truncated: a section of .* needs 8 bytes, 7 are left"),
    "long section": (whole(IDENTITY, sections=bytes(9)), "1 bytes follow the payload's last section"),
    # Numbers and texts.
    "long varint": (payload(b"\x00" + b"\xff" * 9 + b"\x01"), "the table of codecs is longer than 9 bytes"),
    "padded varint": (payload(b"\x00\x81\x00"), "the table of codecs is not in its shortest form"),
    "no UTF-8": (payload(b"\x00\x01\x02\xff\xfe"), "a codec's name is not UTF-8"),
    "unknown tag": (whole(text("flatten") + b"\x01" + text("a") + b"\x08"), "unknown tag 8"),
    "deep tuple": (whole(text("flatten") + b"\x01" + text("a") + b"\x07\x01" * 40), "more than 32 deep"),
    # Codecs.
    "unknown codec": (whole(stage("nobody.knows", {"values": RAW})), "'nobody.knows', which is not among"),
    "coder alone": (whole(RAW), "codec must begin with a stage, got 'raw'"),
    "a field too many": (whole(stage("identity", {"values": RAW}, bits=3)), "has the fields \\(\\), but"),
    "a field too few": (whole(stage("uniform_quantizer", {}, bits=3)), "has the fields \\('bits', 'value"),
    "a field twice": (whole(uniform().replace(text("value_range"), text("bits"))), "has the fields"),
    "bits 17": (whole(uniform(17)), r"'uniform_quantizer' cannot be made from the fields .*1\.\.16, got 17"),
    "bits of another type": (whole(uniform("x")), "bits must be a whole number"),
    "a range that is none": (whole(uniform(value_range=(1.0, 0.0))), "low < high"),
    "an output too few": (whole(stage("identity", {})), "outputs \\('values',\\), but the payload names oth"),
    "an output twice": (
        whole(text("identity") + b"\x00\x02" + (text("values") + RAW) * 2),
        "has the outputs .* but the payload names others",
    ),
    "another output": (whole(stage("identity", {"value": RAW})), "cannot have its output|names others"),
    "not compressible": (whole(uniform(outer=IDENTITY)), "cannot have its output 'range' encoded further"),
    "deep codec": (payload(b"\x00\x01" + nested(DEEP_CODEC, 65, RAW)), "more than 64 stages one after another"),
    "a codec twice": (whole(IDENTITY, IDENTITY, sections=bytes(8)), "lists a codec twice, or one that no tensor has"),
    "an unused codec": (whole(IDENTITY, uniform(), sections=bytes(8)), "lists a codec twice, or one that no tensor"),
    "position 1 of 1": (whole(IDENTITY, tensors=tensor(codec=1)), "names codec 1 of 1"),
    "out of order": (
        whole(IDENTITY, uniform(), tree=b"\x02\x02\x00\x00", tensors=tensor(codec=1) + tensor()),
        "names codec 1 of 2, the first 0 of which were used before",
    ),
    "integers quantized": (whole(uniform(), tensors=tensor(dtype=3)), "takes floating-point arrays"),
    "floats packed": (
        whole(stage("identity", {"values": component("fixed_width", bits=3, packing="dense")})),
        "fixed-width coding takes integers",
    ),
    # Trees.
    "unknown node": (whole(IDENTITY, tree=b"\x06"), "a node has the unknown kind 6"),
    "deep tree": (whole(IDENTITY, tree=nested(b"\x02\x01", 65, LEAF)), "nested more than 64 deep"),
    "very deep tree": (whole(IDENTITY, tree=nested(b"\x02\x01", 10**5, LEAF)), "nested more than 64 deep"),
    "keys twice": (whole(tree=b"\x04\x02" + (b"\x06\x01a" + b"\x01") * 2, tensors=b""), "ascend, got 'a' after"),
    "keys descending": (whole(tree=b"\x04\x02\x03\x02\x01\x03\x01\x01", tensors=b""), "ascend, got 1 after 2"),
    "keys mixed": (whole(tree=b"\x04\x02\x03\x02\x01\x06\x01a\x01", tensors=b""), "all str or all int"),
    "a float key": (whole(tree=b"\x04\x01\x05" + bytes(8) + b"\x01", tensors=b""), "got 0.0 after None"),
    "a true key": (whole(tree=b"\x04\x01\x02\x01", tensors=b""), "got True after None"),
    # Tensors.
    "dtype 13": (whole(IDENTITY, tensors=tensor(dtype=13)), "dtype code 13 is unknown"),
    "65 dimensions": (whole(IDENTITY, tensors=tensor((1,) * 65), sections=bytes(4)), "65 dimensions, more than 64"),
    "truth value 2": (whole(IDENTITY, tensors=tensor(dtype=0), sections=b"\x01\x02"), "truth value that is neither"),
    "NaN": (whole(IDENTITY, sections=np.float32([1, np.nan]).tobytes()), "decodes to NaN or infinity"),
    "infinity": (whole(IDENTITY, sections=np.float32([np.inf, 1]).tobytes()), "decodes to NaN or infinity"),
    "a range of NaN": (whole(uniform(), sections=bytes(2) + np.float32([np.nan, 1]).tobytes()), "decodes to NaN"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_payloads(name):
    """Each kind of malformed payload is a DecodeError that says what is wrong."""
    blob, message = MALFORMED[name]
    with pytest.raises(DecodeError, match=message):
        codecs.decode(blob)


MANY = 2**62
PACKED = component("fixed_width", bits=1, packing="dense")
GREEDY = {
    "a trillion floats": described(IDENTITY, tensors=tensor((2**40,))),
    "2^48 bools": described(IDENTITY, tensors=tensor((2**48,), dtype=0)),
    "2^49 bools": described(IDENTITY, tensors=tensor((2**49,), dtype=0)),
    "2^62 by 2^62": described(IDENTITY, tensors=tensor((MANY, MANY))),
    "none by 2^62": described(IDENTITY, tensors=tensor((0, MANY))),
    "a trillion codes": described(uniform(1, quantized=PACKED), tensors=tensor((2**40,))),
    "a trillion codes of a given range": described(uniform(16, (0.0, 1.0)), tensors=tensor((2**20, 2**20))),
    "64 dimensions": described(IDENTITY, tensors=tensor((2,) * 47 + (1,) * 17)),
    "many codecs": b"\x00" + varint(MANY),
    "many fields": b"\x00\x01" + text("identity") + varint(MANY),
    "many outputs": b"\x00\x01" + text("identity") + b"\x00" + varint(MANY),
    "many items": described(IDENTITY, tree=b"\x02" + varint(MANY)),
    "many keys": described(IDENTITY, tree=b"\x04" + varint(MANY)),
    "a long tuple": b"\x00\x01" + text("flatten") + b"\x01" + text("a") + b"\x07" + varint(MANY),
    "a long text": b"\x00\x01" + varint(MANY),
    "a long shape": described(IDENTITY, tensors=b"\x00\x0b" + varint(MANY)),
    "a long name above many leaves": described(
        IDENTITY, tree=b"\x04\x01\x06" + text("x" * 50_000) + b"\x02" + varint(5_000) + LEAF * 5_000, tensors=b"\x05"
    ),
    "many empty lists": described(IDENTITY, tree=b"\x02" + varint(5_000) + b"\x02\x00" * 5_000, tensors=b"\x05"),
}


@pytest.mark.parametrize("name", GREEDY)
def test_nothing_is_allocated_on_the_word_of_a_payload(name):
    """What announces more than it brings is rejected at once, in memory of the payload's own order."""
    blob = payload(GREEDY[name], bytes(64))
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(DecodeError):
            codecs.decode(blob)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000 + 60 * len(blob)
    assert time.process_time() - start < 5


def test_no_elements_in_a_large_dimension():
    """An empty tensor with a large dimension is as good as another."""
    decoded = codecs.decode(payload(described(IDENTITY, tensors=tensor((0, 2**31 - 1)))))
    assert decoded.shape == (0, 2**31 - 1)
    assert decoded.size == 0


def test_length_fields_that_lie():
    """A section of a coder whose length depends on the values is cut where it says, and must fit."""
    blob = FUZZED["trimmed"][:-4]
    assert codecs.decode(with_checksum(blob)).shape == (5,)
    section = VECTOR[0::2].tobytes()
    assert b"\x0c" + section in blob
    for length in (0, 1, 200, 2**62):
        lie = with_checksum(blob.replace(b"\x0c" + section, varint(length) + section))
        assert isinstance(outcome(lie), DecodeError)


def test_contributions_are_checked_alike():
    """A damaged, greedy or non-finite contribution is a DecodeError at the server."""
    bound = codecs.bind(codecs.uniform_quantization(8), VECTOR)
    blob = bound.encode_contribution(VECTOR, key=random.key(0)).blob
    with pytest.raises(DecodeError, match="checksum does not match"):
        bound.gather().add(blob[:-5] + bytes([blob[-5] ^ 1]) + blob[-4:])
    raw = codecs.bind(codecs.identity(), VECTOR)
    described_blob = raw.encode_contribution(VECTOR, described=True).blob
    poisoned = with_checksum(described_blob[:-24] + np.full(5, np.nan, np.float32).tobytes())
    with pytest.raises(DecodeError, match="decodes to NaN or infinity"):
        raw.gather().add(poisoned)
