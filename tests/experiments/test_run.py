"""The round loop."""

import dataclasses
import signal
import threading

import jax
import numpy as np
import pytest

from laconic import experiments
from laconic.errors import ArgumentError, ArgumentTypeError, MissingExtraError
from laconic.experiments import TrafficTotals


class Recorder:
    """A writer that keeps what it is told."""

    def __init__(self):
        self.records = []
        self.closed = 0

    def write(self, record):
        self.records.append(record)

    def close(self):
        self.closed += 1


def same_bits(first, second):
    """Whether two trees of arrays are equal to the last bit."""
    return jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), first, second))


def test_records_are_what_the_process_gave(train, process, clients):
    """Metrics, traffic and counts of each round are those of a loop written by hand."""
    history = train(rounds=3, name="mine")
    state, batched = process.initialize(seed=0), clients.batched(4, shuffle=True)
    for round_number, record in enumerate(history.records):
        state, result = process.next(state, batched.sample(2, seed=0, round_number=round_number))
        assert record.round_number == round_number
        assert record.train == result.metrics
        assert record.test == {}
        assert record.traffic == TrafficTotals.of(result.traffic)
        assert record.traffic.total_bytes == result.traffic.total_bytes > 0
        assert (record.clients, record.left_out) == (2, 0)
        assert record.seconds > 0
    assert history.name == "mine"
    assert same_bits(history.state, state)


def test_cumulative_traffic_adds_up(train):
    """Cumulative traffic is the sum of the rounds' so far, in each of the four counts."""
    history = train(rounds=4)
    total = TrafficTotals()
    for record in history.records:
        total += record.traffic
        assert record.cumulative == total
    assert total.broadcast_tensor_bits == 4 * history.records[0].traffic.broadcast_tensor_bits


def test_same_seed_same_history(train, evaluate):
    """Two runs with one seed give equal records and the same bits; another seed gives others."""
    first, second = train(evaluate=evaluate), train(evaluate=evaluate)
    assert first == second
    assert same_bits(first.state, second.state)
    assert train(evaluate=evaluate, seed=1) != first


def test_resumed_run_equals_an_uninterrupted_one(train, evaluate):
    """Two rounds and then three more give what five give: records, cumulative traffic and weights, bit for bit."""
    whole = train(rounds=5, evaluate=evaluate)
    begun = train(rounds=2, evaluate=evaluate)
    rest = train(rounds=3, evaluate=evaluate, state=begun.state, traffic_so_far=begun.final.cumulative)
    assert begun.records + rest.records == whole.records
    assert same_bits(rest.state, whole.state)


@pytest.mark.parametrize(("every", "evaluated"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (3, [2, 4]), (100, [4])])
def test_evaluation_comes_every_few_rounds_and_after_the_last(train, every, evaluated):
    """`evaluate` sees the weights after each of these rounds, and its result is in the record."""
    history = train(rounds=5, evaluate=lambda weights: {"size": len(jax.tree.leaves(weights))}, evaluate_every=every)
    assert [record.round_number for record in history.evaluations] == evaluated
    assert all(record.test == {"size": 4} for record in history.evaluations)


def test_initial_evaluation(train, evaluate, process):
    """The weights before the first round are evaluated if that is asked for."""
    assert train(evaluate=evaluate).initial == {}
    history = train(evaluate=evaluate, evaluate_initial=True)
    assert history.initial == evaluate(process.initialize(seed=0).weights)
    assert history.final.test["loss"] < history.initial["loss"]


def test_central_evaluation_takes_clients_or_examples(evaluate, model, clients, process):
    """The result does not depend on the form of the data, nor on the batch size, but for rounding."""
    weights = process.initialize(seed=0).weights
    of_examples = experiments.central_evaluation(model, clients.examples(), batch_size=7)
    assert of_examples(weights) == pytest.approx(evaluate(weights), rel=1e-5)


def test_central_evaluation_needs_examples(model):
    """No examples at all are an error when the function is made."""
    with pytest.raises(ArgumentError, match="test must hold at least one example, got none"):
        experiments.central_evaluation(model, {"x": np.zeros((0, 6), np.float32), "y": np.zeros(0, np.int32)})


def test_writers_get_each_record_and_are_closed(train):
    """Every writer gets the records of the history, in order, and is closed at the end."""
    writers = [Recorder(), Recorder()]
    history = train(writers=writers)
    for writer in writers:
        assert tuple(writer.records) == history.records
        assert writer.closed == 1
        assert isinstance(writer, experiments.Writer)


def test_interrupt_within_a_round(train, keyboard_interrupt_in_round):
    """A KeyboardInterrupt in round 3 leaves rounds 0 to 2: in the writers, closed, and in the exception's history."""
    writer, uninterrupted = Recorder(), train(rounds=3)
    with pytest.raises(experiments.RunInterrupted, match="'training' was interrupted after 3 rounds") as caught:
        train(process=keyboard_interrupt_in_round(3), rounds=10, writers=[writer])
    assert isinstance(caught.value, KeyboardInterrupt)
    assert caught.value.history == uninterrupted
    assert same_bits(caught.value.history.state, uninterrupted.state)
    assert tuple(writer.records) == uninterrupted.records
    assert writer.closed == 1


def test_an_interrupted_run_can_go_on(train, keyboard_interrupt_in_round):
    """The history of an interrupted run has all that is needed to end as if nothing had happened."""
    with pytest.raises(experiments.RunInterrupted) as caught:
        train(process=keyboard_interrupt_in_round(2), rounds=4)
    begun = caught.value.history
    rest = train(rounds=2, state=begun.state, traffic_so_far=begun.final.cumulative)
    assert begun.records + rest.records == train(rounds=4).records


