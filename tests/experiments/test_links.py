"""From bytes to time."""

import dataclasses
import io
import math

import numpy as np
import pytest
from rich import console

from laconic import experiments
from laconic.codecs import random
from laconic.errors import ArgumentError, ArgumentTypeError
from laconic.experiments import Link, Links, TrafficTotals
from laconic.federated import Traffic, TrafficEntry
from laconic.learning import RoundResult

FAST, SLOW = Link(8e6, 8e6, name="fast"), Link(8e5, 8e4, 0.5, "slow")


@pytest.fixture
def result():
    """Makes the result of a round in which two clients got 1 MB each, and sent 1 MB together."""

    def make(clients=None):
        entries = (
            TrafficEntry("broadcast", "model", "", "payload", 2_000_000, 0),
            TrafficEntry("aggregate", "update", "", "payload", 1_000_000, 0),
        )
        return RoundResult({}, Traffic(entries, clients or {}), clients=2, left_out=0)

    return make


def test_seconds_are_bits_by_rate_and_a_latency_for_each_message():
    """1 MB at 8 Mbit/s is 1 s; each direction has its own rate, and no bytes are no message."""
    assert Link(8e6, 1e6).seconds(1_000_000, 0) == 1.0
    assert Link(8e6, 1e6).seconds(0, 1_000_000) == 8.0
    assert Link(8e6, 1e6, 0.25).seconds(1_000_000, 1_000_000) == 9.5
    assert Link(8e6, 1e6, 0.25).seconds(0, 1_000_000) == 8.25
    assert Link(8e6, 1e6, 0.25).seconds(0, 0) == 0.0


@pytest.mark.parametrize(
    ("name", "down", "up", "latency", "documented"),
    [
        ("lora", 54.7, 54.7, 1.0, "54.7 bit/s down and up, 1 s."),
        ("nb-iot", 26e3, 62e3, 1.6, "26 kbit/s down, 62 kbit/s up, 1.6 s."),
        ("3g", 5.9e6, 2.0e6, 0.0635, "5.9 Mbit/s down, 2.0 Mbit/s up, 63.5 ms."),
        ("4g", 29.5e6, 7.6e6, 0.021, "29.5 Mbit/s down, 7.6 Mbit/s up, 21 ms."),
        ("5g", 129.9e6, 14.7e6, 0.019, "129.9 Mbit/s down, 14.7 Mbit/s up, 19 ms."),
        ("fibre", 77.76e6, 38.88e6, 0.010, "77.76 Mbit/s down, 38.88 Mbit/s up, 10 ms."),
    ],
)
def test_named_links(name, down, up, latency, documented):
    """Each class has its name, and the figures that its documentation names, followed by their source."""
    link = Link.named(name)
    assert dataclasses.astuple(link) == (*map(pytest.approx, (down, up, latency)), name)
    assert f'* `"{name}"`: {documented} ' in Link.named.__doc__
    assert Links(name).link("anybody") == link


def test_a_round_lasts_as_long_as_its_slowest_client(result):
    """Slowest by download and upload together over its own link, and not the one with the most bytes."""
    sizes = {"a": (1_000_000, 500_000), "b": (1_000_000, 500_001)}
    assert Links(FAST).round_seconds(result(sizes)) == pytest.approx(1.500001, abs=1e-12)
    by_client = Links({"a": SLOW, "b": FAST}.__getitem__)
    assert by_client.round_seconds(result(sizes)) == 0.5 + 10 + 0.5 + 50
    assert by_client.round_seconds(result({"a": (1_000_000, 0), "b": (50_000_000, 0)})) == 50.0


def test_means_where_only_totals_are_known(result):
    """Without each client's bytes, every client has the mean; the slowest took at least as long."""
    assert Links(FAST).round_seconds(result()) == 1.0 + 0.5
    assert Links(FAST).round_seconds(result({"a": (1_000_000, 900_000), "b": (1_000_000, 100_000)})) == 1.9
    assert Links({FAST: 2.0}, computing_seconds=3).round_seconds(result()) == 4.5


def test_totals_do_not_do_where_clients_differ(result):
    """With different links or computing times the error says how to know each client's bytes."""
    for links in (
        Links({"4g": 1, "3g": 1}, seed=0),
        Links(lambda _: FAST),
        Links("4g", computing_seconds=lambda *_: 1),
    ):
        with pytest.raises(
            ArgumentError, match="has only totals; pass links= to experiments.run, or per_client_traffic"
        ):
            links.round_seconds(result(), round_number=0)


def test_computing_time(result):
    """It is added for each client, so that the slowest may be one with a fast link."""
    sizes = {"a": (1_000_000, 0), "b": (2_000_000, 0)}
    assert Links(FAST, computing_seconds=5.0).round_seconds(result(sizes)) == 7.0
    computing = Links(FAST, computing_seconds=lambda client_id, round_number: round_number * (client_id == "a"))
    assert [computing.round_seconds(result(sizes), round_number=number) for number in range(4)] == [2.0, 2.0, 3.0, 4.0]
    with pytest.raises(ArgumentError, match="round_number must be given where computing_seconds is a function"):
        computing.round_seconds(result(sizes))
    with pytest.raises(ArgumentError, match=r"computing_seconds\('a', 1\) must be finite and at least 0, got -1"):
        Links(FAST, computing_seconds=lambda *_: -1).round_seconds(result(sizes), round_number=1)


