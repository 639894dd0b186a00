"""A contribution that is encoded and read in one go, as where both ends are one process."""

import jax
import numpy as np
import pytest
from catalogue import LOSSLESS, LOSSY, ONE_RECEIVER
from codec_support import same_bits

from laconic import codecs
from laconic.errors import ArgumentError, NonFiniteError

CODECS = LOSSLESS | LOSSY | ONE_RECEIVER
GENERATOR = np.random.default_rng(3)
TREE = {
    "matrix": GENERATOR.standard_normal((24, 20), np.float32),
    "half": GENERATOR.standard_normal(30).astype(np.float16),
    "vector": np.float32(100) * GENERATOR.standard_normal(7, np.float32),
}
KEY = codecs.random.key(11)


@pytest.mark.parametrize("name", CODECS)
def test_it_is_the_two_ends_one_after_the_other(name):
    """Payload, summands, reports and memory have the bits of `contribute` and then `read_contribution` of its bytes."""
    bound = codecs.bind(CODECS[name], TREE)
    state, memory = bound.initial_state(), bound.initial_memory()
    parameters = bound.encode_parameters(state)
    payload, contribution, after = bound.contribute_here(TREE, memory, key=KEY, parameters=parameters, state=state)
    alone, after_alone = bound.contribute(TREE, memory, key=KEY, parameters=parameters)
    expected = bound.read_contribution(alone.blob, state)
    assert payload.blob == alone.blob
    assert payload.tensors == alone.tensors
    assert contribution.unit_sizes == expected.unit_sizes
    for ours, theirs in (
        (contribution.summands, expected.summands),
        (contribution.reports, expected.reports),
        (jax.tree.leaves(after), jax.tree.leaves(after_alone)),
    ):
        assert len(ours) == len(theirs)
        assert all(same_bits(np.asarray(a), np.asarray(b)) for a, b in zip(ours, theirs, strict=True))


def test_the_receiver_does_not_see_what_was_not_sent():
    """A float that was rounded to a narrower one stays rounded, though both are computed by one program."""
    x = np.float32([1 + 2**-20, 1 / 3])
    bound = codecs.bind(codecs.cast("bfloat16"), x)
    state = bound.initial_state()
    _, contribution, _ = bound.contribute_here(
        x, bound.initial_memory(), key=None, parameters=bound.encode_parameters(state), state=state
    )
    assert contribution.summands[0][0] == 1
    assert contribution.summands[0][1] != x[1]


def test_uncompressed_arrays_are_not_copied():
    """What an identity codec's receiver adds up is the sender's own array."""
    x = jax.numpy.arange(4.0)
    bound = codecs.bind(codecs.identity(), x)
    state = bound.initial_state()
    parameters = bound.encode_parameters(state)
    _, contribution, _ = bound.contribute_here(x, bound.initial_memory(), key=None, parameters=parameters, state=state)
    assert np.shares_memory(contribution.summands[0], np.asarray(x))


def test_what_contribute_refuses_is_refused():
    """NaN, a missing key, and another tree are errors here, too."""
    bound = codecs.bind(codecs.stochastic_grid(step_in_rms=2.0), TREE)
    own = {"parameters": bound.encode_parameters(bound.initial_state()), "state": bound.initial_state()}
    with pytest.raises(NonFiniteError, match=r"^vector \(float32\[7\]\) holds NaN or infinity"):
        bound.contribute_here(
            {**TREE, "vector": np.full(7, np.nan, np.float32)}, bound.initial_memory(), key=KEY, **own
        )
    with pytest.raises(ArgumentError, match="needs a key or seed, got None"):
        bound.contribute_here(TREE, bound.initial_memory(), key=None, **own)
    with pytest.raises(ArgumentError, match="the tree must have the structure"):
        bound.contribute_here([TREE], bound.initial_memory(), key=KEY, **own)
