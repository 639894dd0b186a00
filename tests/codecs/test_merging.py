"""Sums add up several arrays at a time, in the order in which they would be added one by one."""

import functools
import operator
import pickle
import weakref

import hypothesis
import ml_dtypes
import numpy as np
import pytest
from codec_support import few_examples, same_bits
from hypothesis import strategies as st

from laconic.codecs._merging import RunningSum
from laconic.errors import ArgumentError

SIZES = (0, 1, 2**15, 2**15 + 3)  # less and more than what is added up at a time


def summed(numbers):
    """A sum of arrays that were added one after another, pairs of sums being absorbed as they are nested."""
    total = RunningSum()
    for each in numbers:
        if isinstance(each, list):
            total.absorb(summed(each))
        else:
            total.add(each)
    return total


def one_by_one(numbers):
    """The same additions, each of whole arrays, in the sum's dtype."""
    return functools.reduce(operator.add, (one_by_one(each) if isinstance(each, list) else each for each in numbers))


def nested(arrays, draw):
    """The arrays, in order, in lists of lists."""
    if len(arrays) < 3 or not draw(st.booleans()):
        return arrays
    cut = draw(st.integers(1, len(arrays) - 1))
    return [nested(arrays[:cut], draw), nested(arrays[cut:], draw)]


@few_examples
@hypothesis.given(data=st.data(), count=st.integers(1, 40), size=st.sampled_from(SIZES))
def test_bits_are_those_of_adding_one_by_one(data, count, size):
    """Floats of many magnitudes, in any order of sums of sums."""
    random = np.random.default_rng(count)
    arrays = [(random.standard_normal(size) * 10.0 ** random.integers(-6, 6)).astype(np.float32) for _ in range(count)]
    numbers = nested(arrays, data.draw)
    assert same_bits(summed(numbers).result(), one_by_one(numbers))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int64, np.uint64, np.float16, ml_dtypes.bfloat16])
def test_narrow_numbers_are_added_in_wider_ones(dtype):
    """Ten of the largest are more than the dtype holds, but for the widest."""
    largest = 2**59 if np.dtype(dtype).itemsize == 8 else 100
    arrays = [np.full((2, 3), largest, dtype)] * 10
    assert (summed(arrays).total == 10 * largest).all()


def test_sums_of_integers_on_their_way_are_added_like_others():
    """A sum that has travelled in few bytes may still leave 64 bits when more are added."""
    arrived = pickle.loads(pickle.dumps(summed([np.array([100, 2], np.int64)])))
    arrived.add(np.array([2**62, -(2**62)], np.int64))
    assert arrived.total.tolist() == [2**62 + 100, 2 - 2**62]
    arrived.absorb(summed([np.array([0, -(2**62) - 3], np.int64)]))
    with pytest.raises(ArgumentError, match="sum must fit int64"):
        arrived.result()


@pytest.mark.parametrize("size", [3, 2**23])
def test_few_arrays_are_held(size):
    """However many are added; fewer if they are large."""
    held, total = [], RunningSum()
    for _ in range(30):
        array = np.ones(size, np.float32)
        held.append(weakref.ref(array))
        total.add(array)
        del array
        assert sum(each() is not None for each in held) <= (8 if size == 3 else 4)
    assert (total.result() == 30).all()


def test_arrays_are_not_changed():
    """Neither a single one, nor the first of several, nor a sum that another has absorbed."""
    first, second = np.ones(4, np.float32), np.ones(4, np.float32)
    total = summed([first])
    other = summed([second, first])
    before = other.total
    total.absorb(other)
    assert total.total.tolist() == [3] * 4
    assert first.tolist() == second.tolist() == [1] * 4
    assert before.tolist() == [2] * 4
