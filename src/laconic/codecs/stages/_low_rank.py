"""Matrices as products of two thin ones."""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from laconic.codecs import random
from laconic.codecs._arguments import check_flag, check_whole
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Arrays, State
from laconic.codecs.random import Key
from laconic.codecs.stages._floats import FloatStage, compute_dtype, largest_float
from laconic.codecs.stages._scaling import magnitude, normalised


@register
@dataclasses.dataclass(frozen=True)
class LowRank(FloatStage):
    """PowerSGD: M as P Q^T, by subspace iteration (Vogels et al. 2019, algorithm 1).

    M [m, n] is the array with all dimensions but the last joined to one. From a random or remembered Q [n, r]:
    P = orthonormal basis of the columns of M Q, Q = M^T P; repeated `iterations` times. P and Q travel. With more
    iterations P Q^T tends to the best approximation of that rank. An array of fewer than two dimensions, or of no
    more entries than P and Q together, travels as it is.

    Args:
      rank: columns of P and Q, 1 or more.
      iterations: 1 or more.
      warm_start: whether the encoding side begins with the Q of its last encoding; it then keeps a memory.
    """

    name: ClassVar[str] = "low_rank"
    outputs: ClassVar[tuple[str, ...]] = ("left", "right", "values")
    compressible: ClassVar[tuple[str, ...]] = ("left", "right", "values")

    rank: int = 2
    iterations: int = 1
    warm_start: bool = False

    def __post_init__(self) -> None:
        check_whole(self.rank, "rank", 1, 2**31 - 1)
        check_whole(self.iterations, "iterations", 1, 1000)
        check_flag(self.warm_start, "warm_start")

    @property
    def is_stochastic(self) -> bool:
        return not self.warm_start

    @property
    def needs_client_state(self) -> bool:
        return self.warm_start

    def is_in_range(self, x: Array, parameters: Arrays) -> Bool[Array, ""] | bool:
        """A column's norm must fit the dtype of Q."""
        del parameters
        if not self.factorises(x.shape):
            return True
        dtype = compute_dtype(x.dtype)
        return magnitude(x.astype(dtype)) <= largest_float(dtype) / 2 / math.sqrt(x.size / x.shape[-1])

    def factorises(self, shape: tuple[int, ...]) -> bool:
        """Whether two factors are smaller than an array of this shape."""
        if len(shape) < 2:
            return False
        rows, columns = math.prod(shape[:-1]), shape[-1]
        return self.rank * (rows + columns) < rows * columns

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del parameters
        return self._encoded(x, self._first_right(random.key(0) if self.warm_start else key, x.shape))

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        if not self.factorises(spec.shape):
            return encoded["values"].reshape(spec.shape).astype(spec.dtype)
        dtype = compute_dtype(spec.dtype)
        right, largest = normalised(encoded["right"].astype(dtype))
        x = jnp.matmul(encoded["left"].astype(dtype), right.T, precision="highest") * largest
        # An entry may come out larger than any of M was, so the dtype's largest may be exceeded.
        limit = largest_float(spec.dtype)
        x = jnp.clip(x, -limit, limit)
        return x.reshape(spec.shape).astype(spec.dtype)

    def initial_memory(self, spec: TensorSpec) -> State:
        if not (self.warm_start and self.factorises(spec.shape)):
            return ()
        return {"right": self._first_right(random.key(0), spec.shape).astype(compute_dtype(spec.dtype))}

    def encode_remembering(self, key: Key, x: Array, parameters: Arrays, memory: State) -> dict[str, Array]:
        if not memory:
            return self.encode(key, x, parameters)
        return self._encoded(x, memory["right"])

    def update_memory(self, memory: State, x: Array, received: Arrays) -> State:
        del x
        if not memory:
            return memory
        right, largest = normalised(received["right"].astype(memory["right"].dtype))
        return {"right": jnp.where(largest > 0, right, memory["right"])}

    def _first_right(self, key: Key, shape: tuple[int, ...]) -> Float[Array, "n r"]:
        """Any distribution without a preferred direction will do."""
        columns = shape[-1] if self.factorises(shape) else 0
        return random.uniform(key, (columns * self.rank,)).reshape(columns, self.rank) - 0.5

    def _encoded(self, x: Array, right: Float[Array, "n r"]) -> dict[str, Array]:
        dtype = compute_dtype(x.dtype)
        if not self.factorises(x.shape):
            nothing = jnp.zeros((0, self.rank), dtype)
            return {"left": nothing, "right": nothing, "values": x}
        matrix, largest = normalised(x.astype(dtype).reshape(-1, x.shape[-1]))
        right = right.astype(dtype)
        for _ in range(self.iterations):
            # Householder's method: columns are orthonormal where M Q has zero or equal ones, too.
            left = jnp.linalg.qr(jnp.matmul(matrix, right, precision="highest"))[0]
            right = jnp.matmul(matrix.T, left, precision="highest")
        return {"left": left, "right": right * largest, "values": jnp.zeros((0,), x.dtype)}
