"""ClientData: a lazy, immutable mapping from clients to their examples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic import data
from laconic.errors import ArgumentError, ArgumentTypeError, DataError, UnknownClientError


def make(**counts):
    """Clients with these numbers of examples, whose inputs say whose and which they are."""
    return data.from_arrays(
        {i: {"x": np.array([f"{i}".encode()[0] * 100 + k for k in range(n)], np.float32), "y": np.arange(n)}
         for i, n in counts.items()}
    )  # fmt: skip


def test_ids_are_sorted_and_found():
    """Whatever the order they are given in, ids come sorted, and membership and length are those of a mapping."""
    clients = make(b=1, c=2, a=3)
    assert clients.client_ids == ("a", "b", "c") == tuple(clients)
    assert len(clients) == 3
    assert "b" in clients
    assert "d" not in clients
    assert 1 not in clients


def test_a_clients_examples():
    """Indexing and load give the client's arrays; integer labels are int32."""
    clients = make(a=3)
    np.testing.assert_array_equal(clients["a"]["x"], np.float32([9700, 9701, 9702]))
    assert clients["a"]["y"].dtype == np.int32
    assert clients.load("a").keys() == clients["a"].keys() == {"x", "y"}


def test_examples_cannot_be_changed():
    """A user's in-place change fails rather than changing what others read."""
    clients = make(a=3)
    with pytest.raises(ValueError, match=r"read-only"):
        clients["a"]["x"][0] = 1
    with pytest.raises(ValueError, match=r"read-only"):
        clients.map(lambda examples: {"x": np.add(examples["x"], 1, out=examples["x"])})["a"]


def test_unknown_client():
    """The error names the id, how many clients there are and the nearest ids, and is a KeyError."""
    clients = make(f0424_27=1, f1255_13=1, f0424_28=1)
    with pytest.raises(UnknownClientError, match=r"'f0424_72'; there are 3 clients, .* are 'f0424_28', 'f0424_27'"):
        clients["f0424_72"]
    with pytest.raises(KeyError):
        clients.num_examples("")


def test_clients_are_loaded_when_asked_for():
    """Nothing is loaded before it is needed, known counts are not loaded for, and counts found out are remembered."""
    loaded = []

    def load(client_id):
        loaded.append(client_id)
        return {"x": np.zeros((2, 3)), "y": np.zeros(2, np.int64)}

    data.from_loader(["a", "b"], load, {"a": 2, "b": 2}).statistics()
    data.from_loader(["a", "b"], load, lambda _: 2).statistics()
    clients = data.from_loader(["b", "a"], load).map(lambda examples: examples)
    clients.batched(2).cohort(["a"])
    assert loaded == []
    assert clients.num_examples("a") == clients.num_examples("a") == 2
    assert loaded == ["a"]


def test_counts_that_are_wrong():
    """A source that says one number of examples and returns another would weigh clients wrongly, so it is refused."""
    fields = {"x": np.zeros(2), "y": np.zeros(2, int)}
    message = r"client 'a' has 2 examples, but had or was said to have 3; a source must return the same examples"
    with pytest.raises(DataError, match=message):
        data.from_loader(["a"], lambda _: fields, {"a": 3})["a"]
    shrinking = iter([3, 2])
    clients = data.from_arrays({"a": {"x": np.zeros(3)}}).map(lambda e: {"x": e["x"][: next(shrinking)]})
    clients.load("a")
    with pytest.raises(DataError, match=message):
        clients.load("a")


