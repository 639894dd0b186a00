"""Types and their notation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laconic.errors import ArgumentTypeError
from laconic.federated import CLIENTS, SERVER, SequenceOf, at_clients, at_server, member_type


class Pair(NamedTuple):
    """A structure with names."""

    first: object
    second: object


@pytest.mark.parametrize(
    ("tree", "notation"),
    [
        (jnp.float32, "float32"),
        (np.zeros((2, 3), np.float32), "float32[2,3]"),
        (1, "int32"),
        (1.0, "float32"),
        (jax.ShapeDtypeStruct((0,), jnp.bfloat16), "bfloat16[0]"),
        ((jnp.int32, jnp.bool_), "<int32,bool>"),
        ({"b": jnp.int32, "a": [jnp.float32]}, "<a=<float32>,b=int32>"),
        (Pair(jnp.int32, (jnp.float16,)), "<first=int32,second=<float16>>"),
        ((), "<>"),
    ],
)
def test_compact_notation(tree, notation):
    """A member type prints as TFF writes it."""
    assert str(member_type(tree)) == notation


def test_placed_notation():
    """Values at CLIENTS are in braces, since there is one at each client."""
    assert str(at_server(jnp.float32)) == "float32@SERVER"
    assert str(at_clients(jnp.float32)) == "{float32}@CLIENTS"
    assert str(at_clients(SequenceOf(Pair(jnp.int32, jnp.float32)))) == "{<first=int32,second=float32>*}@CLIENTS"
    assert at_server(jnp.float32).placement is SERVER
    assert at_clients(jnp.float32).placement is CLIENTS


def test_equal_types_are_equal():
    """Types compare by what they say, whether made from arrays, dtypes or specs."""
    made = [np.zeros(3, np.float32), jax.ShapeDtypeStruct((3,), jnp.float32), jnp.zeros(3)]
    assert len({at_server(each) for each in made}) == 1
    assert at_server(made[0]) != at_clients(made[0])
    assert member_type((made[0],)) != member_type([made[0]])


def test_a_sequence_stays_at_the_clients():
    """A stream of batches has no type at the server."""
    with pytest.raises(ArgumentTypeError, match=r"at SERVER must be a tree of tensors, got the sequence float32\*"):
        at_server(SequenceOf(jnp.float32))


def test_a_sequence_is_a_member_by_itself():
    """A stream cannot be an element of a structure."""
    with pytest.raises(ArgumentTypeError, match="by itself"):
        at_clients((SequenceOf(jnp.float32), jnp.int32))


def test_what_is_no_tensor_is_refused():
    """A leaf must have a dtype that travels."""
    with pytest.raises(ArgumentTypeError, match="got 'text' of type str"):
        at_server({"a": "text"})
    with pytest.raises(ArgumentTypeError, match="complex64"):
        at_server(jnp.complex64)
