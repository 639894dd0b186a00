"""Batches: one shape, every example the right number of times, padding masked."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic import data
from laconic.errors import ArgumentError, DataError, UnknownClientError


def make(*counts):
    """Clients c0, c1, ... with these numbers of examples; inputs [2], labels from 1, so that padding is told apart."""
    return data.from_arrays(
        {
            f"c{i}": {"x": np.stack([np.arange(n), np.full(n, i)], 1).astype(np.float32), "y": np.arange(n) + 1}
            for i, n in enumerate(counts)
        }
    )


@given(
    count=st.integers(1, 30),
    batch_size=st.integers(1, 12),
    epochs=st.integers(1, 4),
    shuffle=st.booleans(),
    seed=st.integers(0, 5),
)
def test_each_example_comes_once_an_epoch(count, batch_size, epochs, shuffle, seed):
    """The stream is whole epochs, cut into full batches, of which only the last is padded, with zeros."""
    dataset = make(count).batched(batch_size, epochs=epochs, shuffle=shuffle, seed=seed).client("c0")
    batches = list(dataset)
    assert len(batches) == dataset.num_batches == -(-count * epochs // batch_size)
    for batch in batches:
        assert jax.tree.map(lambda spec: (spec.shape, spec.dtype), dataset.batch_spec) == jax.tree.map(
            lambda array: (array.shape, array.dtype), batch
        )
    assert all(batch.mask.all() for batch in batches[:-1])
    mask = np.concatenate([batch.mask for batch in batches])
    x, y = (np.concatenate([getattr(batch, name) for batch in batches]) for name in ("x", "y"))
    assert mask.sum() == count * epochs
    assert not x[mask == 0].any()
    assert not y[mask == 0].any()
    y = y[mask == 1]
    np.testing.assert_array_equal(x[mask == 1][:, 0], y - 1)
    for epoch in range(epochs):
        assert sorted(y[epoch * count : (epoch + 1) * count]) == list(range(1, count + 1))


def test_batches_run_across_epochs():
    """As in TFF: repeat, then batch."""
    batches = [batch.y.tolist() for batch in make(3).batched(2, epochs=2).client("c0")]
    assert batches == [[1, 2], [3, 1], [2, 3]]


def test_orders_differ_and_repeat():
    """Each epoch, round, client and seed has its own order, and each is the same every time."""

    def order(client_id="c0", round_number=0, seed=0, epoch=0):
        clients = make(30, 30).batched(30, epochs=2, shuffle=True, seed=seed)
        return tuple(list(clients.client(client_id, round_number))[epoch].y.tolist())

    orders = [order(), order(client_id="c1"), order(round_number=1), order(seed=1), order(epoch=1)]
    assert len(set(orders)) == 5
    assert orders[0] == order()


def test_a_dataset_can_be_iterated_again():
    """Both iterations give the same batches, and changing a batch changes no other."""
    dataset = make(5).batched(2, shuffle=True).client("c0")
    first = list(dataset)
    copies = [batch.y.copy() for batch in first]
    for batch in first:
        batch.x[:], batch.y[:] = -1, -1
    np.testing.assert_array_equal([batch.y for batch in dataset], copies)


def test_dtypes_are_the_sources():
    """Inputs keep their dtype; labels are int32 and the mask is float32."""
    clients = data.from_arrays({"a": {"x": np.zeros((3, 4), np.uint8), "y": np.zeros(3, np.int64)}})
    batch = next(iter(clients.batched(2).client("a")))
    assert (batch.x.dtype, batch.y.dtype, batch.mask.dtype) == (np.uint8, np.int32, np.float32)


def test_sampled_datasets():
    """A sample is the cohort of the sampled ids, in that order, in that round."""
    clients = make(*range(1, 9)).batched(2, shuffle=True)
    ids = clients.sample_ids(4, seed=3, round_number=5)
    sample = clients.sample(4, seed=3, round_number=5)
    assert [dataset.client_id for dataset in sample] == ids == clients.clients.sample_ids(4, seed=3, round_number=5)
    assert [dataset.round_number for dataset in sample] == [5] * 4
    assert sample == clients.cohort(ids, round_number=5)
    assert [dataset.num_examples for dataset in sample] == [int(i[1:]) + 1 for i in ids]


def test_batch_spec_is_of_the_first_client_with_examples():
    """A client without examples need not know the shape of what it does not have."""
    clients = data.from_arrays({"a": {"x": [], "y": []}, "b": {"x": np.zeros((1, 2, 3)), "y": np.zeros(1)}})
    assert clients.batched(4).batch_spec.x.shape == (4, 2, 3)
    assert clients.batched(4).client("b").batch_spec == clients.batched(4).batch_spec


def test_no_client_has_examples():
    """Without any example there is no shape."""
    with pytest.raises(DataError, match=r"none of the 2 clients has any examples"):
        _ = make(0, 0).batched(2).batch_spec


def test_a_client_without_examples():
    """The error names the client and says how to leave it out, as soon as it is known."""
    clients = make(3, 0)
    with pytest.raises(DataError, match=r"client 'c1' has no examples; .* ClientData.without_empty\(\)"):
        clients.batched(2).sample(2, seed=0, round_number=0)
    unknown = clients.map(lambda examples: examples).batched(2).client("c1")
    with pytest.raises(DataError, match=r"client 'c1' has no examples"):
        list(unknown)


def test_clients_of_different_shapes():
    """A client whose examples look unlike the others' is named, with both shapes."""
    clients = data.from_arrays({"a": {"x": np.zeros((1, 2)), "y": [0]}, "b": {"x": np.zeros((1, 3)), "y": [0]}})
    with pytest.raises(DataError, match=r"client 'b' has batches of x float64\[4, 3\].* x float64\[4, 2\]"):
        list(clients.batched(4).client("b"))


