"""The random choices: specified, repeatable anywhere, and uniform."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic import data
from laconic.data import _randomness
from laconic.errors import ArgumentError

IDS = [f"writer_{i:02d}" for i in range(20)]


def clients(count=20, examples=7):
    """Clients that are told apart by their inputs."""
    fields = {"x": np.arange(examples, dtype=np.float32), "y": np.arange(examples)}
    return data.from_arrays(dict.fromkeys(IDS[:count], fields))


def test_sampling_golden_vectors():
    """Whoever knows the ids, the seed and the round draws these clients, whatever is installed."""
    drawn = [clients().sample_ids(5, seed=7, round_number=r) for r in range(3)]
    assert [[int(i[-2:]) for i in ids] for ids in drawn] == GOLDEN_SAMPLES


def test_shuffling_golden_vectors():
    """Each epoch's order is this one, whatever is installed."""
    dataset = clients().batched(7, epochs=3, shuffle=True, seed=7).client("writer_03", round_number=2)
    assert [batch.y.tolist() for batch in dataset] == GOLDEN_ORDERS


def test_random_numbers_follow_their_specification():
    """The words are Philox4x64-10 under the documented key, computed here with integers alone."""
    name = json.dumps(["laconic.data", "purpose", "writer", 7], separators=(",", ":")).encode()
    key = int.from_bytes(hashlib.sha256(name).digest()[:16], "little")
    expected = [word for counter in (1, 2) for word in philox(counter, key)]
    assert _randomness.words(8, "purpose", "writer", 7).tolist() == expected


def philox(counter, key):
    """One block of Philox4x64-10 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011)."""
    mask = 2**64 - 1
    words, keys = [counter, 0, 0, 0], [key & mask, key >> 64]
    for _ in range(10):
        low, high = words[0] * 0xD2E7470EE14C6C93, words[2] * 0xCA5A826395121157
        words = [high >> 64 ^ words[1] ^ keys[0], high & mask, low >> 64 ^ words[3] ^ keys[1], low & mask]
        keys = [(keys[0] + 0x9E3779B97F4A7C15) & mask, (keys[1] + 0xBB67AE8584CAA73B) & mask]
    return words


def test_another_process_draws_the_same():
    """Neither hash randomisation nor anything else of a process takes part."""
    code = f"""
from laconic import data
ids = {IDS}
clients = data.from_loader(ids, lambda i: {{}})
print([clients.sample_ids(5, seed=1, round_number=r) for r in range(4)])
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == str([clients().sample_ids(5, seed=1, round_number=r) for r in range(4)])


@given(count=st.integers(1, 20), seed=st.integers(-(2**70), 2**70), round_number=st.integers(0, 10**6))
def test_a_sample_has_different_known_clients(count, seed, round_number):
    """A sample is without replacement, and the same every time."""
    drawn = clients().sample_ids(count, seed=seed, round_number=round_number)
    assert len(set(drawn)) == count
    assert set(drawn) <= set(IDS)
    assert drawn == clients().sample_ids(count, seed=seed, round_number=round_number)


def test_sampling_is_uniform():
    """Over many rounds every client is drawn equally often, up to chance."""
    rounds = 1_000
    drawn = [i for r in range(rounds) for i in clients().sample_ids(5, seed=0, round_number=r)]
    counts = np.array([drawn.count(i) for i in IDS])
    # The count of a client is binomial with p = 1/4; five standard deviations.
    assert np.abs(counts - rounds / 4).max() < 5 * np.sqrt(rounds * 0.25 * 0.75)


def test_sampling_depends_on_seed_and_round():
    """Another seed or another round draws other clients."""
    draws = {tuple(clients().sample_ids(5, seed=s, round_number=r)) for s in range(4) for r in range(4)}
    assert len(draws) == 16


@pytest.mark.parametrize("count", [0, -1, 21])
def test_impossible_sample_sizes(count):
    """A sample has at least one client and at most all; the error says how many there are."""
    with pytest.raises(ArgumentError, match=rf"between 1 and 20, .* got {count}$"):
        clients().sample_ids(count, seed=0, round_number=0)


def test_negative_rounds():
    """Rounds are counted from 0."""
    with pytest.raises(ArgumentError, match=r"round_number must be 0 or more, .* got -1"):
        clients().batched(2).sample(1, seed=0, round_number=-1)


def test_numpy_integers_are_integers():
    """A seed from an array is the same seed."""
    key = {"seed": np.int64(3), "round_number": np.int32(1)}
    drawn = _randomness.sample_ids(IDS, 4, **{name: int(value) for name, value in key.items()})
    assert _randomness.order(20, "sample", *key.values())[:4].tolist() == [IDS.index(i) for i in drawn]


GOLDEN_SAMPLES = [[18, 15, 10, 6, 1], [18, 17, 16, 15, 7], [9, 1, 0, 10, 3]]
GOLDEN_ORDERS = [[5, 6, 0, 4, 1, 3, 2], [5, 0, 6, 2, 3, 1, 4], [6, 4, 3, 1, 0, 5, 2]]
