"""Rounding with a step that is given, or that follows from the values."""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from laconic.codecs._arguments import checked_positive, only_one_given
from laconic.codecs._registry import register
from laconic.codecs._stage import Arrays
from laconic.codecs.stages._floats import compute_dtype
from laconic.codecs.stages._rounding import (
    FINEST,
    LARGEST_CODE,
    DitheredRounding,
    RandomRounding,
    Rounding,
    guessed_step,
    no_finer_than_floats,
)
from laconic.codecs.stages._scaling import magnitude, root_mean_square, sum_of_magnitudes

_CHOICES = ("step", "step_in_rms", "nmse", "bits_per_parameter")


@dataclasses.dataclass(frozen=True)
class OwnStep(Rounding):
    """A step for each encoding, which travels, or one for all."""

    step: float | None = None
    step_in_rms: float | None = None
    nmse: float | None = None
    bits_per_parameter: float | None = None

    def __post_init__(self) -> None:
        given = only_one_given(self.name, {name: getattr(self, name) for name in _CHOICES})
        object.__setattr__(self, given, checked_positive(getattr(self, given), given))

    @property
    def commutes_with_sum(self) -> bool:
        """Only codes of a common step may be added."""
        return self.step is not None

    @property
    def target_bits_per_parameter(self) -> float | None:
        return self.bits_per_parameter

    def largest_code(self, size: int) -> int:
        if self.step_in_rms is None:
            return super().largest_code(size)
        # No entry is over sqrt(d) root mean squares. Rounding adds one at most, and another is for floats' last bits.
        return min(int(math.sqrt(size) / self.step_in_rms) + 2, super().largest_code(size))

    def is_in_range(self, x: Array, parameters: Arrays) -> Bool[Array, ""] | bool:
        del parameters
        return self.step is None or magnitude(x.astype(compute_dtype(x.dtype))) < self.step * LARGEST_CODE

    def chosen_step(self, x: Array, parameters: Arrays) -> Float[Array, ""]:
        if self.step is not None:
            return jnp.asarray(self.step, x.dtype)
        if self.step_in_rms is not None:
            step = self.step_in_rms * root_mean_square(x)
            if x.size <= (self.step_in_rms / FINEST) ** 2:  # as good as always: no entry is over the root of the sum
                return step.astype(x.dtype)
        elif self.nmse is not None:
            step = self.step_of_nmse(x, self.nmse)
        else:
            assert self.bits_per_parameter is not None
            guess = guessed_step(x, self.bits_per_parameter)
            # Beyond the sum of magnitudes not one code is likely to differ from zero.
            step = jnp.minimum(guess * parameters["coarseness"], sum_of_magnitudes(x))
        return no_finer_than_floats(step, x)

    def sent_step(self, step: Array) -> Array:
        return step.reshape(1) if self.step is None else jnp.zeros(0, step.dtype)

    def received_step(self, encoded: Arrays, parameters: Arrays, dtype: jnp.dtype) -> Array:
        del parameters
        return jnp.asarray(self.step, dtype) if self.step is not None else encoded["step"][0].astype(dtype)

    def expected_nmse(self, size: int) -> float | None:
        del size
        return self.nmse


@register
@dataclasses.dataclass(frozen=True)
class Dithered(OwnStep, DitheredRounding):
    """Subtractive dithered uniform quantization: q = round(x / step - u), x^ = (q + u) step, u uniform in [-1/2, 1/2).

    Both ends make u from the key. The error is uniform with variance step**2 / 12 and independent of x, for every x
    (Schuchman 1964; Zamir and Feder 1992, "On universal quantization by randomized uniform/lattice quantizers"). Given
    u the codes are less random; eight contexts tell the coder which eighth of [-1/2, 1/2) u lies in.

    Args: one of
      step: the step itself, the same for all: nothing travels, and encodings commute with the sum.
      step_in_rms: the step over the tensor's root mean square.
      nmse: expected |x^ - x|^2 / |x|^2, exact for any x: step = sqrt(12 nmse |x|^2 / d).
      bits_per_parameter: the rate, all of the tensor's bytes counted; found by encoding a few times.
    """

    name: ClassVar[str] = "dithered"

    def expected_nmse(self, size: int) -> float | None:
        del size
        return self.nmse if self.step_in_rms is None else self.step_in_rms**2 / 12


@register
@dataclasses.dataclass(frozen=True)
class StochasticGrid(OwnStep, RandomRounding):
    """Stochastic rounding to an unbounded grid: q = floor(x / step + v), x^ = q step, v uniform in [0, 1).

    Unbiased for every x, with variance step**2 f (1 - f), f being the fractional part of x / step. With a step far
    above the root mean square it is a random sparsifier: an entry becomes +-step with probability |x| / step.

    Args: one of
      step: the step itself, the same for all: nothing travels, and encodings commute with the sum.
      step_in_rms: the step over the tensor's root mean square.
      nmse: expected |x^ - x|^2 / |x|^2; the step is found in closed form or by iteration.
      bits_per_parameter: the rate, all of the tensor's bytes counted; found by encoding a few times.
    """

    name: ClassVar[str] = "stochastic_grid"

    @property
    def may_search_own_draw(self) -> bool:
        """A coarser step that leaves out just enough entries is priority sampling, which is unbiased.

        For each entry, whether it is left out and how large the step then is depend on the others' draws alone
        (Duffield, Lund and Thorup 2007, "Priority sampling for estimation of arbitrary subset sums", section 2).
        """
        return True
