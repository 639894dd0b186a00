"""What a training run leaves behind: a record of each round, and the history of all."""

import dataclasses
import statistics
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64

from laconic.errors import ArgumentError
from laconic.federated import Traffic
from laconic.learning import LearningState


@dataclasses.dataclass(frozen=True)
class TrafficTotals:
    """How much travelled, all clients together; a run of any length adds up to these five numbers.

    Attributes:
      broadcast_bytes: sent to clients, as lengths of real byte strings.
      aggregate_bytes: sent by clients.
      broadcast_tensor_bits: the same as TFF's sizing executor counts it, elements x dtype bits.
      aggregate_tensor_bits: see above.
      link_seconds: how long that took over the clients' links, round after round; 0 where no `Links` were given.
    """

    broadcast_bytes: int = 0
    aggregate_bytes: int = 0
    broadcast_tensor_bits: int = 0
    aggregate_tensor_bits: int = 0
    link_seconds: float = 0.0

    @classmethod
    def of(cls, traffic: Traffic, link_seconds: float = 0.0) -> "TrafficTotals":
        """The totals of one round's traffic, and how long it took over links, where that is known."""
        return cls(
            traffic.broadcast_bytes,
            traffic.aggregate_bytes,
            traffic.broadcast_tensor_bits,
            traffic.aggregate_tensor_bits,
            link_seconds,
        )

    @property
    def total_bytes(self) -> int:
        """Bytes in both directions."""
        return self.broadcast_bytes + self.aggregate_bytes

    def __add__(self, other: "TrafficTotals") -> "TrafficTotals":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return TrafficTotals(*(mine + theirs for mine, theirs in pairs))


@dataclasses.dataclass(frozen=True)
class RoundRecord:
    """What one round gave. Two records are equal if all but their wall-clock times are.

    Attributes:
      round_number: the first round of a training is 0.
      train: metrics of the cohort's training, each prediction made before the step that learns from it.
      test: what `evaluate` gave after the round; empty where the round was not evaluated.
      traffic: of this round.
      cumulative: of this and all earlier rounds.
      clients: how many took part.
      left_out: how many of them did not count, since their update or metrics held NaN or infinity.
      seconds: the round's wall-clock time, evaluation not included.
      client_bytes: each client's bytes (down, up), where the run was given `Links`; otherwise empty.
    """

    round_number: int
    train: Mapping[str, float]
    test: Mapping[str, float]
    traffic: TrafficTotals
    cumulative: TrafficTotals
    clients: int
    left_out: int
    seconds: float = dataclasses.field(compare=False)
    client_bytes: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict, repr=False)

    def scalars(self) -> dict[str, float]:
        """The figures that make curves, by the names that TensorBoard shows, such as `test/accuracy`."""
        figures: dict[str, float] = {f"train/{name}": value for name, value in self.train.items()}
        figures |= {f"test/{name}": value for name, value in self.test.items()}
        figures |= self._traffic("bytes")
        figures |= {"time/seconds_per_round": self.seconds}
        if self.cumulative.link_seconds:
            figures["time/link_seconds_per_round"] = self.traffic.link_seconds
            figures["time/link_seconds_cumulative"] = self.cumulative.link_seconds
        return figures

    def columns(self) -> dict[str, float]:
        """All figures, by the names that `CSVWriter` and `History.column` have for them."""
        counts = {"round": self.round_number, "clients": self.clients, "left_out": self.left_out}
        return counts | self.scalars() | self._traffic("tensor_bits")

    def _traffic(self, unit: str) -> dict[str, int]:
        spans = {"per_round": self.traffic, "cumulative": self.cumulative}
        return {
            f"traffic/{direction}_{unit}_{span}": getattr(totals, f"{direction}_{unit}")
            for direction in ("broadcast", "aggregate")
            for span, totals in spans.items()
        }


@dataclasses.dataclass(frozen=True)
class History:
    """What a run gave. Two histories are equal if all but their wall-clock times and states are.

    Attributes:
      name: of the run.
      records: one for each round, in order.
      initial: what `evaluate` gave before the first round, where that was asked for.
      state: the process's, after the last of the records; give it to `run` to go on.
    """

    name: str
    records: tuple[RoundRecord, ...]
    initial: Mapping[str, float]
    state: LearningState = dataclasses.field(compare=False, repr=False)

    @property
    def final(self) -> RoundRecord:
        """The last round's record.

        Raises:
          ArgumentError: if no round was completed.
        """
        if not self.records:
            raise ArgumentError(f"the history of {self.name!r} has no final record: no round was completed")
        return self.records[-1]

    @property
    def evaluations(self) -> tuple[RoundRecord, ...]:
        """The records of the rounds that were evaluated."""
        return tuple(record for record in self.records if record.test)

    @property
    def median_seconds(self) -> float:
        """The median time of a round in seconds; the first, which also compiles, does not count. NaN if it is alone."""
        seconds = [record.seconds for record in self.records[1:]]
        return statistics.median(seconds) if seconds else float("nan")

    def column(self, name: str) -> Float64[np.ndarray, " rounds"]:
        """One figure in all rounds, NaN in those that do not have it, such as a test metric between evaluations.

        Args:
          name: as in `RoundRecord.columns`, such as `"test/accuracy"` or `"left_out"`.

        Raises:
          ArgumentError: if no round has it.
        """
        rows = [record.columns() for record in self.records]
        known = dict.fromkeys(key for row in rows for key in row)
        if name not in known:
            raise ArgumentError(f"the history of {self.name!r} has no column {name!r}; it has {sorted(known)}")
        return np.array([row.get(name, np.nan) for row in rows], np.float64)

    def mean_of_last(self, count: int, name: str = "test/accuracy") -> float:
        """The mean of a figure over the last `count` rounds that have it; less noisy than the last alone.

        Raises:
          ArgumentError: if fewer rounds than that have it.
        """
        column = self.column(name)
        values = column[~np.isnan(column)]
        if not 1 <= count <= len(values):
            raise ArgumentError(f"count must be between 1 and the {len(values)} rounds that have {name!r}, got {count}")
        return float(values[-count:].mean())


def is_timed(history: History) -> bool:
    """Whether it is known how long the rounds took over links."""
    return any(record.cumulative.link_seconds for record in history.records)


def is_timed_by_means(history: History) -> bool:
    """Whether that time is of the mean bytes per client, since each client's are not known."""
    return is_timed(history) and any(not record.client_bytes for record in history.records)


def headline(record: RoundRecord) -> str:
    """How well the model does, in a few words: its accuracy, or its loss where it has none; on test data, if known."""
    for metric, form in (("accuracy", "{:.1%}"), ("loss", "{:.4f}")):
        for part in ("test", "train"):
            metrics = getattr(record, part)
            if metric in metrics:
                return f"{part} {metric} {form.format(metrics[metric])}"
    return ""
