"""What comes back from bytes is what went in: any tree, any dtype, any shape, here and in another process."""

import collections
import dataclasses
from typing import Any, NamedTuple

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from codec_support import DTYPES, FLOATS, Trim, array_of, few_examples, run_elsewhere, same_bits, shapes
from hypothesis import strategies as st

from laconic import codecs
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError

SHAPES = [(), (0,), (1,), (3, 0, 2), (7,), (2, 3), (1, 1, 1, 1, 1), (2, 1, 2, 1, 2, 1, 2, 1, 2), (1,) * 40]


class Layer(NamedTuple):
    """A node that bytes cannot name."""

    kernel: Any
    bias: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Record:
    """A registered node."""

    first: Any
    second: Any


def round_trip(tree, codec=None, **arguments):
    """Through bytes and back."""
    return codecs.decode(codecs.encode(tree, codec or codecs.identity(), seed=1), **arguments)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_dtype_and_shape(dtype):
    """Arrays of random bits of every dtype, scalars, empty ones and ones of many dimensions come back bit for bit."""
    tree = [array_of(shape, dtype, seed) for seed, shape in enumerate(SHAPES)]
    assert same_bits(round_trip(tree), tree)


def test_flattened_shapes():
    """Any shape, a scalar too, comes back from one dimension."""
    tree = [array_of(shape, np.dtype(np.float32), seed) for seed, shape in enumerate(SHAPES)]
    assert same_bits(round_trip(tree, codecs.chain(codecs.Flatten())), tree)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_extreme_floats(dtype):
    """Negative zero, subnormal and the largest numbers come back bit for bit."""
    info = jnp.finfo(dtype)
    numbers = [0.0, -0.0, info.smallest_subnormal, -info.smallest_subnormal, info.tiny, info.max, info.min, info.eps]
    array = np.array(numbers, dtype)
    assert np.signbit(array[1])
    assert same_bits(round_trip(array), array)


def test_extreme_integers():
    """The ends of 64-bit integers come back."""
    tree = {"signed": np.array([-(2**63), 2**63 - 1]), "unsigned": np.array([0, 2**64 - 1], np.uint64)}
    assert same_bits(round_trip(tree), tree)


def test_arrays_in_any_memory_layout():
    """Strided, transposed, reversed, read-only and big-endian arrays come back as what they hold."""
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    frozen = array.copy()
    frozen.flags.writeable = False
    tree = [array[::2, 1::3], array.T, array[::-1], np.asfortranarray(array), frozen]
    assert same_bits(round_trip(tree), [np.ascontiguousarray(leaf) for leaf in tree])
    assert same_bits(round_trip(array.astype(">f4")), array)
    assert same_bits(round_trip(jnp.asarray(array)), array)


def test_python_numbers():
    """Python's numbers are read as JAX reads them: bool, int32, float32."""
    decoded = round_trip({"a": True, "b": -7, "c": 1.5, "d": np.float64(2.5)})
    assert same_bits(decoded, {"a": np.array(True), "b": np.int32(-7), "c": np.float32(1.5), "d": np.float64(2.5)})


def test_python_integers_beyond_32_bits():
    """An integer that int32 cannot hold is an error that names the way out."""
    with pytest.raises(ArgumentError, match=r"count is read as int32, which 1099511627776 does not fit; use np.int64"):
        codecs.encode({"count": 2**40}, codecs.identity())


@pytest.mark.parametrize(
    "tree",
    [
        np.float32(3),
        [],
        {},
        None,
        (),
        [None, np.float32(1), (), {}],
        {"b": [np.zeros(2, np.int8), (np.ones(1, bool),)], "a": {"": None, "ü/x": np.float64(1)}},
        {10: np.int8(1), 9: np.int8(2), -3: np.int8(3)},
        ((((np.int8(1),),),),),
    ],
    ids=repr,
)
def test_trees(tree):
    """Dicts, lists, tuples and None come back by themselves, nested in any way, even without any tensor."""
    assert same_bits(round_trip(tree), tree)


arrays = st.tuples(shapes, st.sampled_from(DTYPES), st.integers(0, 99)).map(lambda drawn: array_of(*drawn))
trees = st.recursive(
    arrays | st.none(),
    lambda below: (
        st.lists(below, max_size=3)
        | st.lists(below, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), below, max_size=3)
        | st.dictionaries(st.integers(-(2**63), 2**63 - 1), below, max_size=3)
    ),
    max_leaves=5,
)


@few_examples
@hypothesis.given(tree=trees)
def test_any_tree(tree):
    """Whatever tree of whatever arrays comes back bit for bit, of the size that was announced."""
    blob = codecs.encode(tree, codecs.identity())
    assert same_bits(codecs.decode(blob), tree)
    assert len(blob) == codecs.payload_size(tree, codecs.identity())


