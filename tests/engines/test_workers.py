"""How many threads an engine takes."""

import pytest

from laconic import engines
from laconic.errors import ArgumentError


def test_the_environment_says_how_many(monkeypatch):
    """LACONIC_WORKERS counts where no number is given, and only there; an empty one is none."""
    monkeypatch.setenv("LACONIC_WORKERS", "3")
    assert engines.local().workers == 3
    assert engines.local(2).workers == 2
    assert engines.device().workers == 3
    assert engines.auto().workers == 3
    monkeypatch.setenv("LACONIC_WORKERS", "")
    assert engines.local().workers >= 1


@pytest.mark.parametrize("wanted", ["0", "-1", "two", "1.5"])
def test_what_is_no_number_of_threads(monkeypatch, wanted):
    """Anything else than a positive whole number is refused, by the variable's name."""
    monkeypatch.setenv("LACONIC_WORKERS", wanted)
    with pytest.raises(ArgumentError, match=f"LACONIC_WORKERS must be a whole number, .* got '{wanted}'; unset"):
        engines.local()