class PressesCtrlC(Recorder):
    """A writer, or an evaluation, that presses Ctrl-C in round 1."""

    def __init__(self, times=1):
        super().__init__()
        self.times = times
        self.calls = 0

    def write(self, record):
        if record.round_number == 1:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
        super().write(record)

    def __call__(self, _):
        self.calls += 1
        if self.calls == 2:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
        return {"calls": self.calls}


def test_ctrl_c_ends_the_round_first(train, capsys):
    """One press within a round lets it end, and says so."""
    writer = Recorder()
    with pytest.raises(experiments.RunInterrupted) as caught:
        train(rounds=9, evaluate=PressesCtrlC(), writers=[writer])
    assert [record.test for record in caught.value.history.records] == [{"calls": 1}, {"calls": 2}]
    assert writer.records == list(caught.value.history.records)
    assert capsys.readouterr().err == "stopping after this round; Ctrl-C again stops at once\n"


def test_second_ctrl_c_strikes_at_once(train):
    """Two presses within a round end the run there; the round is not in the history."""
    with pytest.raises(experiments.RunInterrupted) as caught:
        train(rounds=9, evaluate=PressesCtrlC(times=2))
    assert len(caught.value.history.records) == 1
    assert int(caught.value.history.state.round_number) == 1


def test_ctrl_c_tears_no_record_apart(train):
    """However often it is pressed while one writer works, the next gets the same record."""
    first, second = PressesCtrlC(times=3), Recorder()
    with pytest.raises(experiments.RunInterrupted) as caught:
        train(rounds=9, writers=[first, second])
    assert len(second.records) == 2
    assert first.records == second.records == list(caught.value.history.records)


def test_ctrl_c_is_given_back(train):
    """After a run, and after an interrupted one, Ctrl-C does what it did before."""
    train()
    with pytest.raises(experiments.RunInterrupted):
        train(rounds=9, evaluate=PressesCtrlC())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_program_is_left_alone(train):
    """Where a program handles Ctrl-C itself, it goes on doing so."""
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(1))
    try:
        history = train(rounds=3, evaluate=PressesCtrlC())
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(history.records) == 3
    assert pressed == [1]


def test_a_run_in_another_thread(train):
    """Outside the main thread, which cannot handle signals, a run works as well."""
    histories = []
    thread = threading.Thread(target=lambda: histories.append(train()))
    thread.start()
    thread.join()
    assert histories == [train()]


def test_an_error_closes_the_writers_and_names_the_round(train, process):
    """An exception passes through with a note that says where it happened; the writers are closed."""

    class Broken:
        initialize = staticmethod(process.initialize)

        def next(self, state, cohort):
            if int(state.round_number) == 2:
                raise RuntimeError("a client melted")
            return process.next(state, cohort)

    writer = Recorder()
    with pytest.raises(RuntimeError, match="a client melted") as caught:
        train(process=Broken(), writers=[writer], name="hot")
    assert caught.value.__notes__ == ["in round 2 of 'hot'"]
    assert len(writer.records) == 2
    assert writer.closed == 1


def test_a_writer_that_fails_to_close_does_not_keep_the_others_open(train):
    """All writers are closed, whatever one of them does."""

    class Stuck(Recorder):
        def close(self):
            raise OSError("disk full")

    others = [Recorder(), Recorder()]
    with pytest.raises(OSError, match="disk full"):
        train(writers=[others[0], Stuck(), others[1]])
    assert [writer.closed for writer in others] == [1, 1]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"rounds": 0}, ArgumentError, "rounds must be at least 1, got 0"),
        ({"rounds": 2.0}, ArgumentTypeError, "rounds must be a whole number, got 2.0 of type float"),
        ({"evaluate_every": 0}, ArgumentError, "evaluate_every must be at least 1, got 0"),
        ({"clients_per_round": 7}, ArgumentError, "must be between 1 and 6, .*, got 7"),
        ({"seed": -1}, ArgumentError, "seed must lie in .*, got -1"),
    ],
)
def test_wrong_arguments(train, changes, error, message):
    """Each is refused in a sentence, and the writers are closed even so."""
    writer = Recorder()
    with pytest.raises(error, match=message):
        train(writers=[writer], **changes)
    assert writer.closed == 1


def test_clients_must_be_batched(train, clients):
    """The likeliest slip has an error that says what is missing."""
    with pytest.raises(ArgumentTypeError, match=r"clients in batches, such as train.batched\(.*\), got ClientData"):
        train(train=clients)


def test_progress_bar_needs_rich_only_if_asked_for(train, block):
    """Without rich a run works; a bar that was asked for is an error that names the extra."""
    block("rich", "rich.progress", "rich.console")
    train(progress=None)
    with pytest.raises(MissingExtraError, match=r"progress bar needs 'rich.progress', .*laconic\[experiments\]"):
        train(progress=True)


def test_left_out_clients_are_counted(process, clients, train):
    """A client whose data makes the update infinite is in the record."""
    poisoned = clients.map(lambda examples: examples | {"x": np.full_like(examples["x"], np.nan)})
    record = train(process=process, train=poisoned.batched(4), rounds=1).final
    assert (record.clients, record.left_out) == (2, 2)


def test_records_do_not_change(record):
    """Records are frozen: what a writer was given stays what it was."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        record().clients = 3
