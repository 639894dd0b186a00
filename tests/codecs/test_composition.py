"""Stages and coders make trees; what does not fit is an error that says so."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
from codec_support import Alternate, Custom, Noise, Scale, Split, Square, Trim, run_elsewhere, same_bits

from laconic import codecs
from laconic.codecs import Codec, FixedWidth, Flatten, Identity, Raw, UniformQuantizer, random
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError

X = np.linspace(-2, 3, 12, dtype=np.float32).reshape(3, 4)


def test_chain_nests_from_left_to_right():
    """The first part is the outermost stage; what is left out at the end is raw."""
    codec = codecs.chain(Flatten(), UniformQuantizer(4), FixedWidth(4))
    assert [type(stage) for stage in codec.stages] == [Flatten, UniformQuantizer]
    inner = dict(codec.children)["values"]
    assert dict(inner.children) == {"quantized": FixedWidth(4), "range": Raw()}
    assert codecs.chain(Flatten()) == codecs.chain(Flatten(), Raw())
    assert codecs.chain(Flatten(), codecs.chain(Identity())) == codecs.chain(Flatten(), Identity())
    assert str(codec) == "Flatten() > UniformQuantizer(bits=4) > FixedWidth(bits=4)"


def test_branch_gives_each_output_its_own_codec():
    """A tree with another codec at each output encodes and decodes."""
    codec = codecs.branch(Split(), even=UniformQuantizer(8, stochastic=False), odd=codecs.chain(Scale(4.0), Trim()))
    x_hat = codecs.decode(codecs.encode(X, codec))
    np.testing.assert_array_equal(x_hat.ravel()[1::2], X.ravel()[1::2])
    assert np.abs(x_hat - X).max() <= 5 / 255
    partly = codecs.branch(Split(), odd=codecs.chain(Flatten()))
    assert dict(partly.children)["even"] == Raw()


def test_stages_compose():
    """Several stages undo each other in reverse order."""
    codec = codecs.chain(Scale(8.0), Square(), Flatten(), Scale(0.25))
    np.testing.assert_allclose(codecs.decode(codecs.encode(X, codec)), X, rtol=1e-6)


def test_flags_of_compositions():
    """A codec is lossless, commutes, draws, adapts if its stages do; unbiased if lossy only below linear stages."""
    assert codecs.chain(Flatten(), Identity()).is_lossless
    assert not codecs.chain(Flatten(), Scale()).is_lossless
    assert codecs.chain(Flatten(), Scale()).commutes_with_sum
    assert not codecs.chain(Scale(), Square()).commutes_with_sum
    assert not codecs.chain(Square(), Scale()).commutes_with_sum
    assert codecs.chain(Flatten(), Noise()).is_stochastic
    assert codecs.chain(Flatten(), Alternate()).is_adaptive
    assert not codecs.chain(Flatten(), UniformQuantizer()).is_adaptive
    assert codecs.chain(UniformQuantizer(), Flatten()).is_unbiased
    assert not codecs.chain(Flatten(), UniformQuantizer(stochastic=False)).is_unbiased
    assert codecs.chain(Flatten(), UniformQuantizer()).is_unbiased
    assert not codecs.chain(Square(), UniformQuantizer()).is_unbiased


def test_each_stage_has_its_own_key():
    """The same stage twice in a tree draws other numbers, and what the format says: derive by output position."""
    codec = codecs.branch(Split(), even=Noise(), odd=Noise())
    key = random.key(5)
    bound = codecs.bind(codec, {"x": np.zeros(8, np.float32)})
    x_hat = np.asarray(bound.decode(bound.encode({"x": np.zeros(8, np.float32)}, key=key)[0].blob)["x"])
    tensor_key = random.derive(key, 0)
    np.testing.assert_array_equal(x_hat[0::2], random.uniform(random.derive(tensor_key, 0), (4,)))
    np.testing.assert_array_equal(x_hat[1::2], random.uniform(random.derive(tensor_key, 1), (4,)))


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ((), ArgumentError, "chain needs at least one stage, got none"),
        ((Raw(),), ArgumentError, r"needs at least one stage before the coder Raw\(\); use codecs.Identity\(\)"),
        ((Raw(), Identity()), ArgumentTypeError, r"each part of a chain but the last must be a stage, got Raw"),
        ((codecs.identity(), Raw()), ArgumentTypeError, "each part of a chain but the last must be a stage, got Codec"),
        ((Identity(), "raw"), ArgumentTypeError, "chain takes stages, codecs and coders, got 'raw' of type str"),
        ((Identity, Raw()), ArgumentTypeError, "must be a stage, got <class"),
        (
            (Split(), Flatten()),
            ArgumentError,
            r"'test.split' has 2 compressible outputs \('even', 'odd'\).*codecs.branch",
        ),
    ],
)
def test_wrong_chains(parts, error, message):
    """A chain is stages, and then at most one codec or coder."""
    with pytest.raises(error, match=message):
        codecs.chain(*parts)


def test_a_stage_with_several_outputs_may_end_a_chain():
    """There is nothing to go on with, so nothing to choose."""
    assert dict(codecs.chain(Split()).children) == {"even": Raw(), "odd": Raw()}


@pytest.mark.parametrize(
    ("stage", "children", "error", "message"),
    [
        (Raw(), {}, ArgumentTypeError, r"stage must be a Stage, got Raw\(\) of type Raw"),
        (Split(), {"left": Identity()}, ArgumentError, r"outputs \('even', 'odd'\), got a codec for \['left'\]"),
        (
            UniformQuantizer(),
            {"range": Flatten()},
            ArgumentError,
            r"outputs \('quantized',\), got a codec for \['range'",
        ),
        (Split(), {"even": 8}, ArgumentTypeError, "even must be a stage, codec or coder, got 8 of type int"),
    ],
)
def test_wrong_branches(stage, children, error, message):
    """Codecs are for a stage's compressible outputs."""
    with pytest.raises(error, match=message):
        codecs.branch(stage, **children)


