"""The random choices of this package, specified down to the bit.

NumPy promises that the raw stream of a bit generator never changes, but not what `Generator.choice` or `.permutation`
make of it. Every choice here is therefore made from raw words alone, and can be repeated in any language:

* key: the first 16 bytes, as a little-endian integer, of SHA-256 over the compact ASCII JSON list
  `["laconic.data", purpose, part, ...]` of what the choice is for and all that it depends on;
* words: the stream of Philox4x64-10 under that key, whose counter is 1 for the first four words;
* an order of n things: the stable ascending argsort of the first n words;
* a uniform number: the upper 53 bits of a word, times 2^-53.
"""

import hashlib
import json
import operator
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from laconic.errors import ArgumentError


def words(count: int, purpose: str, *parts: str | SupportsIndex) -> UInt64[np.ndarray, " count"]:
    """The first `count` words of the stream that `purpose` and `parts` select."""
    name = json.dumps(["laconic.data", purpose, *map(_plain, parts)], separators=(",", ":")).encode("ascii")
    key = int.from_bytes(hashlib.sha256(name).digest()[:16], "little")
    return np.random.Philox(key=key).random_raw(count)


def order(count: int, purpose: str, *parts: str | SupportsIndex) -> Int64[np.ndarray, " count"]:
    """A uniformly random order of the integers below `count`."""
    return np.argsort(words(count, purpose, *parts), kind="stable").astype(np.int64, copy=False)


def uniforms(count: int, purpose: str, *parts: str | SupportsIndex) -> Float64[np.ndarray, " count"]:
    """`count` numbers, uniform in [0, 1)."""
    return (words(count, purpose, *parts) >> np.uint64(11)) * 2.0**-53


def sample_ids(client_ids: Sequence[str], count: int, *, seed: int, round_number: int) -> list[str]:
    """`count` different ids, drawn uniformly; a function of the three arguments and nothing else."""
    if not 1 <= count <= len(client_ids):
        raise ArgumentError(
            f"the number of clients to sample must be between 1 and {len(client_ids)}, the number of clients there are "
            f"(a client takes part at most once a round), got {count}"
        )
    check_round(round_number)
    return [client_ids[i] for i in order(len(client_ids), "sample", seed, round_number)[:count]]


def check_round(round_number: int) -> None:
    """Raises an ArgumentError unless `round_number` counts from 0."""
    if round_number < 0:
        raise ArgumentError(f"round_number must be 0 or more, for rounds are counted from 0; got {round_number}")


def _plain(part: str | SupportsIndex) -> str | int:
    # NumPy's integers are as good as Python's, but json does not know them.
    return part if isinstance(part, str) else operator.index(part)
