"""The generator is Random123's Threefry, and everything made of it is specified."""

import itertools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from codec_support import few_examples, seeds
from hypothesis import strategies as st
from jax.extend.random import threefry_2x32

from laconic.codecs import random
from laconic.errors import ArgumentError, ArgumentTypeError

# counter, key, cipher text: kat_vectors of Random123, threefry2x32 with 20 rounds.
KNOWN_ANSWERS = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


def words(numbers):
    """Numbers as `uint32`."""
    return np.array(numbers, np.uint32)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
@pytest.mark.parametrize("array", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_known_answers(array, counter, key, expected):
    """The cipher gives the known answers of Random123, in NumPy and in JAX."""
    counter, key = array(words(counter)), array(words(key))
    first, second = random.threefry(key, counter[:1], counter[1:])
    assert (int(first[0]), int(second[0])) == expected


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers_are_those_of_jax(counter, key, expected):
    """JAX's own Threefry agrees with the known answers, so they are copied rightly."""
    assert tuple(map(int, threefry_2x32(words(key), words(counter)))) == expected


compiled_cipher = jax.jit(random.threefry)


@few_examples
@hypothesis.given(seed=seeds, other=st.integers(0, 2**32 - 1))
def test_host_and_compiled_paths_agree(seed, other):
    """The cipher gives the same words on the host and compiled."""
    key, counter = random.key(seed), np.arange(65, dtype=np.uint32)
    on_host = random.threefry(key, counter, counter ^ np.uint32(other))
    np.testing.assert_array_equal(on_host, compiled_cipher(key, counter, counter ^ np.uint32(other)))


@pytest.mark.parametrize("size", [0, 1, 2, 7])
def test_bits_are_the_specified_blocks(size):
    """Word i < h is the first, word h + i the second word of block (i, 0), where h is half the size, rounded up."""
    key, half = random.key(7), (size + 1) // 2
    blocks = [random.threefry(key, words([i]), words([0])) for i in range(half)]
    expected = [first for first, _ in blocks] + [second for _, second in blocks]
    compiled = jax.jit(random.bits, static_argnums=1)(key, size)
    assert compiled.dtype == jnp.uint32
    np.testing.assert_array_equal(compiled, np.concatenate([words([]), *expected])[:size])
    np.testing.assert_array_equal(random.bits(key, size), compiled)


def test_uniform_numbers_fill_the_unit_interval():
    """Uniform numbers are multiples of 2**-24 in [0, 1) with the moments of the uniform distribution."""
    u = np.asarray(jax.jit(random.uniform, static_argnums=1)(random.key(3), (400, 500)), np.float64)
    assert u.shape == (400, 500)
    assert (u >= 0).all()
    assert (u < 1).all()
    assert (u * 2**24 == np.round(u * 2**24)).all()
    standard_error = np.sqrt(1 / 12 / u.size)
    assert abs(u.mean() - 1 / 2) < 5 * standard_error
    assert abs((u**2).mean() - 1 / 3) < 5 * standard_error
    assert abs(np.corrcoef(u[:, :-1].ravel(), u[:, 1:].ravel())[0, 1]) < 5 / np.sqrt(u.size)


def test_uniform_of_no_and_of_one_number():
    """A shape without elements gives none; a scalar gives one."""
    assert random.uniform(random.key(1), (3, 0)).shape == (3, 0)
    assert random.uniform(random.key(1), ()).shape == ()


def test_key_is_the_two_halves_of_the_seed():
    """The low word comes first."""
    np.testing.assert_array_equal(random.key(0x0123456789ABCDEF), words([0x89ABCDEF, 0x01234567]))
    np.testing.assert_array_equal(random.key(np.uint64(2**64 - 1)), words([0xFFFFFFFF, 0xFFFFFFFF]))


@pytest.mark.parametrize("seed", [-1, 2**64, np.int64(-5)])
def test_seeds_out_of_range(seed):
    """A seed must fit 64 bits and not be negative."""
    with pytest.raises(ArgumentError, match=r"seed must lie in 0\.\.2\*\*64-1, got"):
        random.key(seed)


@pytest.mark.parametrize("seed", [1.0, True, "7", None])
def test_seeds_of_the_wrong_kind(seed):
    """A seed is an integer."""
    with pytest.raises(ArgumentTypeError, match="seed must be an integer, got"):
        random.key(seed)


@pytest.mark.parametrize(
    ("seed", "parts", "expected"),
    [
        (0, ("model",), (0x1A391DC0, 0xD2C749D4)),
        (7, (3,), (0x9638E726, 0xB6594A54)),
        (2**64 - 1, ("round", 12, "client"), (0x33ECA869, 0x80D5C348)),
    ],
)
def test_derived_keys_are_specified(seed, parts, expected):
    """Derived keys are these for ever, on the host, in JAX and compiled."""
    key = random.key(seed)
    on_host = random.derive(key, *parts)
    assert isinstance(on_host, np.ndarray)
    np.testing.assert_array_equal(on_host, words(expected))
    np.testing.assert_array_equal(random.derive(jnp.asarray(key), *parts), words(expected))
    np.testing.assert_array_equal(jax.jit(lambda key: random.derive(key, *parts))(key), words(expected))


@few_examples
@hypothesis.given(seed=seeds, part=st.integers(0, 2**63 - 1))
def test_derivation_is_the_cipher_under_the_top_bit(seed, part):
    """An integer's derived key enciphers its 63 bits with the top bit set, and parts are folded in turn."""
    key = random.key(seed)
    first, second = random.threefry(key, words([part % 2**32]), words([part >> 32 | 1 << 31]))
    derived = random.derive(key, part)
    np.testing.assert_array_equal(derived, np.concatenate([first, second]))
    np.testing.assert_array_equal(random.derive(key, part, "x"), random.derive(derived, "x"))


def test_drawing_and_deriving_share_no_block():
    """No key derived from small numbers is among the words that the same key draws."""
    key = random.key(11)
    drawn = np.asarray(jax.jit(random.bits, static_argnums=1)(key, 2000))
    derived = random.derive_each(key, 1000)
    assert not np.isin(derived, drawn).all(axis=1).any()


def test_derive_each_is_derive_of_each():
    """Deriving keys for many positions at once gives the same keys."""
    key = random.key(5)
    np.testing.assert_array_equal(random.derive_each(key, 9), np.stack([random.derive(key, i) for i in range(9)]))
    assert random.derive_each(jnp.asarray(key), 0).shape == (0, 2)


def test_parts_that_mean_the_same():
    """NumPy's integers of any width are as good as Python's; nothing derived is the key itself."""
    key = random.key(5)
    for part in (np.int32(9), np.uint8(9), np.int64(9), jnp.int32(9)):
        np.testing.assert_array_equal(random.derive(key, part), random.derive(key, 9))
    np.testing.assert_array_equal(random.derive(key), key)


def test_parts_that_cannot_be():
    """Negative, too large and other parts are errors."""
    with pytest.raises(ArgumentError, match=r"integers in 0\.\.2\*\*63-1, got -1"):
        random.derive(random.key(0), -1)
    with pytest.raises(ArgumentError, match=r"integers in 0\.\.2\*\*63-1, got"):
        random.derive(random.key(0), 2**63)
    with pytest.raises(ArgumentTypeError, match="for integers and strings, got 1.5 of type float"):
        random.derive(random.key(0), 1.5)


def test_keys_serve_jax():
    """A key is a key of jax.random's Threefry with the same words."""
    key = random.key(2**40 + 3)
    np.testing.assert_array_equal(jax.random.key_data(random.as_jax_key(key)), key)
    assert jax.random.normal(random.as_jax_key(key), (2,)).shape == (2,)


@pytest.mark.parametrize("size", [0, 1, 2, 63, 64, 65, 129, 255, 256, 257, 1000])
def test_quarters_share_words(size):
    """The first quarter is what `uniform` draws; the others, the same words rotated by one, two and three bytes."""
    key = random.key(5)
    quarters = [np.asarray(each) for each in random.uniform_quarters(key, size)]
    assert len(quarters) == 4
    assert sum(each.size for each in quarters) == size
    assert quarters[0].tobytes() == np.asarray(random.uniform(key, quarters[0].shape)).tobytes()
    words = np.asarray(random.bits(key, quarters[0].size)).astype("<u4")
    for turn, quarter in enumerate(quarters):
        # The lowest byte comes first, so a rotation to the left is one of the bytes to the right.
        rotated = np.roll(words.view(np.uint8).reshape(-1, 4), turn, axis=1).copy().view("<u4")[: quarter.size, 0]
        assert quarter.tobytes() == ((rotated >> 8) * np.float32(2.0**-24)).astype(np.float32).tobytes()


def test_quarters_are_as_good_as_independent():
    """How often both of a pair are below thresholds is the product of how often each is, or nearly.

    One's second byte is another one's first, and decides only if the first is the threshold's, once in 256 times; a
    covariance of events is a quarter at most.
    """
    quarters = [np.asarray(each)[:900_000] for each in random.uniform_quarters(random.key(6), 4_000_000)]
    for first, second in itertools.combinations(quarters, 2):
        for low in (0.02, 0.3, 0.5):
            for high in (0.02, 0.7):
                both = np.mean((first < low) & (second < high))
                assert abs(both - low * high) < 1 / 1024 + 5 * np.sqrt(low * high / first.size)