def test_fields_that_are_missing():
    """Examples that are not called x and y cannot be batched, and the error says how to rename them."""
    clients = data.from_arrays({"a": {"pixels": np.zeros(2), "y": [0, 1]}})
    message = r"client 'a' must have the fields 'x' .* got \['pixels', 'y'\]; rename them with ClientData.map"
    with pytest.raises(DataError, match=message):
        list(clients.batched(2).client("a"))
    with pytest.raises(DataError, match=r"got \['pixels', 'y'\]"):
        data.batches(clients["a"], 2)


def test_extra_fields_are_left_out():
    """Only inputs and labels travel in batches."""
    clients = data.from_arrays({"a": {"x": np.zeros(2), "y": [0, 1], "weather": [3, 4]}})
    assert len(list(clients.batched(2).client("a"))) == 1


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": 2, "epochs": 0}, {"batch_size": -1}])
def test_impossible_options(options):
    """Batches have rows and there is at least one epoch."""
    with pytest.raises(ArgumentError, match=r"(batch_size|epochs) must be at least 1, got (0|-1)"):
        make(1).batched(**options)


def test_bad_cohorts():
    """Unknown clients, no clients and negative rounds are refused when the cohort is made."""
    clients = make(1).batched(2)
    with pytest.raises(UnknownClientError, match=r"'c9'"):
        clients.cohort(["c0", "c9"])
    with pytest.raises(ArgumentError, match=r"at least one client"):
        clients.cohort([])
    with pytest.raises(ArgumentError, match=r"round_number must be 0 or more"):
        clients.client("c0", -1)


def test_batches_for_central_evaluation():
    """All examples in order, in batches of one shape."""
    batches = data.batches(make(3, 2).examples(), 4)
    assert [batch.y.tolist() for batch in batches] == [[1, 2, 3, 1], [2, 0, 0, 0]]
    assert [batch.mask.tolist() for batch in batches] == [[1, 1, 1, 1], [1, 0, 0, 0]]
    with pytest.raises(ArgumentError, match=r"batch_size must be at least 1, got 0"):
        data.batches(make(3).examples(), 0)


def test_a_batch_is_a_pytree():
    """Batches go into jitted steps as they are."""
    batch = data.batches(make(3).examples(), 4)[0]
    total = jax.jit(lambda batch: (batch.x[:, 0] * batch.mask).sum())(batch)
    assert float(total) == 3.0