def test_map():
    """`map` applies to each client when it is loaded, and may change the number of rows."""
    clients = make(a=3, b=4).map(lambda examples: {"x": examples["x"][1:, None], "y": examples["y"][1:]})
    assert clients["b"]["x"].shape == (3, 1)
    assert [clients.num_examples(i) for i in clients] == [2, 3]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"x": np.zeros(3), "y": np.zeros(2, int)}, r"client 'a': all fields .*; got 'x': 3, 'y': 2"),
        ({}, r"client 'a': all fields .*; got no fields"),
        ({"x": 1.0}, r"client 'a', field 'x': expected an array of numbers, .* shape \(\)"),
        ({"x": [[1.0], [1.0, 2.0]]}, r"client 'a', field 'x': .* rows of different shapes"),
        ({"x": np.array([None])}, r"client 'a', field 'x': .* dtype object"),
        ({"y": np.array([2**31])}, r"client 'a': labels must fit int32, got values from 2147483648"),
    ],
)
def test_malformed_examples(fields, message):
    """What a function or a loader returns is checked, and the error names the client and the field."""
    with pytest.raises(DataError, match=message):
        make(a=1).map(lambda _: fields)["a"]
    with pytest.raises(DataError, match=message):
        data.from_arrays({"a": fields})


def test_examples_must_be_a_dict():
    """A function that returns a tuple is told what to return."""
    with pytest.raises(ArgumentTypeError, match=r"client 'a': examples must be a dict of arrays, got tuple"):
        make(a=1).map(lambda examples: tuple(examples.values()))["a"]


def test_client_ids_are_unique_strings():
    """Repeated ids, other things than strings, and no clients at all are refused."""
    with pytest.raises(ArgumentError, match=r"must be unique, got 'a' more than once"):
        data.from_loader(["a", "b", "a"], dict)
    with pytest.raises(ArgumentError, match=r"at least one client, got none"):
        data.from_arrays({})


def test_examples_of_all_clients():
    """Central evaluation sees every client's examples in the order of the ids."""
    everything = make(b=1, a=2).examples()
    np.testing.assert_array_equal(everything["x"], np.float32([9700, 9701, 9800]))
    np.testing.assert_array_equal(everything["y"], [0, 1, 0])


@pytest.mark.parametrize("other", [{"x": np.zeros((1, 3))}, {"x": np.zeros((1, 2)), "y": np.zeros(1, int)}])
def test_examples_that_do_not_fit_together(other):
    """Clients with other fields or shapes cannot be concatenated."""
    clients = data.from_arrays({"a": {"x": np.zeros((1, 2))}, "b": other})
    with pytest.raises(DataError, match=r"clients have different fields|clients' examples differ in shape"):
        clients.examples()


def test_statistics():
    """The statistics are those of the counts, and read as a sentence."""
    clients = make(a=1, b=2, c=6)
    statistics = clients.statistics()
    assert statistics == data.Statistics(clients=3, examples=9, minimum=1, median=2.0, mean=3.0, maximum=6)
    assert str(statistics) == "3 clients, 9 examples; per client: min 1, median 2, mean 3.0, max 6"
    assert clients.statistics(labels=True).labels == {0: 3, 1: 2, 2: 1, 3: 1, 4: 1, 5: 1}
    with pytest.raises(DataError, match=r"client 'a' has no labels 'y' to count, only \['x'\]"):
        clients.map(lambda examples: {"x": examples["x"]}).statistics(labels=True)
    assert str(clients.statistics(labels=True)).endswith("per label: 0: 3, 1: 2, 2: 1, 3: 1, 4: 1, 5: 1")


def test_select():
    """A selection has these clients, and knows what was known of them."""
    clients = make(a=1, b=2, c=3).select(["c", "a"])
    assert clients.client_ids == ("a", "c")
    assert clients.known_num_examples("c") == 3
    with pytest.raises(UnknownClientError, match=r"'b'"):
        clients["b"]
    with pytest.raises(UnknownClientError, match=r"'b'"):
        clients.select(["b"])
    with pytest.raises(ArgumentError, match=r"more than once"):
        clients.select(["a", "a"])


def test_without_empty():
    """Clients without examples are dropped."""
    assert make(a=0, b=2, c=0).without_empty().client_ids == ("b",)
    with pytest.raises(ArgumentError, match=r"at least one client"):
        make(a=0).without_empty()


