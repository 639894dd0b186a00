"""What was measured: ratios of times, and the table."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import _report


@dataclasses.dataclass
class Outcome:
    """What became of a competitor.

    Attributes:
      about: its versions.
      seconds: of each round.
      loss: what its weights lead to in the end.
      trouble: why it was not measured; None if it was.
    """

    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    seconds: list[float] = dataclasses.field(default_factory=list)
    loss: float | None = None
    trouble: str | None = None


def ratio(outcomes: Mapping[str, Outcome], base: str, name: str) -> float | None:
    """The base's time as a share of another's: the median over rounds; None where one was not measured."""
    ours, theirs = outcomes.get(base), outcomes[name]
    if ours is None or ours.trouble or theirs.trouble:
        return None
    return statistics.median(a / b for a, b in zip(ours.seconds, theirs.seconds, strict=True))


def summary(outcomes: Mapping[str, Outcome], bases: Sequence[str]) -> dict[str, Any]:
    """All that is known of each competitor."""
    return {
        name: {
            **dataclasses.asdict(outcome),
            "median_seconds": None if outcome.trouble else statistics.median(outcome.seconds),
            "median_ratios": {f"{base} / it": ratio(outcomes, base, name) for base in bases},
        }
        for name, outcome in outcomes.items()
    }


def table(outcomes: Mapping[str, Outcome], bases: Sequence[str], start_loss: float) -> str:
    """A line for each competitor, in Markdown."""
    header = ("a round of 10 clients", "versions", "median s", *(f"{base} / it" for base in bases),
              f"loss, {start_loss:.3f} before")  # fmt: skip
    return _report.table(header, [_line(outcomes, name, bases) for name in outcomes])


def _line(outcomes: Mapping[str, Outcome], name: str, bases: Sequence[str]) -> tuple[str, ...]:
    outcome = outcomes[name]
    if outcome.trouble:
        # Bars would end the cell.
        return name, f"not measured: {outcome.trouble}".replace("|", "/"), *[""] * (len(bases) + 2)
    versions = [f"{package} {version}" for package, version in outcome.about["versions"].items()]
    shares = [ratio(outcomes, base, name) for base in bases]
    return (
        name,
        ", ".join([*versions, f"Python {outcome.about['python']}"]),
        f"{statistics.median(outcome.seconds):.3f}",
        *("" if share is None else f"{share:.3f}" for share in shares),
        "" if outcome.loss is None else f"{outcome.loss:.4f}",
    )
