"""The stage interface: one elementary, reversible transformation of an array."""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from laconic.codecs._merging import Merge
from laconic.codecs._specs import TensorSpec
from laconic.codecs.random import Key
from laconic.errors import ArgumentTypeError

Arrays = Mapping[str, Array]
State = Any


class Stage(abc.ABC):
    """One array to named arrays, and back (tensor_encoding's `EncodingStageInterface` and its adaptive sibling in one).

    Subclass it as a frozen dataclass whose fields are Python constants (`bool`, `int`, `float`, `str`, `None`, or
    tuples of these). The fields describe the stage on the wire; arrays that decoding needs are *parameters* and travel
    beside the payload. `encode` and `decode` are pure and `jax.jit`-able, and may run in different processes.

    A stateless stage implements `encode` and `decode`. An adaptive one also says how its server-held state starts
    (`initial_state`), what the clients are told of it (`parameters`), what they report (`report`), how reports merge
    (`merges`), and how the state moves on (`update_state`). These run on the host, once a round. Parameters and reports
    keep their shapes and dtypes from round to round.

    Attributes:
      name: the stage's name on the wire; outside the package, prefix it (`"mylab.topk"`).
      outputs: the names that `encode` returns, in the order in which they travel.
      compressible: those that may be encoded further.
      merges: for each report, how the reports of several clients become one.
    """

    name: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]] = ("values",)
    compressible: ClassVar[tuple[str, ...]] = ("values",)
    merges: ClassVar[Mapping[str, Merge]] = {}

    @property
    def commutes_with_sum(self) -> bool:
        """Whether decoding a sum of encodings, told how many, equals the sum of the decodings."""
        return False

    @property
    def is_lossless(self) -> bool:
        """Whether decoding gives back the input, bit for bit."""
        return False

    @property
    def is_unbiased(self) -> bool:
        """Whether the expectation over keys of the decoded array is the input, for every finite input."""
        return self.is_lossless

    @property
    def is_stochastic(self) -> bool:
        """Whether `encode` draws from its key."""
        return False

    @property
    def is_adaptive(self) -> bool:
        """Whether there is anything to tell, to report or to keep: any method for that is the stage's own."""
        methods = ("initial_state", "parameters", "report", "update_state")
        return bool(self.merges) or any(getattr(type(self), method) is not getattr(Stage, method) for method in methods)

    def check(self, spec: TensorSpec) -> None:  # noqa: B027 - most stages take everything
        """Raises ArgumentTypeError or ArgumentError, naming `spec.name`, if the stage cannot take such an array."""

    @abc.abstractmethod
    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        """Encodes `x` into one array for each of `outputs`.

        The key is the stage's own: no other stage draws from it. Shapes and dtypes of the outputs depend on those of
        `x` alone.
        """

    @abc.abstractmethod
    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        """Decodes an encoding, or the element-wise sum of several, to an array of the spec's shape and dtype.

        Args:
          encoded: the outputs. A sum comes in a wider dtype than its summands: int32 or int64, float32 or float64.
          parameters: what the decoding side is told.
          num_summands: how many encodings were added up; under `jax.jit`, a traced number.
          spec: what to decode to; for a sum, of the wider dtype.
        """

    def initial_state(self, spec: TensorSpec) -> State:
        """The state, a tree of arrays, that the server holds for a tensor before the first round."""
        del spec
        return ()

    def parameters(self, state: State) -> tuple[dict[str, Array], dict[str, Array]]:
        """What `encode` and what `decode` are told this round: arrays by name. They travel, so keep them small."""
        del state
        return {}, {}

    def report(self, x: Array, encoded: Arrays, parameters: Arrays) -> dict[str, Array]:
        """What the encoding side tells the server besides the encoding, one array for each name of `merges`. Pure."""
        del x, encoded, parameters
        return {}

    def update_state(self, state: State, merged: Arrays) -> State:
        """The state of the next round, from merged reports; a tree like `initial_state`'s."""
        del merged
        return state


def checked_arrays(stage: Stage, what: str, arrays: Mapping[str, Any]) -> dict[str, Array]:
    """`arrays` if each is one; Python numbers would travel at a size and precision that nobody chose.

    Raises:
      ArgumentTypeError: if one is not.
    """
    if not isinstance(arrays, Mapping):
        raise ArgumentTypeError(
            f"stage {stage.name!r} must give its {what}s as a dict of arrays, got {arrays!r:.60} of type "
            f"{type(arrays).__name__}"
        )
    for name, value in arrays.items():
        if not isinstance(value, (jax.Array, np.ndarray, np.generic)):
            raise ArgumentTypeError(
                f"{what} {name!r} of stage {stage.name!r} must be an array, since it travels, got {value!r:.60} of "
                f"type {type(value).__name__}; make it an array, or a field of the stage if it is a constant"
            )
    return {name: jnp.asarray(value) for name, value in arrays.items()}