@given(count=st.integers(2, 30), share=st.floats(0.001, 0.999), seed=st.integers())
def test_split_by_share(count, share, seed):
    """The two groups are disjoint, hold all clients, have the right sizes, and depend on the seed alone."""
    clients = make(**{f"c{i}": 1 for i in range(count)})
    first, second = clients.split(share, seed=seed)
    assert set(first.client_ids) | set(second.client_ids) == set(clients.client_ids)
    assert len(first) + len(second) == count
    assert abs(len(first) - share * count) <= 1
    assert clients.split(share, seed=seed)[0].client_ids == first.client_ids


def test_split_by_ids():
    """The first group is the given ids."""
    first, second = make(a=1, b=2, c=3).split(["b"])
    assert (first.client_ids, second.client_ids) == (("b",), ("a", "c"))
    np.testing.assert_array_equal(second["c"]["y"], [0, 1, 2])


def test_split_by_share_golden():
    """The groups are these, whatever is installed."""
    first, _ = make(**dict.fromkeys("abcdefgh", 1)).split(0.5, seed=3)
    assert "".join(first.client_ids) == GOLDEN_SPLIT


@pytest.mark.parametrize("first", [0.0, 1.0, -0.5, 2.0, float("nan"), [], ["a", "b", "c"]])
def test_impossible_splits(first):
    """A share is between 0 and 1, and neither group is empty."""
    with pytest.raises(ArgumentError, match=r"between 0 and 1|at least one client|second group"):
        make(a=1, b=2, c=3).split(first)


def test_one_client_cannot_be_split():
    """Two groups need two clients."""
    with pytest.raises(ArgumentError, match=r"at least two clients"):
        make(a=1).split(0.5)


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
)
def test_hold_out(counts, fraction, seed):
    """Each client's examples are divided, in order, and whoever has two keeps one for either part."""
    clients = make(**{"abcdef"[i]: n for i, n in enumerate(counts)})
    if max(counts) < 2:
        with pytest.raises(ArgumentError, match=r"at least two examples"):
            clients.hold_out(fraction, seed=seed)
        return
    train, test = clients.hold_out(fraction, seed=seed)
    assert test.client_ids == tuple(i for i in clients if clients.num_examples(i) >= 2)
    assert train.client_ids == clients.client_ids
    for client_id in test:
        kept, held_out = train[client_id]["y"].tolist(), test[client_id]["y"].tolist()
        assert kept
        assert held_out
        assert kept == sorted(kept)
        assert held_out == sorted(held_out)
        assert sorted(kept + held_out) == clients[client_id]["y"].tolist()
        assert (train.num_examples(client_id), test.num_examples(client_id)) == (len(kept), len(held_out))
        assert abs(len(held_out) - fraction * clients.num_examples(client_id)) <= 1


def test_hold_out_share():
    """A share outside 0 to 1 is refused."""
    with pytest.raises(ArgumentError, match=r"fraction must be a share between 0 and 1, .* got 1.0"):
        make(a=3).hold_out(1.0)


def test_merge():
    """A merge has all clients of all parts."""
    merged = data.merge(make(a=1, d=2), make(b=3), make(c=4))
    assert [merged.num_examples(i) for i in merged] == [1, 3, 4, 2]
    np.testing.assert_array_equal(merged["c"]["x"], make(c=4)["c"]["x"])


def test_merge_needs_different_clients():
    """The error counts the shared ids and names one."""
    with pytest.raises(ArgumentError, match=r"2 ids are in two of them, such as 'b'"):
        data.merge(make(a=1, b=2, c=1), make(c=1, b=1))


def test_repr():
    """What is shown is small."""
    assert repr(make(a=1, b=2)) == "<ClientData of 2 clients, 'a' to 'b'>"


GOLDEN_SPLIT = "adfh"