def test_a_stage_may_stand_for_a_codec():
    """Where a codec is asked for, a lone stage will do."""
    assert same_bits(codecs.decode(codecs.encode(X, Flatten())), X)


def test_codecs_of_different_constants_are_different():
    """1, 1.0 and True are equal in Python, but not on the wire, so neither are codecs of them."""
    whole, broken = codecs.chain(Scale(1)), codecs.chain(Scale(1.0))
    assert Scale(1) == Scale(1.0)
    assert whole != broken
    assert codecs.chain(Scale(0.0)) != codecs.chain(Scale(-0.0))
    assert whole == codecs.chain(Scale(1))
    assert hash(whole) == hash(codecs.chain(Scale(1)))
    assert codecs.encode([X, X], [whole, broken]) != codecs.encode([X, X], [whole, whole])
    assert whole != "whole"


def test_codecs_that_are_nested_too_deep():
    """64 stages may follow one another, and decode; one more is an error."""
    codec = codecs.chain(*[Flatten()] * 64)
    assert codec.depth == 64
    assert same_bits(codecs.decode(codecs.encode(X, codec)), X)
    with pytest.raises(ArgumentError, match="at most 64 stages one after another, got 65"):
        codecs.chain(Flatten(), codec)


def stage_class(**attributes):
    """A stage class of one's own, with these class attributes."""
    return dataclasses.dataclass(frozen=True)(type("Mine", (Custom,), {"name": "test.mine", **attributes}))


@pytest.mark.parametrize(
    ("attributes", "error", "message"),
    [
        ({"name": None}, ArgumentTypeError, r"Mine needs a name on the wire, as in name: ClassVar\[str\]"),
        ({"name": ""}, ArgumentTypeError, "Mine needs a name on the wire"),
        ({"name": "flatten"}, ArgumentError, r"name 'flatten' of Mine is taken by laconic.*Flatten; choose another"),
        ({"outputs": "values"}, ArgumentTypeError, r"Mine.outputs must be a tuple of names, got 'values'"),
        ({"outputs": (1,)}, ArgumentTypeError, r"Mine.outputs must be a tuple of names, got \(1,\)"),
        ({"outputs": ("a", "a"), "compressible": ("a",)}, ArgumentError, "must be different names"),
        ({"compressible": ("value",)}, ArgumentError, r"must name some of its outputs \('values',\), got \('value',\)"),
        ({"compressible": "values"}, ArgumentTypeError, "Mine.compressible must be a tuple of names"),
        ({"merges": {"norm": "sum"}}, ArgumentTypeError, "must give a codecs.Merge for each report"),
        ({"merges": ("norm",)}, ArgumentTypeError, "must give a codecs.Merge for each report"),
    ],
)
def test_wrong_declarations(attributes, error, message):
    """What a stage class declares wrongly is an error as soon as it is composed."""
    with pytest.raises(error, match=message):
        codecs.chain(stage_class(**attributes)())


def test_stages_that_are_no_frozen_dataclasses():
    """A stage must be a frozen dataclass, or its constants could change under a compiled codec."""

    class Plain(Custom):
        name = "test.plain"

    @dataclasses.dataclass
    class Thawed(Custom):
        name: ClassVar[str] = "test.thawed"

    for stage in (Plain(), Thawed()):
        with pytest.raises(ArgumentTypeError, match=r"must be a frozen dataclass; use @dataclasses.dataclass"):
            codecs.chain(stage)


