"""What holds for every ready-made codec: odd inputs, refusals, and the same bits in every process."""

import hashlib
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import LOSSLESS, LOSSY, NAMES, ONE_RECEIVER
from codec_support import run_elsewhere, same_bits

from laconic import codecs
from laconic.errors import ArgumentTypeError, NonFiniteError

FOLDER = Path(__file__).parent / "golden_codecs"
GENERATOR = np.random.default_rng(0)
ODD = {
    "empty": np.zeros((0, 3), np.float32),
    "one": np.float32([0.75]),
    "strided": GENERATOR.normal(size=(6, 8)).astype(np.float32).T[::2],
    "half": GENERATOR.normal(size=7).astype(np.float16),
    "brain": GENERATOR.normal(size=()).astype(jnp.bfloat16),
    "double": GENERATOR.normal(size=(3, 7)),
}
"""No entry, one, a scalar, strided memory, and every float dtype."""

spec = importlib.util.spec_from_file_location("golden_codecs", FOLDER / "make.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)


def test_the_package_has_all_factories():
    """The names that users were promised are there, each with its rate, error, bias and source."""
    for name in NAMES:
        docstring = getattr(codecs, name).__doc__
        assert docstring
        if name not in ("identity", "chain", "concatenate"):
            for part in (
                "Rate",
                "rror",
                "ias",
                "ommut",
                "Source:" if name not in ("auto", "cast", "adaptive", "error_feedback") else "",
            ):
                assert part in docstring, f"{name}: {part}"


@pytest.mark.parametrize("name", [*LOSSLESS, *LOSSY])
def test_odd_inputs(name):
    """Empty, scalar, one entry, zeros, constants, strided memory, every float dtype: shapes and dtypes come back."""
    codec = (LOSSLESS | LOSSY)[name]
    bound = codecs.bind(codec, ODD)
    state = codecs.initial_state(ODD, codec)

    def through(tree):
        payload, _ = bound.encode(tree, key=codecs.random.key(3), state=state)
        return payload.blob, jax.tree.map(np.asarray, bound.decode(payload.blob))

    contiguous = jax.tree.map(np.ascontiguousarray, ODD) | {"brain": ODD["brain"]}
    assert through(ODD)[0] == through(contiguous)[0]
    for value in (None, 0.0, 0.5):
        tree = ODD if value is None else {key: np.full(x.shape, value, x.dtype) for key, x in ODD.items()}
        for key, decoded in through(tree)[1].items():
            assert decoded.shape == ODD[key].shape
            assert decoded.dtype == ODD[key].dtype
            assert np.isfinite(decoded.astype(np.float64)).all()
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(NonFiniteError, match=r"^strided \(float32\[4,6\]\) holds NaN or infinity"):
            bound.encode({**ODD, "strided": np.full((4, 6), value, np.float32)}, key=codecs.random.key(3), state=state)


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_codecs_take_integers(name):
    """What is lossless gives back every bit, of integers too."""
    x = GENERATOR.integers(-5, 5, (3, 4)).astype(np.int16)
    assert same_bits(codecs.decode(codecs.encode(x, LOSSLESS[name], seed=0)), x)
    assert same_bits(codecs.decode(codecs.encode(ODD["half"], LOSSLESS[name], seed=0)), ODD["half"])
    assert LOSSLESS[name].is_lossless


@pytest.mark.parametrize("name", [*LOSSY, *ONE_RECEIVER])
def test_lossy_codecs_refuse_integers(name):
    """Integers given to a codec for floats are an error that names the tensor."""
    with pytest.raises(ArgumentTypeError, match=r"counts.* is int32\[3\]"):
        codecs.bind((LOSSY | ONE_RECEIVER)[name], {"counts": np.zeros(3, np.int32)})


@pytest.mark.parametrize("name", ONE_RECEIVER)
def test_odd_inputs_for_one_receiver(name):
    """The same for codecs whose receiver remembers: contributions of odd tensors add up to finite ones."""
    bound = codecs.bind(ONE_RECEIVER[name], ODD)
    gather, memory = bound.gather(), bound.initial_memory()
    for client in range(2):
        payload, _ = bound.contribute(ODD, memory, key=codecs.random.key(client))
        gather.add(payload.blob)
    total, _ = gather.result()
    for key, x in ODD.items():
        assert total[key].shape == np.shape(x)
        assert total[key].dtype == x.dtype
        assert np.isfinite(np.asarray(total[key]).astype(np.float64)).all()


@pytest.mark.parametrize("name", golden.CODECS)
def test_golden_payloads_decode_to_the_same_bits(name):
    """An earlier release's payload decodes to the bits that it did then, up to the rounding of matrix products."""
    decoded = codecs.decode((FOLDER / f"{name}.bin").read_bytes())
    if name in golden.INEXACT:
        expected = codecs.decode((FOLDER / f"{name}.decoded").read_bytes())
        for key, x in expected.items():
            np.testing.assert_allclose(decoded[key], x, rtol=1e-5, atol=1e-6)
    else:
        assert golden.digest(decoded) == golden.DIGESTS[name]


def test_golden_payloads_in_64_bit_mode():
    """Another process, with JAX's 64-bit mode on, decodes them to the same bits."""
    script = """
import importlib.util, sys, jax
jax.config.update("jax_enable_x64", True)
spec = importlib.util.spec_from_file_location("golden_codecs", sys.argv[1] + "/make.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)
from laconic import codecs
for name in golden.CODECS:
    with open(f"{sys.argv[1]}/{name}.bin", "rb") as file:
        print(name, golden.digest(codecs.decode(file.read())))
"""
    lines = run_elsewhere(script, FOLDER).splitlines()
    here = {name: golden.digest(codecs.decode((FOLDER / f"{name}.bin").read_bytes())) for name in golden.CODECS}
    assert lines == [f"{name} {here[name]}" for name in golden.CODECS]


def test_digests_tell_arrays_apart():
    """The digest that golden tests compare depends on every bit, shape and dtype."""
    x = np.float32([1, 2])
    digests = {golden.digest(tree) for tree in (x, x.reshape(1, 2), x.astype(np.float64), -x, [x], b"bytes")}
    assert len(digests) == 5  # a list of one array is that array
    assert golden.digest(b"") == hashlib.sha256(b"").hexdigest()[:16]
