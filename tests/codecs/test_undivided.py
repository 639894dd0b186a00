"""Tests of compiled functions that XLA does not divide among processors."""

import os
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laconic.codecs import _undivided
from laconic.codecs._undivided import Undivided

LARGE = np.linspace(-3, 3, 2_000_000, dtype=np.float32)


def smooth(x, scale=1.0):
    """Some arithmetic for each entry, and a sum of all."""
    y = jnp.tanh(x * scale) / (1 + x * x)
    return y, jnp.sum(y * y)


def is_divided(compiled, *arguments):
    """Whether XLA cuts loops of a compiled function into pieces for several processors."""
    return '"outer_dimension_partitions":["' in compiled.lower(*arguments).compile().as_text()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="only on CPU does XLA divide loops among processors")
def test_loops_are_not_divided():
    """A loop over a large array stays one loop, which XLA would otherwise cut if there are several processors."""
    assert not is_divided(Undivided(smooth)._compiled, LARGE)
    assert is_divided(jax.jit(smooth), LARGE) == (len(os.sched_getaffinity(0)) > 1)


def test_the_bits_are_those_of_jit():
    """What is computed does not depend on whether the loop is divided."""
    for own, others in zip(Undivided(smooth)(LARGE), jax.jit(smooth)(LARGE), strict=True):
        np.testing.assert_array_equal(np.asarray(own), np.asarray(others))


def test_options_are_those_of_jit():
    """Arguments can be static, and given up."""
    undivided = Undivided(lambda x, twice: 2 * x if twice else x + 1, static_argnames="twice", donate_argnums=0)
    given = jnp.ones(3)
    np.testing.assert_array_equal(undivided(given, twice=True), [2, 2, 2])
    assert given.is_deleted()


def test_it_may_first_be_called_on_several_threads():
    """Each call gives its own result, the first ones too."""
    undivided = Undivided(smooth)
    with ThreadPoolExecutor(4) as pool:
        sums = list(pool.map(lambda scale: float(undivided(LARGE, scale)[1]), [0.0, 1.0, 2.0, 0.0]))
    assert sums[0] == sums[3] == 0
    assert sums[1:3] == [float(jax.jit(smooth)(LARGE, scale)[1]) for scale in (1.0, 2.0)]


def test_an_xla_without_the_option_compiles_as_jit_does(monkeypatch):
    """An option that XLA does not know costs speed alone."""
    monkeypatch.setattr(_undivided, "_UNDIVIDED", {"xla_has_no_such_option": "1"})
    _undivided._compiler_options.cache_clear()
    try:
        np.testing.assert_array_equal(Undivided(jnp.negative)(np.arange(3)), [0, -1, -2])
    finally:
        _undivided._compiler_options.cache_clear()
