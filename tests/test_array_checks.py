"""The run-time checks of arrays, without which the other tests would pass all the same."""

import jaxtyping
import numpy as np
import pytest

from laconic.codecs import random


@pytest.mark.parametrize("key", [np.zeros(3, np.uint32), np.zeros(2, np.int32)], ids=["shape", "dtype"])
def test_functions_on_arrays_are_checked(key):
    """A shape or a dtype that an annotation does not allow is an error."""
    with pytest.raises(jaxtyping.TypeCheckError):
        random.bits(key, 4)


def test_other_functions_are_as_they_were_written():
    """Where no annotation is about arrays, nothing comes before a call."""
    assert not hasattr(random._number, "__wrapped__")
    assert hasattr(random.bits, "__wrapped__")
