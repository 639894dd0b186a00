"""One encoding and decoding through bytes."""

import dataclasses
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from laconic import codecs


class Trip(NamedTuple):
    """What it gave.

    Attributes:
      payload: between ends that have bound the same codec.
      decoded: from the payload's bytes, a tree of NumPy arrays.
      encode_seconds: from arrays to bytes.
      decode_seconds: back.
    """

    payload: codecs.Payload
    decoded: Any
    encode_seconds: float
    decode_seconds: float

    @property
    def nbytes(self) -> int:
        """Bytes of the payload."""
        return len(self.payload)

    @property
    def described_nbytes(self) -> int:
        """The same with the description that lets anybody decode it."""
        return len(dataclasses.replace(self.payload, described=True))


def round_trip(bound: codecs.BoundCodec, tree: Any, seed: int) -> Trip:
    """Encodes and decodes: one to many, or as a sum of one where only a receiver with a memory can decode."""
    key = codecs.random.key(seed)
    if any(unit.codec.has_receiver_memory for unit in bound.units):
        return _gathered(bound, tree, key)
    started = time.perf_counter()
    payload, _ = bound.encode(tree, key=key)
    blob = payload.blob
    encoded = time.perf_counter()
    decoded = jax.block_until_ready(bound.decode(blob))
    return _trip(payload, decoded, started, encoded)


def _gathered(bound: codecs.BoundCodec, tree: Any, key: codecs.random.Key) -> Trip:
    started = time.perf_counter()
    payload = bound.encode_contribution(tree, key=key)
    blob = payload.blob
    encoded = time.perf_counter()
    gather = bound.gather()
    gather.add(blob)
    decoded, _ = jax.block_until_ready(gather.result())
    return _trip(payload, decoded, started, encoded)


def _trip(payload: codecs.Payload, decoded: Any, started: float, encoded: float) -> Trip:
    return Trip(payload, jax.tree.map(np.asarray, decoded), encoded - started, time.perf_counter() - encoded)
