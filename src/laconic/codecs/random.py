"""The specified random generator: Threefry-2x32 with 20 rounds, in counter mode.

Both ends of a link may have to draw the same numbers, on machines with different versions of everything, so the
generator is part of Laconic's wire format and not borrowed: Salmon et al., "Parallel random numbers: as easy as
1, 2, 3" (SC 2011), with the known-answer vectors of their Random123 library in the tests.

A *key* is a `uint32[2]`. `derive` makes a key for each round, client, tensor and stage from the run's key, so that
no two draws of a run share a stream. Drawing and deriving encipher different counters, so one key may serve for both.

Written in plain additions, rotations and exclusive ors, XLA vectorises it: it is several times as fast on CPU as
`jax.random.bits` (benchmarks/codecs/primitives.py).
"""

import hashlib
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt32

from laconic.errors import ArgumentError, ArgumentTypeError

Key = UInt32[Array, "2"] | UInt32[np.ndarray, "2"]
Words = UInt32[Array, "..."] | UInt32[np.ndarray, "..."]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_KEY_PARITY = 0x1BD11BDA
_ROUNDS = 20
_DERIVING = 0x80000000  # set in the second counter by `derive`, never by `bits`


def threefry(key: Key, counter_0: Words, counter_1: Words) -> tuple[Words, Words]:
    """Threefry-2x32-20: enciphers two counter arrays of one shape under `key` into two arrays of that shape."""
    on_host = all(isinstance(words, np.ndarray) for words in (key, counter_0, counter_1))
    return _enciphered(key, counter_0, counter_1) if on_host else _traced_once(key, counter_0, counter_1)


def _enciphered(key: Key, counter_0: Words, counter_1: Words) -> tuple[Words, Words]:
    # Slices and not scalars, so that NumPy arrays wrap around without a warning; the same lines serve both.
    schedule = (key[0:1], key[1:2], key[0:1] ^ key[1:2] ^ np.uint32(_KEY_PARITY))
    x0, x1 = counter_0 + schedule[0], counter_1 + schedule[1]
    for i in range(_ROUNDS):
        rotation = _ROTATIONS[(i // 4) % 2][i % 4]
        x0 = x0 + x1
        x1 = ((x1 << rotation) | (x1 >> (32 - rotation))) ^ x0
        if i % 4 == 3:
            injection = i // 4 + 1
            x0 = x0 + schedule[injection % 3]
            x1 = x1 + schedule[(injection + 1) % 3] + np.uint32(injection)
    return x0, x1


# A function of its own in what is traced: else its hundred operations were most of what JAX traces of a codec.
_traced_once = jax.jit(_enciphered)


def key(seed: int) -> UInt32[np.ndarray, "2"]:
    """The key of a run: the low and the high half of `seed`, an integer of 64 bits.

    Raises:
      ArgumentTypeError: if the seed is not an integer.
      ArgumentError: if it is negative or does not fit 64 bits.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise ArgumentTypeError(f"seed must be an integer, got {seed!r} of type {type(seed).__name__}")
    if not 0 <= seed < 2**64:
        raise ArgumentError(f"seed must lie in 0..2**64-1, got {seed}")
    return np.array([int(seed) & 0xFFFFFFFF, int(seed) >> 32], np.uint32)


def derive(parent: Key, *parts: int | str) -> Key:
    """The key for a named part of what `parent` is the key of, such as a round, a client or a tensor.

    Each part is folded in turn: the new key is the encryption under the old one of the part's 63 bits, low word first,
    with the top bit of the high word set. An integer is its own 63 bits, a string the lower 63 of the first eight
    bytes of its SHA-256, little-endian. A NumPy key gives a NumPy key, on the host and at once; a JAX key, traced or
    not, gives a JAX key.

    Raises:
      ArgumentTypeError: if a part is neither an integer nor a string.
      ArgumentError: if an integer is negative or does not fit 63 bits.
    """
    concatenate = np.concatenate if isinstance(parent, np.ndarray) else jnp.concatenate
    for part in parts:
        number = _number(part)
        words = np.array([number & 0xFFFFFFFF, (number >> 32) | _DERIVING], np.uint32)
        parent = concatenate(threefry(parent, words[0:1], words[1:2]))
    return parent


def derive_each(parent: Key, count: int) -> UInt32[np.ndarray, "count 2"]:
    """The keys `derive(parent, 0)`, ..., `derive(parent, count - 1)`, one a row, on the host."""
    words = threefry(np.asarray(parent), np.arange(count, dtype=np.uint32), np.full(count, _DERIVING, np.uint32))
    return np.stack([np.asarray(word) for word in words], axis=1)


def bits(key: Key, size: int) -> UInt32[Array, " size"]:
    """`size` random words: the first words of the blocks with counters (0, 0), (1, 0), ..., then their second words."""
    if size == 0:
        return jnp.zeros(0, jnp.uint32)
    # XLA leaves a loop of an odd length unvectorised, three times as slow: all but one block make a loop of their own.
    half, even = (size + 1) // 2, size // 2 & ~1
    (first, second), (first_rest, second_rest) = _blocks(key, 0, even), _blocks(key, even, half)
    return jnp.concatenate([first, first_rest, second, second_rest[: size - half - even]])


def _blocks(key: Key, start: int, stop: int) -> tuple[Words, Words]:
    counters = jnp.arange(start, stop, dtype=jnp.uint32)
    return threefry(key, counters, jnp.zeros_like(counters))


def uniform(key: Key, shape: tuple[int, ...]) -> Float32[Array, "..."]:
    """Uniform float32 in [0, 1): the upper 24 bits of each word, times 2**-24, so that every value is exact."""
    return _uniform(bits(key, math.prod(shape))).reshape(shape)


def _uniform(words: UInt32[Array, " size"]) -> Float32[Array, " size"]:
    return (words >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)


def uniform_quarters(key: Key, size: int) -> list[Float32[Array, " part"]]:
    """Uniform float32 in [0, 1) for the quarters of a vector of this size, from a quarter of `uniform`'s words.

    Entries of the second, third and fourth quarter take the word of one in the first, rotated by 8, 16 and 24 bits:
    each is exactly uniform, and of any two only what hangs on bits beyond the eighth is not independent. For an end
    that draws by itself; what both ends draw is `uniform`. Four vectors, since of joined ones XLA would ask for each
    entry which quarter it is in. The first may be longer and the last ones shorter, or empty.
    """
    quarter = min(size, size // 256 * 64 + 64)  # so that loops, and what threads share of them, are not odd: see `bits`
    words = bits(key, quarter)
    turned = [words, *((words << turn) | (words >> (32 - turn)) for turn in (8, 16, 24))]
    return [_uniform(own[: max(0, size - i * quarter)]) for i, own in enumerate(turned)]


def as_jax_key(key: Key) -> Array:
    """A key for `jax.random`, for code that wants JAX's own distributions (dropout, initialisers)."""
    return jax.random.wrap_key_data(jnp.asarray(key, jnp.uint32), impl="threefry2x32")


def _number(part: int | str) -> int:
    if isinstance(part, str):
        return int.from_bytes(hashlib.sha256(part.encode()).digest()[:8], "little") % 2**63
    try:
        number = operator.index(part)
    except TypeError:
        raise ArgumentTypeError(
            f"a key is derived for integers and strings, got {part!r} of type {type(part).__name__}"
        ) from None
    if not 0 <= number < 2**63:
        raise ArgumentError(f"a key is derived for integers in 0..2**63-1, got {number}")
    return number
