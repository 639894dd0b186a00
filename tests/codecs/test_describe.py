"""What `describe` says of a payload, and the limit on what a payload may stand for."""

import numpy as np
import pytest

from laconic import codecs
from laconic.errors import ArgumentTypeError, DecodeError

TREE = {"kernel": np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32), "bias": np.zeros(7, np.float32)}


def codec_for(spec):
    """Dithered for the kernel, raw for the bias."""
    return codecs.dithered(nmse=0.1) if spec.size > 100 else codecs.identity()


def test_everything_adds_up():
    """Sections, key, description and framing are all of the payload's bytes, and each is what it takes."""
    blob = codecs.encode(TREE, codec_for, seed=1)
    contents = codecs.describe(blob)
    sections = {section.name: section for section in contents.sections}
    assert contents.nbytes == len(blob)
    assert contents.framing + contents.description + contents.key + sum(s.nbytes for s in contents.sections) == len(
        blob
    )
    assert contents.key == 8
    assert set(sections) == {"bias/values", "kernel/codes", "kernel/step"}
    assert sections["bias/values"].nbytes == 28
    assert sections["kernel/step"].nbytes == 4
    assert sections["kernel/step"].is_side_information
    assert sections["kernel/codes"].elements == 1200
    assert contents.num_parameters == 1207
    assert contents.bits_per_parameter == 8 * len(blob) / 1207
    assert [tensor.name for tensor in contents.tensors] == ["bias", "kernel"]


def test_as_a_table():
    """Printed, it names tensors, codecs, coders and the total."""
    text = str(codecs.describe(codecs.encode(TREE, codec_for, seed=1)))
    for part in (
        "kernel: float32[30,40], Dithered(nmse=0.1)",
        "kernel/codes",
        "raw",
        "framing",
        "key",
        "total",
        "1,207",
    ):
        assert part in text


def test_contributions_and_empty_trees():
    """A contribution can be described though not decoded; so can a payload of nothing."""
    codec = codecs.adaptive(nmse=0.1)
    payload = codecs.bind(codec, TREE).encode_contribution(TREE, key=codecs.random.key(0), described=True)
    names = [section.name for section in codecs.describe(payload.blob).sections]
    assert "kernel: self/statistics" in " ".join(names)
    empty = codecs.describe(codecs.encode([], codecs.identity()))
    assert empty.num_parameters == 0
    assert np.isnan(empty.bits_per_parameter)


def test_not_a_payload():
    """Bytes that are no payload are a DecodeError; what is not bytes a type error."""
    with pytest.raises(DecodeError, match="not a Laconic payload"):
        codecs.describe(b"nonsense")
    with pytest.raises(ArgumentTypeError, match="must be bytes"):
        codecs.describe(3)


def test_limit_on_memory():
    """A payload that stands for more than `max_nbytes` is refused before anything is made."""
    blob = codecs.encode(np.zeros(10_000, np.float32), codecs.stochastic_grid(step=1.0), seed=0)
    assert len(blob) < 300
    for read in (codecs.decode, codecs.describe):
        with pytest.raises(DecodeError, match="stands for 40000 bytes, more than max_nbytes=39999"):
            read(blob, max_nbytes=39_999)
    assert not codecs.decode(blob, max_nbytes=40_000).any()
