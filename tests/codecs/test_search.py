"""The search for a promised size."""

import math

import pytest

from laconic.codecs._search import find_coarseness


def searched(size_of, target):
    """The coarseness found, and how many encodings it took."""
    tries = []

    def measure(coarseness):
        tries.append(coarseness[0])
        return [size_of(coarseness[0])]

    return find_coarseness(measure, [target])[0], len(tries)


@pytest.mark.parametrize("target", [1_000, 20_000, 300_000])
@pytest.mark.parametrize("slope", [0.3, 1.0, 1.4])
def test_power_laws(slope, target):
    """Where the size falls like a power of the coarseness, a few encodings find it."""
    found, tries = searched(lambda c: int(50_000 * c**-slope), target)
    assert 50_000 * found**-slope == pytest.approx(target, rel=0.005)
    assert tries <= 9


def test_high_rates():
    """Where the size falls by a constant for each doubling, too."""
    found, tries = searched(lambda c: int(10_000 * max(0.1, 8 - math.log2(c))), 32_000)
    assert found == pytest.approx(2**4.8, rel=0.02)
    assert tries <= 10


def test_out_of_reach():
    """A target below the smallest size ends at the smallest, and does not go on for ever."""
    found, tries = searched(lambda c: max(50, int(1000 / c)), 10)
    assert max(50, int(1000 / found)) == 50
    assert tries <= 12


def test_units_are_searched_by_themselves():
    """Each unit has its own target; one without a target is left alone."""
    found = find_coarseness(lambda c: [int(9000 / c[0]), 77, int(500_000 / c[2])], [3000.0, None, 1000.0])
    assert found == pytest.approx([3, 1, 500], rel=0.01)
