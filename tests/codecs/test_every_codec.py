"""What holds for every ready-made codec: odd inputs, refusals, and the same bits in every process."""

import hashlib
import importlib.util
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import LOSSLESS, LOSSY, NAMES, ONE_RECEIVER
from codec_support import run_elsewhere, same_bits

from laconic import codecs
from laconic.errors import ArgumentTypeError, NonFiniteError

FOLDER = Path(__file__).parent / "golden_codecs"
GENERATOR = np.random.default_rng(0)
WIDE = GENERATOR.normal(size=(6, 8)).astype(np.float32)
ODD = {
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.float32(-1.25),
    "one": np.float32([0.75]),
    "zeros": np.zeros(9, np.float32),
    "constant": np.full((2, 5), 0.5, np.float32),
    "strided": GENERATOR.normal(size=40).astype(np.float32)[::2],
    "transposed": WIDE.T,
    "half": GENERATOR.normal(size=7).astype(np.float16),
    "brain": GENERATOR.normal(size=7).astype(jnp.bfloat16),
    "double": GENERATOR.normal(size=(3, 7)),
}

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
    decoded = codecs.decode(codecs.encode(ODD, codec, seed=3))
    for key, x in ODD.items():
        assert decoded[key].shape == np.shape(x)
        assert decoded[key].dtype == x.dtype
        assert np.isfinite(decoded[key].astype(np.float64)).all()
    contiguous = {**ODD, "strided": ODD["strided"].copy(), "transposed": np.ascontiguousarray(ODD["transposed"])}
    assert codecs.encode(contiguous, codec, seed=3) == codecs.encode(ODD, codec, seed=3)
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(NonFiniteError, match=r"^strided \(float32\[20\]\) holds NaN or infinity"):
            codecs.encode({**ODD, "strided": np.where(np.arange(20) == 7, value, ODD["strided"])}, codec, seed=3)


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_codecs_take_integers(name):
    """What is lossless gives back every bit, of integers too."""
    x = GENERATOR.integers(-5, 5, (3, 4)).astype(np.int16)
    assert same_bits(codecs.decode(codecs.encode(x, LOSSLESS[name], seed=0)), x)
    assert same_bits(codecs.decode(codecs.encode(WIDE, LOSSLESS[name], seed=0)), WIDE)
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
    """A payload that an earlier release wrote decodes to the bits that it did then."""
    decoded = codecs.decode((FOLDER / f"{name}.bin").read_bytes())
    assert golden.digest(decoded) == golden.DIGESTS[name]


def test_golden_payloads_in_64_bit_mode():
    """Another process with JAX's 64-bit mode on decodes them to the same bits, and encodes to the same bytes."""
    script = """
import importlib.util, sys, jax
jax.config.update("jax_enable_x64", True)
spec = importlib.util.spec_from_file_location("golden_codecs", sys.argv[1] + "/make.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)
from laconic import codecs
for name in golden.CODECS:
    with open(f"{sys.argv[1]}/{name}.bin", "rb") as file:
        print(name, golden.digest(codecs.decode(file.read())), golden.digest(golden.payload(name)))
"""
    lines = run_elsewhere(script, FOLDER).splitlines()
    here = {name: golden.digest(golden.payload(name)) for name in golden.CODECS}
    assert lines == [f"{name} {golden.DIGESTS[name]} {here[name]}" for name in golden.CODECS]


def test_digests_tell_arrays_apart():
    """The digest that golden tests compare depends on every bit, shape and dtype."""
    x = np.float32([1, 2])
    digests = {golden.digest(tree) for tree in (x, x.reshape(1, 2), x.astype(np.float64), -x, [x], b"bytes")}
    assert len(digests) == 5  # a list of one array is that array
    assert golden.digest(b"") == hashlib.sha256(b"").hexdigest()[:16]
