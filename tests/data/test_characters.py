"""Text as codes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic import data
from laconic.errors import ArgumentError


def test_vocabulary():
    """Unknown, the new line, and printable ASCII in its order: 97 characters, each once."""
    assert len(data.characters.VOCABULARY) == len(set(data.characters.VOCABULARY)) == 97
    assert data.characters.VOCABULARY.startswith('\N{REPLACEMENT CHARACTER}\n !"#')
    assert data.characters.VOCABULARY.endswith("xyz{|}~")


def test_golden_codes():
    """Codes are part of what a model has learned, so they never change."""
    codes = data.characters.encode("if x:\n\treturn ~é\x7f\N{GRINNING FACE}")
    assert codes.dtype == np.int32
    assert codes.tolist() == [75, 72, 2, 90, 28, 1, 0, 84, 71, 86, 87, 84, 80, 2, 96, 0, 0, 0]


@given(st.text())
def test_any_text(text):
    """Every character has one code, and what is known comes back."""
    codes = data.characters.encode(text)
    known = set(data.characters.VOCABULARY)
    assert data.characters.decode(codes) == "".join(c if c in known else data.characters.VOCABULARY[0] for c in text)


def test_half_a_character():
    """A lone surrogate, which no encoding has, is unknown and no error."""
    assert data.characters.encode("a\ud800").tolist() == [67, 0]


@pytest.mark.parametrize("codes", [[97], [3, -1]])
def test_codes_that_are_none(codes):
    """A code outside the vocabulary is refused."""
    with pytest.raises(ArgumentError, match=r"codes must lie in 0\.\.96"):
        data.characters.decode(np.array(codes))
