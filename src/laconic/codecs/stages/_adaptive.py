"""Steps and ranges that the server sets for the next round, from what clients reported of the last."""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from laconic.codecs._arguments import checked_fraction, checked_positive, only_one_given
from laconic.codecs._merging import Merge
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Arrays, State
from laconic.codecs.stages._floats import compute_dtype
from laconic.codecs.stages._passing import Passing
from laconic.codecs.stages._rounding import (
    LARGEST_CODE,
    DitheredRounding,
    RandomRounding,
    Rounding,
    guessed_step,
    no_finer_than_floats,
)
from laconic.codecs.stages._scaling import magnitude, nonzero, normalised, root_mean_square
from laconic.errors import ArgumentError

_AIMS = ("nmse", "bits_per_parameter", "rate_penalty", "decay")

_LARGEST_CHANGE = 16.0  # of the step in one round, either way
_VOTE = 2**0.5
_SAMPLE = 2**14
_EXPONENTS = 30


@dataclasses.dataclass(frozen=True)
class _ServerStep(Rounding):
    """A step that the server holds, and moves after every round towards its aim.

    State is the step, a float32; zero before it is known. Each client reports four numbers: the expected error of its
    rounding, |x|^2, its step, and its vote.
    """

    merges: ClassVar[dict[str, Merge]] = {"statistics": Merge.STACK}

    initial_step: float | None = None
    nmse: float | None = None
    bits_per_parameter: float | None = None
    rate_penalty: float | None = None
    decay: float | None = None

    def __post_init__(self) -> None:
        aim = only_one_given(self.name, {name: getattr(self, name) for name in _AIMS})
        for name in (aim,) if self.initial_step is None else (aim, "initial_step"):
            object.__setattr__(self, name, checked_positive(getattr(self, name), name))
        if self.decay is not None and self.initial_step is None:
            raise ArgumentError("a step that decays needs an initial_step to decay from, got initial_step=None")

    @property
    def commutes_with_sum(self) -> bool:
        """From the first round on only if the first round's step is given: else each client takes its own."""
        return self.initial_step is not None

    def initial_state(self, spec: TensorSpec) -> State:
        del spec
        return jnp.float32(self.initial_step or 0)

    def parameters(self, state: State) -> tuple[dict[str, Array], dict[str, Array]]:
        told = {"step": jnp.asarray(state, jnp.float32)}
        return told, told if self.commutes_with_sum else {}

    def is_in_range(self, x: Array, parameters: Arrays) -> Bool[Array, ""] | bool:
        if not self.commutes_with_sum:
            return True
        return magnitude(x.astype(compute_dtype(x.dtype))) < parameters["step"] * LARGEST_CODE

    def chosen_step(self, x: Array, parameters: Arrays) -> Float[Array, ""]:
        told = parameters["step"].astype(x.dtype)
        if self.commutes_with_sum:
            return told
        return no_finer_than_floats(jnp.where(told > 0, told, self._own_step(x)), x)

    def sent_step(self, step: Array) -> Array:
        return jnp.zeros(0, step.dtype) if self.commutes_with_sum else step.reshape(1)

    def received_step(self, encoded: Arrays, parameters: Arrays, dtype: jnp.dtype) -> Array:
        return (parameters["step"] if self.commutes_with_sum else encoded["step"][0]).astype(dtype)

    def report(self, x: Array, encoded: Arrays, parameters: Arrays) -> dict[str, Array]:
        del encoded
        x = x.reshape(-1).astype(compute_dtype(x.dtype))
        step = self.chosen_step(x, parameters)
        # Of x over its largest entry, since squares of tiny and huge numbers would leave float32.
        unit, largest = normalised(x)
        unit_step = nonzero(step / nonzero(largest))
        error, energy = self.expected_error(unit, unit_step), jnp.sum(unit * unit)
        vote = self._vote(unit, unit_step) if self.rate_penalty is not None else jnp.zeros(())
        return {"statistics": jnp.stack([error, energy, step, vote]).astype(jnp.float32)}

    def update_state(self, state: State, merged: Arrays) -> State:
        error, energy, step, vote = jnp.asarray(merged["statistics"]).T
        used = jnp.sum(jnp.where(energy > 0, step, 0)) / jnp.maximum(jnp.sum(energy > 0), 1)
        base = jnp.where(used > 0, used, state)
        if self.nmse is not None:
            share = jnp.mean(jnp.where(energy > 0, error / nonzero(energy), self.nmse))
            base = base * _limited((self.nmse / nonzero(share)) ** self.step_exponent)
        elif self.rate_penalty is not None:
            base = base * _VOTE ** jnp.sign(jnp.round(jnp.mean(vote), 3))
        elif self.decay is not None:
            base = base * self.decay
        return base.astype(jnp.float32)

    def observe_traffic(self, state: State, bits_per_parameter: float) -> State:
        if self.bits_per_parameter is None:
            return state
        # The rate falls as the step grows: one to one where most codes are zero, a bit for each doubling where few are.
        ratio = bits_per_parameter / self.bits_per_parameter
        excess = bits_per_parameter - self.bits_per_parameter
        change = ratio if self.bits_per_parameter < 1 else 2.0**excess
        return (state * _limited(jnp.float32(change))).astype(jnp.float32)

    def expected_nmse(self, size: int) -> float | None:
        del size
        return self.nmse

    def _own_step(self, x: Array) -> Array:
        """In the first round."""
        if self.nmse is not None:
            return self.step_of_nmse(x, self.nmse)
        if self.bits_per_parameter is not None:
            return guessed_step(x, self.bits_per_parameter)
        return root_mean_square(x)

    def _vote(self, x: Array, step: Array) -> Array:
        """Which of a finer, the same or a coarser step costs least: -1, 0 or 1."""
        assert self.rate_penalty is not None
        stride = max(1, x.size // _SAMPLE)
        sample = x[::stride]
        energy = nonzero(jnp.sum(sample * sample))
        costs = [
            self.expected_error(sample, step * factor) / energy + self.rate_penalty * _rate(sample / (step * factor))
            for factor in (1 / _VOTE, 1.0, _VOTE)
        ]
        return (jnp.argmin(jnp.stack(costs)) - 1).astype(x.dtype)

    step_exponent: ClassVar[float]
    """Steps go with errors to this power."""


@register
@dataclasses.dataclass(frozen=True)
class AdaptiveDithered(_ServerStep, DitheredRounding):
    """`Dithered` with a step that the server sets for each round; arguments as for `codecs.adaptive`."""

    name: ClassVar[str] = "adaptive_dithered"
    step_exponent: ClassVar[float] = 1 / 2


@register
@dataclasses.dataclass(frozen=True)
class AdaptiveStochasticGrid(_ServerStep, RandomRounding):
    """`StochasticGrid` with a step that the server sets for each round; arguments as for `codecs.adaptive`."""

    name: ClassVar[str] = "adaptive_stochastic_grid"
    step_exponent: ClassVar[float] = 2 / 3


@register
@dataclasses.dataclass(frozen=True)
class AdaptiveClip(Passing):
    """Scales a tensor down to a norm that follows a quantile of the clients' norms.

    The bound C moves to C exp(-rate (b - quantile)), b being the share of clients whose norm was at most C (Andrew et
    al. 2021, "Differentially Private Learning with Adaptive Clipping", section 2.1; without noise on b). Biased where
    it clips. Commutes with the sum. A client reports one byte.

    Args:
      quantile: of the clients' norms, above 0 and up to 1.
      initial_bound: of the first round.
      rate: how fast the bound moves.
    """

    name: ClassVar[str] = "adaptive_clip"
    merges: ClassVar[dict[str, Merge]] = {"is_below": Merge.STACK}

    quantile: float = 0.8
    initial_bound: float = 1.0
    rate: float = 0.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantile", checked_fraction(self.quantile, "quantile"))
        for name in ("initial_bound", "rate"):
            object.__setattr__(self, name, checked_positive(getattr(self, name), name))

    def initial_state(self, spec: TensorSpec) -> State:
        del spec
        return jnp.float32(self.initial_bound)

    def parameters(self, state: State) -> tuple[dict[str, Array], dict[str, Array]]:
        return {"bound": jnp.asarray(state, jnp.float32)}, {}

    def encode(self, key: Any, x: Array, parameters: Arrays) -> dict[str, Array]:
        del key
        flat = x.astype(compute_dtype(x.dtype))
        norm = _norm(flat)
        factor = jnp.minimum(1, parameters["bound"].astype(flat.dtype) / nonzero(norm))
        return {"values": (flat * factor).astype(x.dtype)}

    def report(self, x: Array, encoded: Arrays, parameters: Arrays) -> dict[str, Array]:
        del encoded
        return {"is_below": (_norm(x.astype(compute_dtype(x.dtype))) <= parameters["bound"]).astype(jnp.uint8)}

    def update_state(self, state: State, merged: Arrays) -> State:
        share = jnp.mean(jnp.asarray(merged["is_below"]).astype(jnp.float32))
        return (state * jnp.exp(-self.rate * (share - self.quantile))).astype(jnp.float32)


def _norm(x: Array) -> Array:
    return root_mean_square(x.reshape(-1)) * x.size**0.5


def _limited(change: Array) -> Array:
    return jnp.clip(change, 1 / _LARGEST_CHANGE, _LARGEST_CHANGE)


def _rate(y: Array) -> Array:
    """About the bits per entry of y rounded: the entropy of signs and binary exponents, and the bits below these."""
    codes = jnp.round(y)
    exponents = jnp.floor(jnp.log2(jnp.maximum(jnp.abs(codes), 1)))
    classes = (jnp.sign(codes) * (1 + exponents))[:, None]
    counts = jnp.sum(classes == jnp.arange(-_EXPONENTS, _EXPONENTS + 1), axis=0)
    share = counts / max(y.size, 1)
    entropy = -jnp.sum(jnp.where(share > 0, share * jnp.log2(nonzero(share)), 0))
    return entropy + jnp.sum(exponents) / max(y.size, 1)