def test_shares_are_drawn_by_seed_and_id():
    """The same seed gives each client the same link, whatever the order and sum of the shares; another does not."""
    ids = [f"client{i}" for i in range(2000)]
    drawn = [Links({"4g": 0.75, "lora": 0.25}, seed=3).link(client_id).name for client_id in ids]
    assert drawn == [Links({"lora": 1, Link.named("4g"): 3}, seed=3).link(client_id).name for client_id in ids]
    assert drawn != [Links({"4g": 0.75, "lora": 0.25}, seed=4).link(client_id).name for client_id in ids]
    # Binomial: four standard deviations on either side.
    assert abs(drawn.count("lora") - 500) < 4 * math.sqrt(2000 * 0.25 * 0.75)


def test_draws_are_those_of_the_specified_generator():
    """A client's link depends on the first two words of a key derived for its id, so that it can be told elsewhere."""
    links = Links({FAST: 1, SLOW: 2}, seed=7)
    for client_id in ("a", "b", "c", "d"):
        high, low = np.asarray(random.bits(random.derive(random.key(7), "link", client_id), 2)).tolist()
        assert links.link(client_id) == (SLOW if (high << 32 | low) / 2**64 < 2 / 3 else FAST)


def test_a_run_with_links(train, process, clients):
    """Its records have each client's bytes and times, as a loop by hand with per-client traffic tells them."""
    links = Links({"4g": 0.5, "3g": 0.5}, seed=0, computing_seconds=lambda client_id, round_number: 0.01 * round_number)
    history = train(rounds=3, links=links)
    state, batched, so_far = process.initialize(seed=0), clients.batched(4, shuffle=True), 0.0
    for number, record in enumerate(history.records):
        cohort = batched.sample(2, seed=0, round_number=number)
        state, result = process.next(state, cohort, per_client_traffic=True)
        seconds = links.round_seconds(result, round_number=number)
        so_far += seconds
        assert record.client_bytes == result.traffic.clients
        assert record.traffic == TrafficTotals.of(result.traffic, seconds)
        assert record.cumulative.link_seconds == so_far
        assert links.round_seconds(record) == seconds > 0
    assert history.column("time/link_seconds_per_round")[2] == history.records[2].traffic.link_seconds
    assert history.column("time/link_seconds_cumulative")[-1] == so_far


def test_links_change_nothing_but_time(train):
    """A run without links gives the same records but for times and clients' bytes, and has no columns of time."""
    without, timed = train(), train(links=Links("4g"))
    for plain, record in zip(without.records, timed.records, strict=True):
        assert plain.client_bytes == {}
        assert plain.columns().keys() == record.columns().keys() - {
            "time/link_seconds_per_round",
            "time/link_seconds_cumulative",
        }
        assert dataclasses.replace(record.traffic, link_seconds=0.0) == plain.traffic
    with pytest.raises(ArgumentError, match="has no column 'time/link_seconds_cumulative'"):
        without.column("time/link_seconds_cumulative")


def test_a_history_over_other_links(train):
    """One run tells the time over any links, to the last bit what a run with them would have told."""
    mixed = Links({"5g": 0.5, "lora": 0.5}, seed=1)
    assert mixed.timed(train(links=Links("fibre"))) == train(links=mixed)
    by_means = Links("lora").timed(train())
    assert 0 < by_means.final.cumulative.link_seconds <= train(links=Links("lora")).final.cumulative.link_seconds
    with pytest.raises(ArgumentError, match="has only totals"):
        mixed.timed(train())


def test_time_goes_on(train):
    """A resumed run's time goes on with its traffic; joined, both parts can be timed anew, the second alone cannot."""
    links = Links({"4g": 0.5, "nb-iot": 0.5}, seed=2)
    whole, begun = train(rounds=5, links=links), train(rounds=2, links=links)
    rest = train(rounds=3, links=links, state=begun.state, traffic_so_far=begun.final.cumulative)
    assert begun.records + rest.records == whole.records
    joined = dataclasses.replace(rest, records=begun.records + rest.records)
    assert Links("4g").timed(joined) == Links("4g").timed(whole)
    with pytest.raises(ArgumentError, match="must begin with the first round of its training, .*begun.records"):
        links.timed(rest)


@pytest.mark.parametrize("first", [None, Links("4g")])
def test_a_run_goes_on_with_links_as_it_began(train, first):
    """Links in one half of a training only would make a total of half its time: an error says both ways out."""
    begun = train(rounds=1, links=first)
    going_on = {"state": begun.state, "traffic_so_far": begun.final.cumulative}
    with pytest.raises(
        ArgumentError, match="for all of a training or for none, got a run with(out)? links that goes on from one with"
    ):
        train(rounds=1, links=Links("4g") if first is None else None, **going_on)


