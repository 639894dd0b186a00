"""What many clients begin with, and their work as one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laconic.errors import ArgumentError
from laconic.federated import ClientWork, member_type
from laconic.federated._client_work import PaddedElements
from laconic.federated._stack import SequenceRows, sized, stacked_rows

ELEMENT = {"x": np.zeros(2, np.float32), "n": np.int32(0)}


def elements(count):
    """As many different elements."""
    return [{"x": np.full(2, i, np.float32), "n": np.int32(10 * i)} for i in range(1, count + 1)]


def test_sequences_fill_their_rows():
    """Each client's elements lie in its row, in order, zeros after them; the counts say where these begin."""
    room = SequenceRows(member_type(ELEMENT), rows=3, steps=4)
    room.fill(0, elements(4))
    room.fill(1, iter(elements(2)))
    assert room.counts.tolist() == [4, 2, 0]
    assert room.tree["n"].tolist() == [[10, 20, 30, 40], [10, 20, 0, 0], [0, 0, 0, 0]]
    assert room.tree["x"][1].tolist() == [[1, 1], [2, 2], [0, 0], [0, 0]]


def test_no_element_is_dropped():
    """A sequence that is longer than its room is refused."""
    with pytest.raises(ArgumentError, match="more elements than the 3 .* num_batches or len"):
        SequenceRows(member_type(ELEMENT), rows=1, steps=3).fill(0, elements(4))


def test_dummies_repeat_the_last():
    """Rows beyond the clients are like the last client's."""
    rows = stacked_rows([{"a": np.float32(1)}, {"a": jnp.float32(2)}], 4)
    assert rows["a"].tolist() == [1, 2, 2, 2]
    assert rows["a"].dtype == np.float32


def test_sizes():
    """A number of batches counts before a length; what tells neither becomes a list."""

    class Batched(list):
        num_batches = 7

    assert sized(Batched([1]))[1] == 7
    assert sized([1, 2])[1] == 2
    assert sized(iter([1, 2, 3])) == ([1, 2, 3], 3)


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_padded_elements_do_not_happen(count):
    """A fold over padded elements is the fold over those that count, even where a padded one would give NaN."""
    work = ClientWork(
        lambda start: {"sum": start, "steps": 0},
        lambda carry, x: {"sum": carry["sum"] + x / x * x, "steps": carry["steps"] + 1},
        lambda carry, start: carry,
    )
    own = np.arange(1, count + 1, dtype=np.float32)
    padded = jnp.zeros(5).at[:count].set(own)
    found = jax.jit(lambda x, n, start: work.fold(PaddedElements(x, n), start))(padded, count, jnp.float32(4))
    expected = work.fold(own, jnp.float32(4))
    assert jax.tree.map(float, found) == jax.tree.map(float, expected)


def test_what_all_clients_share_is_not_copied():
    """A part of the carry that steps pass on stays one array for all clients of a stack, such as an evaluated model."""
    work = ClientWork(
        lambda model: (model, jnp.float32(0)),
        lambda carry, x: (carry[0], carry[1] + carry[0].sum() * x),
        lambda carry, model: carry,
    )

    def client(x, count, model):
        return work.fold(PaddedElements(x, count), model)

    stack = jax.vmap(client, in_axes=(0, 0, None), out_axes=(None, 0))  # None: refused if it had the stack's axis
    model, sums = stack(jnp.ones((3, 4)), jnp.array([1, 2, 4]), jnp.ones(1000))
    assert model.shape == (1000,)
    assert sums.tolist() == [1000, 2000, 4000]
