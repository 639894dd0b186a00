"""Stages that send few entries and leave out the others."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, UInt32

from laconic.codecs import random
from laconic.codecs._arguments import check_seed, checked_fraction, checked_number, checked_positive
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Arrays, Stage, State
from laconic.codecs.random import Key
from laconic.codecs.stages._floats import check_float, compute_dtype, largest_float
from laconic.codecs.stages._gaussian import largest_entries
from laconic.codecs.stages._passing import Passing
from laconic.codecs.stages._scaling import magnitude, nonzero, normalised
from laconic.errors import ArgumentError

_MAX_SIZE = 2**31  # positions are counted in 32 bits


@dataclasses.dataclass(frozen=True)
class _Sparsifier(Stage):
    """What stages that keep a fixed share of entries have in common."""

    fraction: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "fraction", checked_fraction(self.fraction, "fraction"))

    def check(self, spec: TensorSpec) -> None:
        check_sparse(self, spec)


@register
@dataclasses.dataclass(frozen=True)
class TopK(_Sparsifier):
    """The k = max(1, round(fraction n)) entries of largest magnitude, of equal ones those that come first.

    Each position travels as the gap to the one before: how many entries lie between. The error is at most
    (1 - k / n) |x|^2 (Stich et al. 2018, "Sparsified SGD with memory", equation 7).

    Args:
      fraction: above 0, up to 1.
    """

    name: ClassVar[str] = "top_k"
    outputs: ClassVar[tuple[str, ...]] = ("gaps", "values")
    compressible: ClassVar[tuple[str, ...]] = ("gaps", "values")

    def expected_nmse(self, size: int) -> float:
        return 1 - largest_entries(kept(self.fraction, size) / size)[0] if size else 0.0

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del key, parameters
        flat, count = x.reshape(-1), kept(self.fraction, x.size)
        positions = jnp.nonzero(largest_mask(flat, count), size=count)[0].astype(jnp.uint32)
        # Unsigned, so that no coder makes room for a sign.
        gaps = positions - jnp.concatenate([jnp.zeros(1, jnp.uint32), positions + 1])[:count]
        return {"gaps": gaps, "values": flat[positions]}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        positions = jnp.cumsum(encoded["gaps"] + 1, dtype=jnp.uint32) - 1
        return scattered(encoded["values"], positions, spec)


@register
@dataclasses.dataclass(frozen=True)
class Threshold(Passing):
    """Entries of magnitude above `value`; zeros for the others.

    How many are left depends on the data, so they stay in place, for a coder such as `SparseValues` to leave zeros
    out. (Strom 2015, "Scalable distributed DNN training", section 3; Sahu et al. 2021, "Rethinking gradient
    sparsification as total error minimization".)

    Args:
      value: 0 or more.
    """

    name: ClassVar[str] = "threshold"

    value: float

    def __post_init__(self) -> None:
        is_zero = checked_number(self.value, "value") == 0
        object.__setattr__(self, "value", 0.0 if is_zero else checked_positive(self.value, "value"))

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del key, parameters
        flat = x.reshape(-1)
        is_kept = jnp.abs(flat).astype(compute_dtype(x.dtype)) > self.value
        return {"values": jnp.where(is_kept, flat, jnp.zeros((), x.dtype))}


@register
@dataclasses.dataclass(frozen=True)
class SparseTernary(_Sparsifier):
    """The k largest entries as their sign times their mean magnitude (Sattler et al. 2019, algorithm 1).

    The error is |x|^2 - k mu^2, with mu the mean magnitude of these entries, of which zeros do not count.

    Args:
      fraction: k = max(1, round(fraction n)), above 0, up to 1.
    """

    name: ClassVar[str] = "sparse_ternary"
    outputs: ClassVar[tuple[str, ...]] = ("codes", "scale")
    compressible: ClassVar[tuple[str, ...]] = ("codes",)

    def expected_nmse(self, size: int) -> float:
        if size == 0:
            return 0.0
        share = kept(self.fraction, size) / size
        return 1 - share * largest_entries(share)[1] ** 2

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del key, parameters
        flat = x.reshape(-1).astype(compute_dtype(x.dtype))
        codes = jnp.where(largest_mask(flat, kept(self.fraction, x.size)), jnp.sign(flat), 0).astype(jnp.int8)
        unit, largest = normalised(flat)
        mean = jnp.sum(jnp.abs(unit) * jnp.abs(codes)) / nonzero(jnp.sum(jnp.abs(codes), dtype=jnp.int32))
        return {"codes": codes, "scale": (mean.astype(flat.dtype) * largest).reshape(1)}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        x = encoded["codes"].astype(compute_dtype(spec.dtype)) * encoded["scale"]
        return x.reshape(spec.shape).astype(spec.dtype)


class _RandomSparsifier(_Sparsifier):
    """What random-k has in common, whoever shares the positions: entry i comes up with probability k / n."""

    is_linear = True

    def expected_nmse(self, size: int) -> float:
        """For any x of this size, not only Gaussian ones."""
        return size / kept(self.fraction, size) - 1 if size else 0.0

    def is_in_range(self, x: Array, parameters: Arrays) -> Bool[Array, ""] | bool:
        """Times n / k, entries must still fit their dtype."""
        del parameters
        limit = largest_float(x.dtype)
        return magnitude(x.astype(compute_dtype(x.dtype))) <= limit * kept(self.fraction, x.size) / max(x.size, 1)

    def _positions(self, key: Key, size: int) -> UInt32[Array, " k"]:
        return random_positions(key, size, kept(self.fraction, size))

    def _scattered(self, values: Array, positions: Array, spec: TensorSpec) -> Array:
        dtype = compute_dtype(spec.dtype)
        scale = spec.size / max(kept(self.fraction, spec.size), 1)
        return scattered(values.astype(dtype) * scale, positions, spec)


@register
@dataclasses.dataclass(frozen=True)
class RandomK(_RandomSparsifier):
    """k = max(1, round(fraction n)) random entries times n / k; both ends make the positions from the key.

    Unbiased, with |x|^2 (n / k - 1) the expected error of every x (Stich et al. 2018; Konečný et al. 2016, "Federated
    learning: strategies", section 2). See `random_positions`.

    Args:
      fraction: above 0, up to 1.
    """

    name: ClassVar[str] = "random_k"
    regenerated: ClassVar[tuple[str, ...]] = ("positions",)
    is_unbiased = True

    def regenerate(self, key: Key, spec: TensorSpec) -> dict[str, Array]:
        return {"positions": self._positions(key, spec.size)}

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del parameters
        return {"values": x.reshape(-1)[self._positions(key, x.size)]}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        return self._scattered(encoded["values"], encoded["positions"], spec)


@register
@dataclasses.dataclass(frozen=True)
class SharedRandomK(_RandomSparsifier):
    """Random-k with the same positions for all clients of a round, so that encodings commute with the sum.

    Positions are drawn from the seed and the number of the round, which the server tells (4 bytes). Over rounds each
    entry comes up with probability k / n and errors average out; over clients they do not, and in one round nothing
    is random, so the stage is not called unbiased.

    Args:
      fraction: above 0, up to 1.
      seed: 0 or more, below 2**63.
    """

    name: ClassVar[str] = "shared_random_k"
    commutes_with_sum = True

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed(self.seed)

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del key
        return {"values": x.reshape(-1)[self._positions(self._key(parameters), x.size)]}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del num_summands
        return self._scattered(encoded["values"], self._positions(self._key(parameters), spec.size), spec)

    def initial_state(self, spec: TensorSpec) -> State:
        del spec
        return {"round": jnp.uint32(0)}

    def parameters(self, state: State) -> tuple[dict[str, Array], dict[str, Array]]:
        return {"round": state["round"]}, {"round": state["round"]}

    def update_state(self, state: State, merged: Arrays) -> State:
        del merged
        return {"round": state["round"] + jnp.uint32(1)}

    def _key(self, parameters: Arrays) -> Key:
        """The first two words that the run's key enciphers the round's number to."""
        round_number = parameters["round"].reshape(1)
        base = random.derive(random.key(self.seed), self.name)
        return jnp.concatenate(random.threefry(base, round_number, jnp.zeros_like(round_number)))


def kept(fraction: float, size: int) -> int:
    """How many of `size` entries the fraction is: one at least, none of none."""
    return min(max(1, round(fraction * size)), size)


def check_sparse(stage: Stage, spec: TensorSpec) -> None:
    """Raises unless the array is of floats, and of so few that 32 bits count them."""
    check_float(stage.name, spec)
    if spec.size >= _MAX_SIZE:
        raise ArgumentError(
            f"{spec.name or 'value'} has {spec.size} entries, but {stage.name} takes fewer than {_MAX_SIZE}; split it"
        )


def largest_mask(x: Array, count: int) -> Bool[Array, " n"]:
    """Marks the `count` entries of largest magnitude, of equal ones those that come first.

    The bits of magnitudes order like unsigned integers, so the smallest that is marked is found bit by bit.
    """
    if count == x.size:
        return jnp.ones(x.shape, jnp.bool_)
    x = jnp.abs(x.astype(compute_dtype(x.dtype)))
    width = 8 * x.dtype.itemsize
    integer = jnp.dtype(f"uint{width}")
    bits = jax.lax.bitcast_convert_type(x, integer)

    def with_bit(i: Array, bound: Array) -> Array:
        candidate = bound | (jnp.ones((), integer) << (width - 2 - i).astype(integer))
        return jnp.where(jnp.sum(bits >= candidate, dtype=jnp.int32) >= count, candidate, bound)

    # The loop starts below the sign.
    bound = jax.lax.fori_loop(0, width - 1, with_bit, jnp.zeros((), integer))
    above, equal = bits > bound, bits == bound
    missing = count - jnp.sum(above, dtype=jnp.int32)
    return jax.lax.cond(
        jnp.sum(equal, dtype=jnp.int32) == missing,
        lambda: above | equal,
        lambda: above | (equal & (jnp.cumsum(equal, dtype=jnp.int32) <= missing)),
    )


def random_positions(key: Key, size: int, count: int) -> UInt32[Array, " count"]:
    """`count` different positions below `size`; each of all positions comes up with probability count / size.

    The circle of positions is cut into `count` arcs whose lengths differ by one at most, turned by a random angle, and
    from each arc one position is drawn. With q, r = divmod(size, count), arc i starts at i q + min(i, r) and has
    q + [i < r] positions. A word w gives floor(w m / 2**32) of m; words 0 to count - 1 are for the arcs, the last one
    for the angle.
    """
    if size == 0:
        return jnp.zeros(0, jnp.uint32)
    quotient, remainder = divmod(size, count)
    words = random.bits(key, count + 1)
    i = jnp.arange(count, dtype=jnp.uint32)
    lengths = quotient + (i < remainder).astype(jnp.uint32)
    positions = i * jnp.uint32(quotient) + jnp.minimum(i, remainder) + below(words[:count], lengths)
    turned = positions + below(words[count:], jnp.uint32(size))
    return jnp.where(turned >= size, turned - jnp.uint32(size), turned)


def below(words: UInt32[Array, " n"], bounds: UInt32[Array, "..."]) -> UInt32[Array, " n"]:
    """floor(word bound / 2**32), a number below the bound for each uniform word; in 32-bit arithmetic."""
    half, low = jnp.uint32(16), jnp.uint32(0xFFFF)
    bound_high, bound_low = bounds >> half, bounds & low
    high, rest = words >> half, words & low
    middle = high * bound_low + ((rest * bound_low) >> half)
    carry = rest * bound_high + (middle & low)
    return high * bound_high + (middle >> half) + (carry >> half)


def scattered(values: Array, positions: Array, spec: TensorSpec) -> Array:
    """An array of zeros but for these values; positions beyond its end, which no encoder sends, are left out."""
    zeros = jnp.zeros(spec.size, values.dtype)
    return zeros.at[positions].set(values, mode="drop").reshape(spec.shape).astype(spec.dtype)
