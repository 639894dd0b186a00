"""Contributions of many senders, encoded together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import LOSSLESS, LOSSY, ONE_RECEIVER

from laconic import codecs
from laconic.codecs import random
from laconic.codecs._stack import Fetched
from laconic.errors import ArgumentError, NonFiniteError

CODECS = LOSSLESS | LOSSY | ONE_RECEIVER
SENDERS = 3


class Here:
    """The one default device."""

    def share(self, tree):
        return tree

    def split(self, tree):
        return tree

    def parallel(self, function):
        return function


HERE = Here()


def trees():
    """A matrix and a vector for each sender, of their own sizes."""
    generator = np.random.default_rng(0)
    return [
        {
            "matrix": generator.standard_normal((16, 8), np.float32) * np.float32(10.0**i),
            "vector": generator.standard_normal(5, np.float32),
        }
        for i in range(SENDERS)
    ]


def stacked(values):
    """The trees as one, with an axis of senders before the arrays' own."""
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *values)


@pytest.mark.parametrize("name", [name for name, codec in CODECS.items() if not codec.needs_client_state])
def test_each_sender_sends_what_it_would_send_alone(name):
    """Each payload is the one that the sender by itself makes with its key, and is read to the same summands."""
    values = trees()
    bound = codecs.bind(CODECS[name], values[0])
    if not bound.can_stack:
        assert CODECS[name].is_searched
        return
    state = bound.initial_state()
    keys = np.stack([random.derive(random.key(1), i) for i in range(SENDERS)])
    parameters = bound.encode_parameters(state)
    sent = bound.contribute_stack(stacked(values), keys=keys, parameters=parameters, state=state, devices=HERE)
    for i, value in enumerate(values):
        payload, contribution = sent(i)
        alone = bound.encode_contribution(value, key=keys[i], parameters=parameters)
        expected = bound.read_contribution(alone.blob, state)
        assert len(payload) == len(alone)
        assert payload.tensors == alone.tensors
        for ours, theirs in zip(contribution.summands, expected.summands, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        assert contribution.unit_sizes == expected.unit_sizes
        for ours, theirs in zip(contribution.reports, expected.reports, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)
        assert bound.read_contribution(payload.blob, state).unit_sizes == expected.unit_sizes


@pytest.mark.parametrize("dtype", ["int32", "uint32", "bool", "float16"])
def test_other_dtypes(dtype):
    """Whole numbers, truth values and short floats make the bytes that they make alone."""
    values = [(np.arange(6) + i).astype(dtype) for i in range(SENDERS)]
    bound = codecs.bind(codecs.identity(), values[0])
    state = bound.initial_state()
    sent = bound.contribute_stack(stacked(values), keys=None, parameters=[{"self": {}, "below": {}}], state=state,
                                  devices=HERE)  # fmt: skip
    for i, value in enumerate(values):
        payload, _ = sent(i)
        assert payload.blob == bound.encode_contribution(value).blob


@pytest.mark.parametrize("name", ["error_feedback", "auto_rate"])
def test_what_cannot_stack_says_so(name):
    """Senders that remember, or look for a rate, must contribute by themselves."""
    value = trees()[0]
    bound = codecs.bind(CODECS[name], value)
    assert not bound.can_stack
    with pytest.raises(ArgumentError, match="each must contribute by itself; use contribute"):
        bound.contribute_stack(stacked([value]), keys=None, parameters=[], state=[], devices=HERE)


def test_another_structure_is_refused():
    """A tree of another structure than the codec's is named."""
    bound = codecs.bind(codecs.identity(), trees()[0])
    with pytest.raises(ArgumentError, match="the tree must have the structure .*matrix.*, got "):
        bound.contribute_stack([jnp.zeros((2, 3))], keys=None, parameters=[], state=[], devices=HERE)


def test_only_the_sender_at_fault_is_refused():
    """NaN of one sender is that sender's error, and the others' contributions are there."""
    bound = codecs.bind(codecs.sign(), np.zeros(8, np.float32))
    state = bound.initial_state()
    values = stacked([np.ones(8, np.float32), np.full(8, np.nan, np.float32)])
    parameters = bound.encode_parameters(state)
    keys = np.zeros((2, 2), np.uint32)
    sent = bound.contribute_stack(values, keys=keys, parameters=parameters, state=state, devices=HERE)
    assert sent(0)[0].blob == bound.encode_contribution(np.ones(8, np.float32), key=keys[0]).blob
    with pytest.raises(NonFiniteError, match="holds NaN or infinity"):
        sent(1)


def test_rows_are_brought_over_once(monkeypatch):
    """However many rows are asked for, one transfer brings all."""
    transfers = []
    bring = jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda tree: transfers.append(1) or bring(tree))
    fetched = Fetched({"a": jnp.arange(6).reshape(3, 2)})
    assert [fetched.row(i)["a"].tolist() for i in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert len(transfers) == 1
