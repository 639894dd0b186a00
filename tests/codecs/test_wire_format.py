"""The format is what docs/wire-format.md says, and stays so: golden files, a worked example, an independent reader."""

import dataclasses
import importlib.util
import re
import struct
import zlib
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from codec_support import LargestSeen, same_bits

from laconic import codecs
from laconic.codecs import random
from laconic.errors import DecodeError

FOLDER = Path(__file__).parent / "golden"
PAGE = (Path(__file__).parents[2] / "docs" / "wire-format.md").read_text(encoding="utf-8")

spec = importlib.util.spec_from_file_location("codec_golden", FOLDER / "make.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)
FILES = {file.stem: file.read_bytes() for file in sorted(FOLDER.glob("*.bin"))}

DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64"),
)


class IndependentReader:
    """Reads payloads of version 1 from the page alone: no line of Laconic's is used."""

    def __init__(self, blob):
        self.blob, self.at = blob, 0

    def read(self):
        """The tree, with decoded arrays as leaves."""
        assert self.take(3) == b"LAC"
        assert self.take(1) == b"\x81"
        assert zlib.crc32(self.blob[:-4]) == struct.unpack("<I", self.blob[-4:])[0]
        end = self.varint() + self.at
        assert self.take(1) == b"\x00"
        table = [self.codec() for _ in range(self.varint())]
        tree = self.node()
        tensors = []
        while self.at < end:
            codec, dtype = table[self.varint()], self.dtype(self.take(1)[0])
            tensors.append((codec, dtype, tuple(self.varint() for _ in range(self.varint()))))
        arrays = [self.tensor(*tensor) for tensor in tensors]
        assert self.at == len(self.blob) - 4
        return self.filled(tree, iter(arrays))

    def take(self, count):
        self.at += count
        assert self.at <= len(self.blob)
        return self.blob[self.at - count : self.at]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def text(self):
        return self.take(self.varint()).decode()

    def constant(self):
        tag = self.take(1)[0]
        readers = {
            0: lambda: None,
            1: lambda: False,
            2: lambda: True,
            3: self.varint,
            4: lambda: -1 - self.varint(),
            5: lambda: struct.unpack("<d", self.take(8))[0],
            6: self.text,
            7: lambda: tuple(self.constant() for _ in range(self.varint())),
        }
        return readers[tag]()

    def dtype(self, code):
        return np.dtype(ml_dtypes.bfloat16 if DTYPES[code] == "bfloat16" else DTYPES[code])

    def codec(self):
        name = self.text()
        fields = {self.text(): self.constant() for _ in range(self.varint())}
        if name in ("raw", "fixed_width"):
            return name, fields, {}
        return name, fields, {self.text(): self.codec() for _ in range(self.varint())}

    def node(self):
        kind = self.take(1)[0]
        if kind < 2:
            return "tensor" if kind == 0 else None
        if kind == 5:
            self.text()
        if kind == 4:
            return {self.constant(): self.node() for _ in range(self.varint())}
        children = [self.node() for _ in range(self.varint())]
        return tuple(children) if kind == 3 else children

    def filled(self, node, arrays):
        if isinstance(node, dict):
            return {key: self.filled(child, arrays) for key, child in node.items()}
        if isinstance(node, list | tuple):
            return type(node)(self.filled(child, arrays) for child in node)
        return None if node is None else next(arrays)

    def tensor(self, codec, dtype, shape):
        name, fields, outputs = codec
        size = int(np.prod(shape, dtype=np.int64))
        if name in ("raw", "fixed_width"):
            return self.raw(dtype, shape, size) if name == "raw" else self.fixed_width(fields, dtype, shape, size)
        if name in ("identity", "flatten"):
            return self.tensor(outputs["values"], dtype, shape if name == "identity" else (size,)).reshape(shape)
        assert name == "uniform_quantizer"
        bits, given = fields["bits"], fields["value_range"]
        precision = np.float64 if dtype == np.float64 else np.float32
        codes = self.tensor(outputs["quantized"], np.dtype(np.uint8 if bits <= 8 else np.uint16), (size,))
        low, high = given or self.tensor(outputs["range"], np.dtype(precision), (2,))
        p = codes.astype(precision) / precision(2**bits - 1)
        return (precision(low) * (1 - p) + precision(high) * p).reshape(shape).astype(dtype)

    def raw(self, dtype, shape, size):
        return np.frombuffer(self.take(size * dtype.itemsize), dtype).reshape(shape)

    def fixed_width(self, fields, dtype, shape, size):
        bits = fields["bits"]
        if fields["packing"] == "dense":
            stream = int.from_bytes(self.take(-(-size * bits // 8)), "little")
        else:
            limbs = struct.iter_unpack("<i", self.take(4 * -(-size * bits // 28)))
            stream = sum(limb << (28 * i) for i, (limb,) in enumerate(limbs))
        return np.array([stream >> (i * bits) & (2**bits - 1) for i in range(size)], dtype).reshape(shape)


@pytest.fixture(scope="module")
def payloads():
    """What the golden cases encode to now."""
    return golden.payloads()


def test_golden_files_are_complete(payloads):
    """Each case has its file, and each file its case."""
    assert set(FILES) == set(payloads)


@pytest.mark.parametrize("name", FILES)
def test_encoding_still_gives_the_golden_bytes(name, payloads):
    """What was encoded when the format was fixed encodes to the same bytes."""
    assert payloads[name].hex(" ") == FILES[name].hex(" ")


@pytest.mark.parametrize("name", golden.TREES)
def test_golden_files_decode(name):
    """Payloads stored long ago decode to what was stored: lossless ones bit for bit, others within a step."""
    tree = golden.TREES[name]
    decoded = codecs.decode(FILES[name], like=tree if name == "named_tuple" else None)
    if name in ("stochastic", "nearest", "given_range", "precisions"):
        for x, x_hat in zip(*map(leaves, (tree, decoded)), strict=True):
            assert (x.shape, x.dtype) == (x_hat.shape, x_hat.dtype)
            clipped = np.minimum(x.astype(np.float64), 1.45) if name == "given_range" else x.astype(np.float64)
            assert np.abs(x_hat.astype(np.float64) - clipped).max() <= 3 / 7 + 1e-6
    else:
        assert same_bits(decoded, tree)


@pytest.mark.parametrize("name", [name for name in golden.TREES if name != "split"])
def test_an_independent_reader_agrees(name):
    """A reader written from the page alone reads the golden files to the same arrays, to the last place."""
    independent = IndependentReader(FILES[name]).read()
    decoded = codecs.decode(FILES[name], like=golden.TREES[name] if name == "named_tuple" else None)
    if name not in ("named_tuple", "stochastic", "nearest", "given_range", "precisions"):
        assert same_bits(independent, decoded)
    for x, x_hat in zip(*map(leaves, (independent, decoded)), strict=True):
        assert (x.shape, x.dtype) == (x_hat.shape, x_hat.dtype)
        eps = 2.0**-7 if x.dtype == ml_dtypes.bfloat16 else 2.0**-10 if x.dtype == np.float16 else 1e-6
        np.testing.assert_allclose(x.astype(np.float64), x_hat.astype(np.float64), rtol=eps, atol=1e-6)


def test_golden_adaptive_payloads():
    """Payloads with parameters decode by themselves, those with reports at a server in the right state."""
    bound = codecs.bind(codecs.chain(codecs.Flatten(), LargestSeen()), golden.WAVE)
    _, state = bound.encode(2 * golden.WAVE)
    np.testing.assert_allclose(codecs.decode(FILES["adaptive_broadcast"]), golden.WAVE, rtol=1e-6)
    contribution = bound.read_contribution(FILES["adaptive_contribution"], state)
    np.testing.assert_allclose(contribution.summands[0], golden.WAVE / 4, rtol=1e-6)
    assert [report.item() for report in contribution.reports[:3]] == [13, 2, -1]
    with pytest.raises(DecodeError, match="one of many to a receiver"):
        codecs.decode(FILES["adaptive_contribution"])


def test_golden_payload_without_description():
    """It decodes with the codec and the spec that it was made with."""
    bound = codecs.bind(codecs.identity(), golden.WAVE)
    assert same_bits(np.asarray(bound.decode(FILES["without_description"])), golden.WAVE)
    blob = FILES["without_description"]
    assert blob[:4] == b"LAC\x01"
    assert blob[4:-4] == golden.WAVE.tobytes()


def test_checksum_counts_a_description_that_does_not_travel():
    """The checksum is that of the leading bytes, the description as it would travel, and the sections."""
    bound = codecs.bind(codecs.identity(), golden.WAVE)
    described, bare = (bound.encode(golden.WAVE, described=flag)[0].blob for flag in (True, False))
    description = described[4 : len(described) - len(bare) + 4]
    assert int.from_bytes(bare[-4:], "little") == zlib.crc32(bare[:4] + description + bare[4:-4])
    assert int.from_bytes(described[-4:], "little") == zlib.crc32(described[:-4])


def test_the_pages_worked_example():
    """The page's program makes the page's bytes."""
    program = re.search(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL).group(1)
    namespace = {}
    exec(program, namespace)
    listing = re.search(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL).group(1)
    columns = [re.match(r"(?:[0-9a-f]{2}(?: |$))*", line).group(0) for line in listing.splitlines()]
    assert bytes.fromhex(" ".join(columns)) == namespace["blob"]
    independent = IndependentReader(namespace["blob"]).read()
    assert independent["bias"] == -3
    np.testing.assert_allclose(independent["kernel"], [0, 0, 8 / 3, 8], rtol=1e-6)


def test_the_pages_random_numbers():
    """The page's keys and words are those of the generator."""
    words = re.findall(r"`((?:[0-9a-f]{8} ?)+)`", PAGE)
    derived, drawn = ([int(word, 16) for word in group.split()] for group in words[-2:])
    assert derived == random.derive(random.key(7), 3).tolist()
    assert drawn == random.bits(random.key(7), 5).tolist()[:3]


def test_the_page_names_every_stage_and_coder():
    """Each stage and coder of the package has a section, alone or with others, that names its fields."""
    sections = [part.split("\n", 1) for part in re.split(r"^#{2,3} ", PAGE, flags=re.MULTILINE)[1:]]
    components = [
        each
        for each in vars(codecs).values()
        if isinstance(each, type) and isinstance(getattr(each, "name", None), str)
    ]
    assert len(components) > 30
    for component in components:
        texts = [text for heading, text in sections if f"`{component.name}`" in heading]
        assert len(texts) == 1, component.name
        for field in dataclasses.fields(component):
            assert f"`{field.name}`" in texts[0], f"{component.name}: {field.name}"


def leaves(tree):
    """The arrays of a tree, in order."""
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in leaves(tree[key])]
    if isinstance(tree, list | tuple):
        return [leaf for child in tree for leaf in leaves(child)]
    return [] if tree is None else [tree]