def test_no_rounds_take_no_time(history):
    """An empty history stays one."""
    assert Links("4g").timed(history([])) == history([])


def test_logs_have_the_time(train, tmp_path):
    """CSV files have a column a round and one of the total, after all others."""
    writer = experiments.CSVWriter(tmp_path / "rounds.csv")
    history = train(links=Links("lora"), writers=[writer])
    header, *rows = (tmp_path / "rounds.csv").read_text().splitlines()
    columns = ["time/link_seconds_cumulative", "time/link_seconds_per_round", "time/seconds_per_round"]
    assert header.split(",")[-3:] == columns
    assert float(rows[-1].split(",")[-3]) == history.final.cumulative.link_seconds


def test_table_with_minutes(history):
    """A column of minutes comes with the first run that has a time: 10 clients, 1 and 2 MB a round, at 8 Mbit/s."""
    plain = history([0.5, 0.9], name="fp32")
    by_means = Links(FAST).timed(plain)
    exact = Links(SLOW).timed(history([0.5, 0.9], client_bytes={"a": (1_000_000, 0)}))
    table = experiments.comparison_table([plain, by_means, exact])
    assert table.header[-1] == "link minutes"
    assert [row[-1] for row in table.rows] == ["-", "0.01000 (mean)", "0.3500"]
    assert len(experiments.comparison_table([plain]).header) == 7
    stream = io.StringIO()
    console.Console(file=stream, width=80).print(table)
    assert "…" not in stream.getvalue()


def test_curves_against_minutes(history, tmp_path, monkeypatch):
    """A third image has minutes on its axis, of the runs that were timed; its label says where they are of means."""
    from matplotlib import axes

    drawn, labels = [], []
    plot, label = axes.Axes.plot, axes.Axes.set_xlabel
    monkeypatch.setattr(axes.Axes, "plot", lambda self, *args, **kw: drawn.append(args) or plot(self, *args, **kw))
    monkeypatch.setattr(axes.Axes, "set_xlabel", lambda self, text: labels.append(text) or label(self, text))
    exact = Links(SLOW).timed(history([0.5, None, 0.9], client_bytes={"a": (1_000_000, 0)}))
    experiments.plot_curves([history([0.4, 0.8]), exact], tmp_path / "curves.png")
    assert len(drawn) == 5
    minutes, values = drawn[-1]
    assert minutes == pytest.approx([10.5 / 60, 3 * 10.5 / 60])
    assert values == [0.5, 0.9]
    assert labels[-1] == "minutes over links, slowest client of each round (log scale)"
    experiments.plot_curves([Links(SLOW).timed(history([0.4, 0.8]))], tmp_path / "curves.png")
    assert labels[-1] == "minutes over links, mean client of each round (log scale)"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Link(0, 1), ArgumentError, "down_bits_per_second must be finite and above 0, got 0"),
        (lambda: Link(1, math.inf), ArgumentError, "up_bits_per_second must be finite and above 0, got inf"),
        (lambda: Link(1, 1, -0.1), ArgumentError, "latency_seconds must be finite and at least 0, got -0.1"),
        (lambda: Link("1", 1), ArgumentTypeError, "down_bits_per_second must be a number, got '1' of type str"),
        (lambda: Link(1, True), ArgumentTypeError, "up_bits_per_second must be a number, got True of type bool"),
        (
            lambda: Link.named("4G"),
            ArgumentError,
            "name must be one of .*'4g'.*, got '4G'; for another link give its rates",
        ),
        (lambda: Links("6g"), ArgumentError, "name must be one of"),
        (
            lambda: Links(8e6),
            ArgumentTypeError,
            "links must be an experiments.Link or the name of one.*, got 8000000.0",
        ),
        (lambda: Links({}, seed=0), ArgumentError, "links must hold at least one link"),
        (
            lambda: Links({"4g": 0, "3g": 1}, seed=0),
            ArgumentError,
            "the share of '4g' must be finite and above 0, got 0",
        ),
        (lambda: Links({"4g": None}), ArgumentTypeError, "the share of '4g' must be a number, got None"),
        (lambda: Links({"client0": "4g"}), ArgumentTypeError, r"maps 'client0' to '4g'; .*Links\(table.__getitem__\)"),
        (lambda: Links({"4g": 1, "3g": 1}), ArgumentError, "seed must be given where clients have different links"),
        (lambda: Links({"4g": 1, "3g": 1}, seed=-1), ArgumentError, "seed must lie in"),
        (lambda: Links("4g", computing_seconds=-1), ArgumentError, "computing_seconds must be finite and at least 0"),
        (lambda: Links(lambda _: 3).link("a"), ArgumentTypeError, r"links\('a'\) must be an experiments.Link"),
    ],
)
def test_wrong_links(make, error, message):
    """What makes no link is refused in a sentence that names it."""
    with pytest.raises(error, match=message):
        make()


def test_run_wants_links(train):
    """The likeliest slip, a name alone, has an error that shows what to write."""
    with pytest.raises(ArgumentTypeError, match=r"links must be experiments.Links, such as experiments.Links\('4g'\)"):
        train(links="4g")
