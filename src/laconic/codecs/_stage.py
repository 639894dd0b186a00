"""The stage interface: one elementary, reversible transformation of an array."""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from laconic.codecs._merging import Merge
from laconic.codecs._specs import TensorSpec
from laconic.codecs.random import Key
from laconic.errors import ArgumentTypeError

_ADAPTIVE = ("initial_state", "parameters", "report", "update_state", "observe_traffic")

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
      regenerated: names of the arrays that both ends make from the stage's key, such as a dither or random signs.
        A codec with such a stage sends its key along (8 bytes for all tensors together).
      num_contexts: how many contexts `contexts` tells apart.
    """

    name: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]] = ("values",)
    compressible: ClassVar[tuple[str, ...]] = ("values",)
    merges: ClassVar[Mapping[str, Merge]] = {}
    regenerated: ClassVar[tuple[str, ...]] = ()
    num_contexts: ClassVar[int] = 1

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
    def is_linear(self) -> bool:
        """Whether `decode` is affine in its compressible outputs, so that their unbiased errors stay unbiased."""
        return False

    @property
    def is_stochastic(self) -> bool:
        """Whether `encode` draws from its key, or something is regenerated from it."""
        return bool(self.regenerated)

    @property
    def is_adaptive(self) -> bool:
        """Whether the server holds state for the stage, or tells or is told anything: any method for that counts."""
        return bool(self.merges) or self._overrides(*_ADAPTIVE)

    @property
    def needs_client_state(self) -> bool:
        """Whether the encoding side keeps a memory from one encoding to the next, such as an error's feedback."""
        return self._overrides("initial_memory")

    @property
    def has_receiver_memory(self) -> bool:
        """Whether decoding a sum depends on earlier sums, so that there must be one receiver."""
        return self._overrides("decode_sum")

    @property
    def is_searched(self) -> bool:
        """Whether the stage promises a rate, which the coded bytes alone can tell: see `coarseness`."""
        return self.target_bits_per_parameter is not None

    @property
    def target_bits_per_parameter(self) -> float | None:
        """The rate that the stage promises for its tensor, all bytes counted, or None.

        Encoding then looks for the `coarseness`, a positive number given to `encode` among the parameters (by that
        name, float32), at which the coded bytes keep the promise. More of it must give fewer bytes. The stage sends
        on what decoding needs of it.
        """
        return None

    @property
    def may_search_own_draw(self) -> bool:
        """Whether the search may look at the very draw that is sent, and so keep the promise for it and not on average.

        If not, the search draws under another key, so that no draw decides on the step that it is used with.
        """
        return False

    def expected_nmse(self, size: int) -> float | None:
        """E|decoded - x|^2 / |x|^2 for a Gaussian vector of `size` independent entries, or None if theory has none."""
        del size
        return 0.0 if self.is_lossless else None

    def check(self, spec: TensorSpec) -> None:  # noqa: B027 - most stages take everything
        """Raises ArgumentTypeError or ArgumentError, naming `spec.name`, if the stage cannot take such an array."""

    @abc.abstractmethod
    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        """Encodes `x` into one array for each of `outputs`.

        The key is the stage's own: no other stage draws from it. Shapes and dtypes of the outputs depend on those of
        `x` alone.
        """

    def regenerate(self, key: Key, spec: TensorSpec) -> dict[str, Array]:
        """The arrays that both ends make from the key, one for each of `regenerated`. Pure.

        `decode` finds them among the encoded arrays, and for a sum of encodings finds their sum.
        """
        del key, spec
        return {}

    def contexts(self, regenerated: Arrays) -> dict[str, Array]:
        """For outputs whose statistics depend on what is regenerated: a uint8 array of the output's shape. Pure.

        Values are below `num_contexts`. A coder right below the output may code each context's entries by themselves.
        """
        del regenerated
        return {}

    def is_in_range(self, x: Array, parameters: Arrays) -> Bool[Array, ""] | bool:
        """Whether `encode` can keep its promises for these values; if not, encoding fails with an error. Pure."""
        del x, parameters
        return True

    @abc.abstractmethod
    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        """Decodes an encoding, or the element-wise sum of several, to an array of the spec's shape and dtype.

        Args:
          encoded: the outputs, and the arrays of `regenerate`. A sum comes in a wider dtype than its summands: int32
            or int64, float32 or float64.
          parameters: what the decoding side is told.
          num_summands: how many encodings were added up; under `jax.jit`, a traced number.
          spec: what to decode to; for a sum, of the wider dtype.
        """

    # State that the server holds.

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

    def observe_traffic(self, state: State, bits_per_parameter: float) -> State:
        """The state once the server has counted the round's bytes, which costs nothing on the wire.

        Args:
          state: what `update_state` gave.
          bits_per_parameter: mean size of the tensor's sections in the round's encodings.
        """
        del bits_per_parameter
        return state

    # Memory of one receiver, from sum to sum.

    def decode_sum(
        self, state: State, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec
    ) -> tuple[Array, State]:
        """Like `decode` of a sum, by a receiver that remembers: also gives the state as it is after. Pure.

        Called instead of `decode` where the stage commutes with the sum, before `update_state`.
        """
        return self.decode(encoded, parameters, num_summands=num_summands, spec=spec), state

    # Memory of the encoding side, from encoding to encoding.

    def initial_memory(self, spec: TensorSpec) -> State:
        """What the encoding side remembers before its first encoding: a tree of arrays."""
        del spec
        return ()

    def encode_remembering(self, key: Key, x: Array, parameters: Arrays, memory: State) -> dict[str, Array]:
        """Like `encode`, by a side that remembers."""
        del memory
        return self.encode(key, x, parameters)

    def update_memory(self, memory: State, x: Array, received: Arrays) -> State:
        """What is remembered next, a tree like `initial_memory`'s. Pure.

        Args:
          memory: before this encoding.
          x: what was encoded.
          received: the stage's outputs as the receiver will see them, after all that is lossy below; and what is
            regenerated.
        """
        del x, received
        return memory

    def _overrides(self, *methods: str) -> bool:
        return any(getattr(type(self), method) is not getattr(Stage, method) for method in methods)


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
