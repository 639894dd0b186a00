"""The round loop."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence

from laconic.data import BatchedClientData
from laconic.errors import ArgumentError, ArgumentTypeError
from laconic.experiments._evaluation import Evaluate
from laconic.experiments._interrupts import Interrupts
from laconic.experiments._links import Links
from laconic.experiments._progress import progress_bar
from laconic.experiments._records import History, RoundRecord, TrafficTotals
from laconic.experiments._writers import Writer
from laconic.learning import LearningProcess, LearningState


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C ended a run; its logs are complete.

    Attributes:
      history: of the rounds that were completed.
    """

    def __init__(self, history: History):
        super().__init__(f"{history.name!r} was interrupted after {len(history.records)} rounds")
        self.history = history


def run(
    process: LearningProcess,
    train: BatchedClientData,
    *,
    rounds: int,
    clients_per_round: int,
    seed: int,
    evaluate: Evaluate | None = None,
    evaluate_every: int = 1,
    evaluate_initial: bool = False,
    writers: Sequence[Writer] = (),
    progress: bool | None = None,
    state: LearningState | None = None,
    traffic_so_far: TrafficTotals | None = None,
    links: Links | None = None,
    name: str = "training",
) -> History:
    """Trains for some rounds, each with clients that are sampled by (seed, round number).

    Ctrl-C ends the run after the round under way; pressed again, at once. Nothing is lost: a round's record reaches all
    writers or none, the writers are closed, and the exception, a KeyboardInterrupt that ends a script as usual, holds
    the history so far:

        try:
            history = experiments.run(process, train, ...)
        except experiments.RunInterrupted as interrupt:
            history = interrupt.history

    Args:
      process: such as `learning.fed_avg` gives.
      train: the clients, batched.
      rounds: how many to run now.
      clients_per_round: how many different clients take part in each.
      seed: who takes part, and, where there is no state, the initial weights and all that is random in training.
      evaluate: from the model's weights to metrics by name, such as `central_evaluation` gives. The weights are those
        that clients would train from next, where these are known, else the server's
        (`LearningProcess.broadcast_weights`).
      evaluate_every: how many rounds from evaluation to evaluation, counted from round 0; the last round is always
        evaluated.
      evaluate_initial: whether to evaluate before the first round, too; the result is `history.initial`.
      writers: what takes the records. However the run ends, they are closed.
      progress: whether to show a progress bar on standard error; None shows it on a terminal only.
      state: where to go on; None starts anew. Round numbers go on, too.
      traffic_so_far: what cumulative traffic begins with where a run goes on, such as `history.final.cumulative`.
      links: how clients are connected, to tell how long the rounds would take; the records then hold each client's
        bytes, so that `Links.timed` can tell the same of other links.
      name: of the run.

    Raises:
      ArgumentError: if a number is out of its range, or a run goes on with links that began without, or the other way.
      ArgumentTypeError: if the clients are not batched, or links are something else.
      MissingExtraError: if a progress bar is asked for and rich is not installed.
      RunInterrupted: if Ctrl-C ends it.
    """
    with contextlib.ExitStack() as closing:
        interrupts = closing.enter_context(Interrupts())
        for writer in writers:
            closing.callback(writer.close)
        _check(train, rounds, evaluate_every)
        _check_links(links, traffic_so_far or TrafficTotals())
        takers = list(writers)
        if bar := progress_bar(progress, name, rounds):
            closing.callback(bar.close)
            takers.append(bar)
        history = History(name, (), {}, process.initialize(seed=seed) if state is None else state)
        schedule = _Schedule(rounds, clients_per_round, seed, evaluate_every, traffic_so_far or TrafficTotals(), links)
        try:
            if evaluate and evaluate_initial:
                history = dataclasses.replace(history, initial=evaluate(process.broadcast_weights(history.state)))
            interrupts.check()
            for next_state, record in _rounds(process, train, history.state, evaluate, schedule):
                with interrupts.whole():
                    history = dataclasses.replace(history, records=(*history.records, record), state=next_state)
                    for taker in takers:
                        taker.write(record)
        except KeyboardInterrupt:
            raise RunInterrupted(history) from None
        except Exception as error:
            error.add_note(f"in round {int(history.state.round_number)} of {name!r}")
            raise
        return history


@dataclasses.dataclass(frozen=True)
class _Schedule:
    rounds: int
    clients_per_round: int
    seed: int
    evaluate_every: int
    traffic_so_far: TrafficTotals
    links: Links | None


def _rounds(
    process: LearningProcess,
    train: BatchedClientData,
    state: LearningState,
    evaluate: Evaluate | None,
    schedule: _Schedule,
) -> Iterator[tuple[LearningState, RoundRecord]]:
    """Each round's next state and record."""
    first, total, links = int(state.round_number), schedule.traffic_so_far, schedule.links
    options = {} if links is None else {"per_client_traffic": True}
    last = first + schedule.rounds - 1
    for round_number in range(first, last + 1):
        start = time.perf_counter()
        cohort = train.sample(schedule.clients_per_round, seed=schedule.seed, round_number=round_number)
        state, result = process.next(state, cohort, **options)
        seconds = time.perf_counter() - start
        link_seconds = 0.0 if links is None else links.round_seconds(result, round_number=round_number)
        traffic = TrafficTotals.of(result.traffic, link_seconds)
        total += traffic
        is_evaluated = (round_number + 1) % schedule.evaluate_every == 0 or round_number == last
        test = evaluate(process.broadcast_weights(state)) if evaluate and is_evaluated else {}
        yield (
            state,
            RoundRecord(
                round_number,
                result.metrics,
                test,
                traffic,
                total,
                result.clients,
                result.left_out,
                seconds,
                result.traffic.clients,
            ),
        )


def _check(train: BatchedClientData, rounds: int, evaluate_every: int) -> None:
    if not hasattr(train, "sample"):
        raise ArgumentTypeError(
            f"train must be clients in batches, such as train.batched(batch_size=20), got {type(train).__name__}"
        )
    check_positive(rounds, "rounds")
    check_positive(evaluate_every, "evaluate_every")


def _check_links(links: Links | None, so_far: TrafficTotals) -> None:
    if links is not None and not isinstance(links, Links):
        raise ArgumentTypeError(
            f"links must be experiments.Links, such as experiments.Links('4g'), got {links!r} of type "
            f"{type(links).__name__}"
        )
    if so_far.total_bytes and bool(so_far.link_seconds) != (links is not None):
        had, has = ("with", "without") if links is None else ("without", "with")
        raise ArgumentError(
            f"links must be given for all of a training or for none, got a run {has} links that goes on from one {had}"
            "; pass the same links, or give traffic_so_far the link_seconds it should have: links.timed(history) tells "
            "them, and dataclasses.replace(traffic_so_far, link_seconds=0.0) forgets them"
        )


def check_positive(value: int, argument: str) -> None:
    """Refuses what is not a count.

    Raises:
      ArgumentTypeError: if it is not a whole number.
      ArgumentError: if it is below 1.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(f"{argument} must be a whole number, got {value!r} of type {type(value).__name__}")
    if value < 1:
        raise ArgumentError(f"{argument} must be at least 1, got {value}")
