"""Tests of what counts say that integers need."""

import math

import numpy as np
from coder_support import many_examples
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from laconic.codecs.coders import _histograms
from laconic.codecs.coders._histograms import BIT, histogram, information, information_given_rows, log2

COUNTS = hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(0, 2**20))


@many_examples
@given(COUNTS)
def test_information_is_the_entropy(counts):
    """Symbols need n H bits, as their counts' logarithms say, within what those of whole numbers are off."""
    counts = counts.reshape(-1)
    total = int(counts.sum())
    expected = sum(count * math.log2(total / count) for count in counts.tolist() if count)
    assert abs(information(counts) / BIT - expected) <= 4e-4 * total + 1e-9


@many_examples
@given(COUNTS)
def test_information_given_rows_is_that_of_each_row(counts):
    """What is known of the row takes from the others nothing: each row's symbols need what they need alone."""
    assert information_given_rows(counts) == sum(information(row) for row in counts)


@many_examples
@given(st.integers(1, 2**53))
def test_one_number_has_the_logarithm_of_many(number):
    """The logarithm of one number is the one that an array of it has."""
    assert _histograms._log2_of_one(number) == log2(np.array([number]))[0]


def test_one_symbol_needs_nothing():
    """What is known beforehand takes no bits, nor does nothing."""
    assert information(np.array([0, 70_000, 0])) == information(np.zeros(3, np.int64)) == 0
    assert information_given_rows(np.array([[0, 70_000], [5, 0], [0, 0]])) == 0


@many_examples
@given(hnp.arrays(np.int16, st.integers(1, 200), elements=st.integers(-1000, 1000)))
def test_a_folded_histogram_counts_shifted_integers(values):
    """With one more bit of shift, what is counted is what the integers without their lowest bit are."""
    folded, direct = histogram(values).folded(), histogram(values >> 1)
    first = direct.base - folded.base
    np.testing.assert_array_equal(folded.counts[first : first + direct.counts.size], direct.counts)
    assert folded.counts.sum() == values.size