@pytest.mark.parametrize(
    "tree",
    [
        Layer(np.ones(2, np.float32), [np.zeros(1, np.int8)]),
        Record(np.ones(2, np.float32), {"x": np.zeros(1, np.int8)}),
        collections.OrderedDict(b=np.int8(1), a=np.int8(2)),
        [Layer(np.int8(1), None), Layer(np.int8(1), Layer(np.int8(2), np.int8(3)))],
    ],
    ids=lambda tree: type(tree).__name__,
)
def test_nodes_that_bytes_cannot_name(tree):
    """Named tuples and registered classes come back with a tree to copy them from, and say so without one."""
    blob = codecs.encode(tree, codecs.identity())
    assert same_bits(codecs.decode(blob, like=tree), tree)
    with pytest.raises(DecodeError, match=r"has a node of class '.*', which bytes cannot make; pass like="):
        codecs.decode(blob)


@pytest.mark.parametrize("like", [[0, 0], (0,), {"a": 0, "b": 0}, Record(0, 0), 0])
def test_a_tree_to_copy_must_have_the_same_structure(like):
    """Another structure than the payload's is an error, even of as many leaves."""
    blob = codecs.encode(Layer(np.int8(1), np.int8(2)), codecs.identity())
    with pytest.raises(DecodeError, match="another structure than `like`"):
        codecs.decode(blob, like=like)


def test_a_tree_to_copy_may_name_what_bytes_name_too():
    """`like` is welcome where it is not needed."""
    tree = {"a": [np.int8(1), np.int8(2)]}
    assert same_bits(round_trip(tree, like={"a": [0, 0]}), tree)


def test_decoded_arrays_are_read_only():
    """What was decoded cannot be changed by accident."""
    assert not round_trip(np.ones(3, np.float32)).flags.writeable


@pytest.mark.parametrize(
    ("leaf", "got"),
    [
        ("text", "'text' of type str"),
        (object(), "of type object"),
        (1j, "1j of type complex"),
        (np.ones(2, np.complex64), "got complex64"),
        (np.array(["text"]), "got <U4"),
        (np.array([None]), "got object"),
        (np.array([1], "datetime64[s]"), "got datetime64"),
        (jnp.zeros(2, jnp.float8_e4m3fn), "got float8_e4m3fn"),
        (jax.random.key(0), r"got key<fry>"),
        (np.zeros(1, [("a", np.int8)]), "got "),
        (b"bytes", "of type bytes"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_leaves_that_are_not_arrays(leaf, got):
    """What cannot travel is an error that names the leaf and its type."""
    with pytest.raises(ArgumentTypeError, match=rf"^layer/0 must be .*{got}"):
        codecs.encode({"layer": [leaf]}, codecs.identity())


@pytest.mark.parametrize(
    ("tree", "error", "message"),
    [
        ({1.5: np.int8(1)}, ArgumentTypeError, r"a dict key in the tree must be str or int, got 1\.5 of type float"),
        ({True: np.int8(1)}, ArgumentTypeError, "must be str or int, got True of type bool"),
        ({1: np.int8(1), "a": np.int8(1)}, ArgumentError, "are a dict's keys all of one type"),
        ({2**63: np.int8(1)}, ArgumentTypeError, r"int \(of 64 bits\)"),
        ({"\ud800": np.int8(1)}, ArgumentError, "cannot be written as UTF-8"),
    ],
)
def test_dict_keys_that_cannot_travel(tree, error, message):
    """Keys are strings or integers of 64 bits."""
    with pytest.raises(error, match=message):
        codecs.encode(tree, codecs.identity())


def test_trees_that_are_nested_too_deep():
    """A tree may be nested 64 deep, and decodes then; one more is an error."""
    tree = np.int8(1)
    for _ in range(64):
        tree = [tree]
    assert same_bits(round_trip(tree), tree)
    with pytest.raises(ArgumentError, match="nested at most 64 deep"):
        codecs.encode([tree], codecs.identity())


ELSEWHERE = """
import pathlib, sys
import codec_support
from laconic import codecs
folder = pathlib.Path(sys.argv[1])
decoded = [codecs.decode(file.read_bytes()) for file in sorted(folder.glob("*.bin"))]
(folder / "all.again").write_bytes(codecs.encode(decoded, codecs.identity()))
"""


def test_another_process_decodes_the_same(tmp_path):
    """A fresh process decodes files to the same bits as this one."""
    vector = np.linspace(-3, 5, 50, dtype=np.float32)
    cases = [
        (codecs.identity(), {dtype.name: array_of((3, 2), dtype) for dtype in DTYPES}),
        (codecs.identity(), [{"a": (np.int8(1), None)}, [], np.zeros((0, 3), np.float16)]),
        (codecs.uniform_quantization(5), {"w": vector, "half": vector.astype(np.float16)}),
        (codecs.uniform_quantization(3, packing="tff"), [vector, vector.astype(np.float64)]),
        (codecs.chain(codecs.Flatten(), Trim()), [vector, np.zeros(500)]),
    ]
    blobs = [codecs.encode(tree, codec, seed=4) for codec, tree in cases]
    for i, blob in enumerate(blobs):
        (tmp_path / f"{i}.bin").write_bytes(blob)
    run_elsewhere(ELSEWHERE, tmp_path)
    elsewhere = codecs.decode((tmp_path / "all.again").read_bytes())
    for (codec, tree), blob, decoded in zip(cases, blobs, elsewhere, strict=True):
        assert same_bits(decoded, codecs.decode(blob))
        if codec.is_lossless:
            assert same_bits(decoded, tree)
