"""Count sketches: a linear summary of a vector in which its large entries can be found again."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, UInt32

from laconic.codecs import random
from laconic.codecs._arguments import check_seed, check_whole, checked_fraction, checked_number
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Arrays, Stage, State
from laconic.codecs.random import Key
from laconic.codecs.stages._floats import compute_dtype, largest_float
from laconic.codecs.stages._scaling import normalised
from laconic.codecs.stages._sparsifiers import below, check_sparse, kept, largest_mask
from laconic.errors import ArgumentError


@register
@dataclasses.dataclass(frozen=True)
class CountSketch(Stage):
    """FetchSGD: clients send count sketches, the receiver of their sum takes out its largest entries.

    Row j of the sketch adds each entry i, times a random sign s_j(i), to column h_j(i) (Charikar et al. 2002); signs
    and columns come from the seed. An entry's estimate is the median over rows of s_j(i) S[j, h_j(i)]. The receiver
    (Rothchild et al. 2020, algorithm 1) keeps, per summand, momentum u and error e, both sketches:

        u <- momentum u + S / m,  e <- e + u,  delta = largest entries of e's estimates,  e <- e - sketch(delta)

    and the decoded sum is m delta. Sketches of one seed add up to the sketch of the sum, so encodings are added
    without decoding, and what is left out comes later. But delta depends on the sum and on earlier ones: it is not a
    sum of decodings.

    Args:
      rows: estimates to take the median of, 1 to 63.
      columns: of each row, but no more than entries; None for `fraction`.
      fraction: the sketch's size over the tensor's.
      keep: share of the entries that are taken out of a sum.
      momentum: 0 to below 1.
      seed: 0 or more, below 2**63.
    """

    name: ClassVar[str] = "count_sketch"
    outputs: ClassVar[tuple[str, ...]] = ("sketch",)
    compressible: ClassVar[tuple[str, ...]] = ("sketch",)
    commutes_with_sum = True  # encodings do, which is what lets their sum stay encoded; see above

    rows: int = 5
    columns: int | None = None
    fraction: float = 0.1
    keep: float = 0.01
    momentum: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(self.rows, "rows", 1, 63)
        if self.columns is not None:
            check_whole(self.columns, "columns", 1, 2**31 - 1)
        check_seed(self.seed)
        object.__setattr__(self, "fraction", checked_fraction(self.fraction, "fraction"))
        object.__setattr__(self, "keep", checked_fraction(self.keep, "keep"))
        object.__setattr__(self, "momentum", checked_number(self.momentum, "momentum"))
        if not 0 <= self.momentum < 1:
            raise ArgumentError(f"momentum must lie in 0 to below 1, got {self.momentum}")

    def check(self, spec: TensorSpec) -> None:
        check_sparse(self, spec)

    def is_in_range(self, x: Array, parameters: Arrays) -> Bool[Array, ""] | bool:
        """The sum of magnitudes, which no sketched number exceeds, must be far from the dtype's end."""
        del parameters
        unit, largest = normalised(x.reshape(-1).astype(compute_dtype(x.dtype)))
        limit = largest_float(largest.dtype) / 2**10
        return largest <= limit / jnp.maximum(jnp.sum(jnp.abs(unit)), 1)

    def num_columns(self, size: int) -> int:
        """Columns of each row of the sketch of a tensor of `size` entries."""
        if size == 0:
            return 0
        return min(size, self.columns or max(1, round(self.fraction * size / self.rows)))

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del key, parameters
        return {"sketch": self.sketch(x.reshape(-1).astype(compute_dtype(x.dtype)))}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        """The largest entries of the estimates, by a receiver without memory."""
        del parameters, num_summands
        return self._as(self._largest(encoded["sketch"], spec.size), spec)

    def initial_state(self, spec: TensorSpec) -> State:
        # NumPy's zeros take no memory until they are written to, if bytes should say that there are very many.
        nothing = np.zeros(self.rows * self.num_columns(spec.size), compute_dtype(spec.dtype))
        return {"error": nothing, "momentum": nothing if self.momentum else nothing[:0]}

    def decode_sum(
        self, state: State, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec
    ) -> tuple[Array, State]:
        del parameters
        error, momentum = state["error"], state["momentum"]
        update = encoded["sketch"].astype(error.dtype) / num_summands
        if self.momentum:
            momentum = update = self.momentum * momentum + update
        error = error + update
        largest = self._largest(error, spec.size)
        error = error - self.sketch(largest)
        return self._as(largest * num_summands, spec), {"error": error, "momentum": momentum}

    def sketch(self, x: Array) -> Array:
        """All rows of the sketch of a vector, one after another."""
        columns = self.num_columns(x.size)

        def row(key: Key) -> Array:
            signs, places = self._hashes(key, x.size)
            return jnp.zeros(columns, x.dtype).at[places].add(signs.astype(x.dtype) * x)

        return jax.lax.map(row, self._keys()).reshape(-1)

    def estimates(self, sketch: Array, size: int) -> Array:
        """Estimates of all entries of what was sketched."""

        def of_row(given: tuple[Key, Array]) -> Array:
            key, row = given
            signs, places = self._hashes(key, size)
            return signs.astype(sketch.dtype) * row[places]

        table = sketch.reshape(self.rows, self.num_columns(size))
        return _median(list(jax.lax.map(of_row, (self._keys(), table))))

    def _largest(self, sketch: Array, size: int) -> Array:
        estimates = self.estimates(sketch, size)
        return jnp.where(largest_mask(estimates, kept(self.keep, size)), estimates, 0)

    def _keys(self) -> UInt32[Array, "rows 2"]:
        """Each row's."""
        base = random.key(self.seed)
        return jnp.asarray(np.stack([random.derive(base, self.name, row) for row in range(self.rows)]))

    def _hashes(self, key: Key, size: int) -> tuple[Array, Array]:
        """Signs and columns of all entries in a row: of a word w, 1 - 2 (w mod 2) and floor(w columns / 2**32)."""
        words = random.bits(key, size)
        signs = 1 - 2 * (words & jnp.uint32(1)).astype(jnp.int32)
        return signs, below(words, jnp.uint32(self.num_columns(size)))

    def _as(self, x: Array, spec: TensorSpec) -> Array:
        limit = largest_float(spec.dtype)
        return jnp.clip(x, -limit, limit).reshape(spec.shape).astype(spec.dtype)


def _median(rows: Sequence[Array]) -> Array:
    """Entry by entry, by an odd-even transposition network: elementwise, so that it is vectorised over entries."""
    ordered = list(rows)
    for phase in range(len(ordered)):
        for i in range(phase % 2, len(ordered) - 1, 2):
            low, high = ordered[i], ordered[i + 1]
            ordered[i], ordered[i + 1] = jnp.minimum(low, high), jnp.maximum(low, high)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else ordered[middle - 1] / 2 + ordered[middle] / 2
