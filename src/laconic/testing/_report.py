"""What `check_stage` gives and raises."""

import dataclasses

from laconic.errors import LaconicError


class StageCheckError(LaconicError, AssertionError):
    """A stage breaks a promise of the stage interface.

    Attributes:
      stage: the stage's name on the wire.
      check: the check that it fails.
    """

    def __init__(self, message: str, *, stage: str, check: str):
        super().__init__(message)
        self.stage = stage
        self.check = check


class Failed(Exception):  # noqa: N818 - never leaves this package
    """Raised by one check; the runner makes a `StageCheckError` of it."""

    def __init__(self, expected: str, got: str, way_out: str = ""):
        super().__init__(f"expected {expected}, got {got}" + (f"; {way_out}" if way_out else ""))


class NotApplicable(Exception):  # noqa: N818 - not an error
    """Raised by a check that has nothing to do for this stage, with the reason."""


def summary(error: BaseException) -> str:
    """An error's class and first line."""
    first_line = (str(error).splitlines() or [""])[0].rstrip(".")
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """One check that ran, or was left out.

    Attributes:
      name: what was checked.
      detail: what was measured, or why the check was left out.
      ran: whether it ran.
    """

    name: str
    detail: str
    ran: bool = True


@dataclasses.dataclass(frozen=True)
class StageReport:
    """The record of a stage that passed.

    Attributes:
      stage: the stage, as Python writes it.
      accepted: the shapes and dtypes that it was checked with.
      refused: those that its `check` refused.
      results: every check, in order.
    """

    stage: str
    accepted: tuple[str, ...]
    refused: tuple[str, ...]
    results: tuple[CheckResult, ...]

    @property
    def checks(self) -> tuple[str, ...]:
        """Names of the checks that ran."""
        return tuple(result.name for result in self.results if result.ran)

    def __str__(self) -> str:
        width = max(len(result.name) for result in self.results)
        lines = [f"{self.stage} passes {len(self.checks)} checks on {', '.join(self.accepted)}"]
        if self.refused:
            lines.append(f"  (it refuses {', '.join(self.refused)})")
        lines += [
            f"  {result.name:{width}}  {'' if result.ran else 'not checked: '}{result.detail}"
            for result in self.results
        ]
        return "\n".join(lines)