@pytest.mark.parametrize("constant", [[1], {"a": 1}, np.float32(1), 2**63, 1j, b"x", ((1, [2]),)], ids=repr)
def test_fields_that_cannot_travel(constant):
    """A field that is not a constant of the format is an error that names the field."""

    @dataclasses.dataclass(frozen=True)
    class Mine(Custom):
        name: ClassVar[str] = "test.mine"
        levels: object

    with pytest.raises(ArgumentTypeError, match="must be None, bool, int") as caught:
        codecs.chain(Mine(constant))
    assert any("field 'levels' of" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    "constant",
    [None, True, False, 0, -1, 127, 128, -(2**63), 2**63 - 1, 1.5, -0.0, 1e300, "", "ü", (1, (2.0, "x"), ())],
)
def test_fields_that_travel(constant):
    """Every constant of the format comes back as it was, in type, too."""

    @codecs.register
    @dataclasses.dataclass(frozen=True)
    class Carries(Custom):
        name: ClassVar[str] = "test.carries"
        constant: object

    from laconic.codecs import _description

    bound = codecs.bind(codecs.chain(Carries(constant)), X)
    written = _description.write(bound.codecs, bound.specs, bound.structure, is_contribution=False)
    assert repr(_description.read(written).codecs[0].stage.constant) == repr(constant)


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        ({"value": X}, ArgumentError, r"declares the outputs \['values'\], but encode returned \['value'\]"),
        ({}, ArgumentError, r"but encode returned \[\]"),
        ({"values": X, "more": X}, ArgumentError, r"but encode returned \['more', 'values'\]"),
        ({"values": 1.5}, ArgumentTypeError, r"output 'values' of stage 'test.mine' must be an array"),
        (X, ArgumentTypeError, "must give its outputs as a dict of arrays"),
    ],
    ids=["other name", "none", "one more", "number", "array"],
)
def test_encode_that_returns_something_else(returned, error, message):
    """What encode returns must be arrays of the declared names; binding finds it."""
    with pytest.raises(error, match=message):
        codecs.bind(stage_class(encode=lambda self, key, x, parameters: returned)(), X)


@pytest.mark.parametrize(
    "decoded",
    [lambda x: x[:1], lambda x: x.astype(jnp.float16), lambda x: x.ravel(), lambda x: 1.5],
    ids=["shorter", "half", "flat", "number"],
)
def test_decode_that_returns_something_else(decoded):
    """What decode returns must have the shape and dtype of what was encoded."""

    def decode(self, encoded, parameters, *, num_summands, spec):
        return decoded(encoded["values"])

    for commutes in (False, True):
        stage = stage_class(decode=decode, commutes_with_sum=commutes)()
        with pytest.raises(ArgumentError, match=r"stage 'test.mine' must decode w to float32\[3,4\], got"):  # noqa: PT012
            bound = codecs.bind(stage, {"w": X})
            bound.decode(bound.encode({"w": X})[0].blob)


def test_names_are_registered_once():
    """A name leads to one class; the same class may be defined anew, as in a notebook."""

    def define(qualname):
        kind = stage_class(name="test.registered")
        kind.__qualname__ = qualname
        return codecs.register(kind)

    define("First")
    again = define("First")
    with pytest.raises(ArgumentError, match=r"name 'test.registered' of Second is taken by .*First; choose another"):
        define("Second")
    assert type(codecs.decode(codecs.encode(X, again()))) is np.ndarray
    with pytest.raises(ArgumentTypeError, match="needs a name on the wire"):
        codecs.register(stage_class(name=None))


def test_a_subclass_needs_its_own_name():
    """A subclass that inherits the name would be decoded as its parent, elsewhere."""

    @dataclasses.dataclass(frozen=True)
    class Better(UniformQuantizer):
        pass

    with pytest.raises(ArgumentError, match=r"name 'uniform_quantizer' of .*Better is taken by .*UniformQuantizer"):
        codecs.chain(Better())


def test_unregistered_stages():
    """A stage that is not registered encodes, and decodes with its own codec; bytes alone say what is missing."""
    codec = codecs.chain(stage_class(name="test.nowhere")())
    bound = codecs.bind(codec, X)
    assert same_bits(np.asarray(bound.decode(bound.encode(X, described=True)[0].blob)), X)
    with pytest.raises(DecodeError, match=r"made with 'test.nowhere', .*import the module that registers it with"):
        codecs.decode(codecs.encode(X, codec))


def test_stages_of_other_modules(tmp_path):
    """Another process decodes a custom stage once it has imported its module, and says so before."""
    (tmp_path / "x.bin").write_bytes(codecs.encode(X, codecs.chain(Scale(4.0), Flatten())))
    script = """
import pathlib, sys
from laconic import codecs, errors
blob = pathlib.Path(sys.argv[1]).read_bytes()
try:
    codecs.decode(blob)
except errors.DecodeError as error:
    print(error)
import codec_support
print(codecs.decode(blob).tolist())
"""
    first, second = run_elsewhere(script, tmp_path / "x.bin").splitlines()
    assert "import the module that registers it" in first
    assert second == str(X.tolist())


def test_codec_is_public():
    """What `chain` returns has the type that signatures name."""
    assert isinstance(codecs.chain(Identity()), Codec)
