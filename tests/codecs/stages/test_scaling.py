"""Sums of squares at every scale."""

import numpy as np
import pytest

from laconic.codecs.stages._scaling import root_mean_square


@pytest.mark.parametrize("exponent", [-36, -30, -19, -16, -15, -14, 0, 16, 17, 18, 30, 37])
def test_root_mean_square_at_every_scale(exponent):
    """It is right where squares are zero, lose places, are themselves, and are infinite."""
    x = (np.random.default_rng(0).standard_normal(5000) * 10.0**exponent).astype(np.float32)
    expected = np.sqrt(np.mean(x.astype(np.float64) ** 2))
    np.testing.assert_allclose(float(root_mean_square(x)), expected, rtol=1e-5)


def test_root_mean_square_of_nothing():
    """No entries and zeros give zero; one entry among zeros is found."""
    assert root_mean_square(np.zeros(0, np.float32)) == 0
    assert root_mean_square(np.zeros(7, np.float32)) == 0
    assert float(root_mean_square(np.float32([0, 0, 0, 1e-25]))) == pytest.approx(5e-26, rel=1e-5)
