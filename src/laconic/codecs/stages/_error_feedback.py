"""Error feedback: what compression loses is remembered by its sender, and made good later.

A compressor C must be contractive for that, E|x - C(x)|^2 <= c |x|^2 with c < 1, or the memory grows from round to
round. Unbiased compressors often are not: their error may be many times |x|^2. Decoded times 1 / (1 + nmse) they are,
with c = nmse / (1 + nmse).
"""

import abc
import dataclasses
import math
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from laconic.codecs._arguments import check_whole, checked_fraction
from laconic.codecs._codec import Codec, chain
from laconic.codecs._merging import summed_dtype
from laconic.codecs._registry import register
from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Arrays, Stage, State
from laconic.codecs._units import Concatenate
from laconic.codecs.random import Key
from laconic.codecs.stages._floats import compute_dtype
from laconic.codecs.stages._passing import Passing
from laconic.errors import ArgumentError, ArgumentTypeError

Kind = Literal["ef14", "ef21", "ef21_sgdm"]

_KINDS = ("ef14", "ef21", "ef21_sgdm")
_MOMENTUM = 0.1
_LARGEST_SIZE = 2**24
_MAX_CLIENTS = 2**31 - 1


class _Remembering(Passing):
    """What kinds of error feedback have in common: the receiver takes what arrives as it is."""

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        """Without a memory: the array itself."""
        del key, parameters
        return {"values": x}

    def encode_remembering(self, key: Key, x: Array, parameters: Arrays, memory: State) -> dict[str, Array]:
        del key, parameters
        return {"values": _saturated(self._due(x.astype(compute_dtype(x.dtype)), memory), x.dtype)}

    @abc.abstractmethod
    def _due(self, x: Array, memory: State) -> Array:
        """What would have to be sent."""


@register
@dataclasses.dataclass(frozen=True)
class ErrorFeedback(_Remembering):
    """EF14: sends x + decay e and remembers what of it does not arrive, e' = x + decay e - C(x + decay e).

    Memory and arithmetic are in float32 for half precision, so that what rounding to it loses is fed back too. What
    leaves the dtype's range saturates.

    Args:
      decay: how much of the error is fed back, above 0 and up to 1; below 1 an old error fades (partial feedback).
    """

    name: ClassVar[str] = "error_feedback"

    decay: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "decay", checked_fraction(self.decay, "decay"))

    def initial_memory(self, spec: TensorSpec) -> State:
        return {"error": jnp.zeros(spec.shape, compute_dtype(spec.dtype))}

    def update_memory(self, memory: State, x: Array, received: Arrays) -> State:
        due = self._due(x.astype(memory["error"].dtype), memory)
        return {"error": _saturated(due - received["values"].astype(due.dtype), due.dtype)}

    def _due(self, x: Array, memory: State) -> Array:
        return x + self.decay * memory["error"]


@register
@dataclasses.dataclass(frozen=True)
class EF21(_Remembering):
    """EF21: both ends remember an estimate g of x, and what is sent brings it closer, g' = g + C(x - g).

    The receiver holds G, the sum of the estimates of all `num_clients` clients, of which those not yet heard of are
    zero. A sum of m contributions decodes to m / num_clients G': all clients' estimates at the cohort's size. So with
    all clients it is the sum of their new estimates, and divided by m it is the mean estimate over all clients,
    whoever takes part (EF21-PP).

    Both ends' memories belong together: a client that loses its own leaves its estimate in G for ever, so that they
    are reset together or not at all.

    Args:
      num_clients: how many clients there are, in this round or not.
      momentum: how much of the new x the target takes, above 0 and up to 1. Below 1 the estimate follows the moving
        average v' = (1 - momentum) v + momentum x in place of x; it starts as the first x.
    """

    name: ClassVar[str] = "ef21"

    num_clients: int
    momentum: float = 1.0

    def __post_init__(self) -> None:
        check_whole(self.num_clients, "num_clients", 1, _MAX_CLIENTS)
        object.__setattr__(self, "momentum", checked_fraction(self.momentum, "momentum"))

    # The receiver.

    def initial_state(self, spec: TensorSpec) -> State:
        return {"estimates": jnp.zeros(spec.shape, summed_dtype(spec.dtype)), "num_summands": jnp.int32(0)}

    def decode_sum(
        self, state: State, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec
    ) -> tuple[Array, State]:
        del parameters
        total = state["estimates"] + encoded["values"].astype(spec.dtype)
        share = jnp.asarray(num_summands, spec.dtype) / self.num_clients
        # An infinite sum shows in this round; it must not spoil all later ones.
        kept = _saturated(total, total.dtype)
        return total * share, {"estimates": kept, "num_summands": jnp.asarray(num_summands, jnp.int32)}

    def update_state(self, state: State, merged: Arrays) -> State:
        """Runs on the host, where too many contributions can be told."""
        del merged
        if (count := int(state["num_summands"])) > self.num_clients:
            raise ArgumentError(
                f"EF21 was told of num_clients={self.num_clients}, got {count} contributions to one sum; num_clients "
                "counts all clients, whether they take part in a round or not"
            )
        return state

    # A client.

    def initial_memory(self, spec: TensorSpec) -> State:
        zeros = jnp.zeros(spec.shape, compute_dtype(spec.dtype))
        if self.momentum == 1:
            return {"estimate": zeros}
        return {"estimate": zeros, "average": zeros, "has_begun": jnp.bool_(False)}

    def update_memory(self, memory: State, x: Array, received: Arrays) -> State:
        estimate = memory["estimate"]
        updated = _saturated(estimate + received["values"].astype(estimate.dtype), estimate.dtype)
        if self.momentum == 1:
            return {"estimate": updated}
        target = self._target(x.astype(estimate.dtype), memory)
        return {"estimate": updated, "average": target, "has_begun": jnp.bool_(True)}

    def _due(self, x: Array, memory: State) -> Array:
        return self._target(x, memory) - memory["estimate"]

    def _target(self, x: Array, memory: State) -> Array:
        if self.momentum == 1:
            return x
        average = (1 - self.momentum) * memory["average"] + self.momentum * x
        return jnp.where(memory["has_begun"], average, x)


@register
@dataclasses.dataclass(frozen=True)
class Shrink(Passing):
    """Decodes to a multiple of what was encoded, which makes an unbiased codec below it a contractive one.

    With x^ unbiased and E|x^ - x|^2 = nmse |x|^2, E|a x^ - x|^2 = ((1 - a)^2 + a^2 nmse) |x|^2, which is least, and
    nmse / (1 + nmse) |x|^2, at a = 1 / (1 + nmse), and below |x|^2 up to twice that. Linear; biased.

    Args:
      factor: a, above 0 and up to 1.
    """

    name: ClassVar[str] = "shrink"

    factor: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", checked_fraction(self.factor, "factor"))

    def encode(self, key: Key, x: Array, parameters: Arrays) -> dict[str, Array]:
        del key, parameters
        return {"values": x}

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        return (encoded["values"].astype(compute_dtype(spec.dtype)) * self.factor).astype(spec.dtype)


def error_feedback(
    codec: Codec | Stage,
    *,
    kind: Kind = "ef14",
    decay: float = 1.0,
    momentum: float | None = None,
    num_clients: int | None = None,
    shrink: float | None = None,
    size: int | None = None,
) -> Codec:
    """Error feedback around a codec: each sender remembers what its encodings lost, and the next ones make up for it.

    "ef14": sends C(x + decay e), e' = x + decay e - C(x + decay e). Over rounds the decoded arrays add up to the sum of
    the inputs less the last error. One sender's memory is one array; the receiver keeps nothing, so that it serves
    broadcasts too. Seide et al. 2014, "1-Bit Stochastic Gradient Descent ..."; Karimireddy et al. 2019, "Error Feedback
    Fixes SignSGD ...", algorithm 2.
    "ef21": sends C(x - g), g' = g + C(x - g). Sender and receiver remember; a sum of m contributions decodes to
    m / num_clients of the sum of all clients' g', see `EF21`. Richtárik et al. 2021, "EF21: A New, Simpler, ... Error
    Feedback", algorithm 2; partial participation as EF21-PP of Fatkhullin et al. 2021, "EF21 with Bells & Whistles".
    "ef21_sgdm": the same with the average v' = (1 - momentum) v + momentum x in place of x. Fatkhullin et al. 2023,
    "Momentum Provably Improves Error Feedback!", algorithm 1.

    Rate: that of `codec`; no memory travels. Error: a single decoded array is biased and may be far from its input.
    Commutes with the sum as far as `codec` does. Memories belong to clients (`BoundCodec.contribute`,
    `federated_sum(memory=)`, `LearningState.memories`). Where clients seldom return what they remember is stale: then
    take an unbiased codec, or `decay` below 1.

    What is fed back stays bounded if C is contractive. Biased stages are taken to be, as those of `top_k` and `sign`
    are; rounding to one bit between minimum and maximum is not. For each unbiased stage decoded values are multiplied
    by 1 / (1 + nmse), the nmse being what theory expects of Gaussian vectors; up to twice as large a 1 + nmse is borne.
    Watch `memory_norm`.

    Args:
      codec: C. If it is `concatenate(...)`, all tensors together are fed back as one vector. Its sender may remember
        something, as `low_rank` with a warm start does; its receiver may not.
      kind: see above.
      decay: of "ef14": how much of the error is fed back, above 0 and up to 1.
      momentum: of "ef21_sgdm": how much of each new x is taken, above 0 and up to 1; None is 0.1.
      num_clients: of "ef21" and "ef21_sgdm": how many clients there are, taking part in a round or not.
      shrink: what decoded values are multiplied by, above 0 and up to 1. None works it out, as above. 1 is right where
        the error is bounded whatever the input, as with a given `step`.
      size: elements of the largest array, where the nmse of `codec` grows with the size.

    Raises:
      ArgumentError: if an argument is out of range or for another kind, the receiver of `codec` remembers something, or
        `shrink` is needed.
      ArgumentTypeError: if an argument is of the wrong type.
    """
    codec = chain(codec) if isinstance(codec, Stage) else codec
    if not isinstance(codec, Codec):
        raise ArgumentTypeError(
            f"codec must be a Codec, such as codecs.sign(), got {codec!r:.60} of type {type(codec).__name__}; where "
            "tensors have codecs of their own, wrap each of them"
        )
    if codec.has_receiver_memory or any(isinstance(each, _Remembering) for each in codec.stages):
        raise ArgumentError(
            f"codec must be without error feedback and without a receiver that remembers, got {codec}; a sender could "
            "not tell from one encoding what arrives"
        )
    stage = _stage(kind, decay, momentum, num_clients)
    factor = _contractive_factor(codec, size) if shrink is None else checked_fraction(shrink, "shrink")
    if isinstance(codec.stage, Concatenate):
        (_, below), *_ = codec.children
        return chain(codec.stage, stage, *_shrunk(factor), below)
    return chain(stage, *_shrunk(factor), codec)


def memory_norm(memory: Any) -> float:
    """The Euclidean norm of all floating-point arrays of one sender's memory, or of a part of it.

    With "ef14" it is the norm of what is still to be sent: if it grows from round to round, the codec is not
    contractive for these inputs, and needs a smaller `shrink` or `decay`. With "ef21" it is that of the estimate (and
    the average), which follows the inputs.

    Args:
      memory: from `BoundCodec.initial_memory` or `contribute`.
    """
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(memory)]
    norms = [np.linalg.norm(x.astype(np.float64)) for x in arrays if jnp.issubdtype(x.dtype, jnp.floating)]
    return math.hypot(*norms)


def _stage(kind: str, decay: float, momentum: float | None, num_clients: int | None) -> Stage:
    if kind not in _KINDS:
        raise ArgumentError(f"kind must be one of {', '.join(map(repr, _KINDS))}, got {kind!r}")
    for name, given, kinds in (
        ("decay", decay != 1, ("ef14",)),
        ("momentum", momentum is not None, ("ef21_sgdm",)),
        ("num_clients", num_clients is not None, ("ef21", "ef21_sgdm")),
    ):
        if given and kind not in kinds:
            raise ArgumentError(f"{name} is for kind {' or '.join(map(repr, kinds))}, got kind={kind!r}")
    if kind == "ef14":
        return ErrorFeedback(decay)
    if num_clients is None:
        raise ArgumentError(
            f"kind {kind!r} needs num_clients, how many clients there are, since its receiver holds the sum of all "
            "clients' estimates whoever takes part in a round; got None"
        )
    return EF21(num_clients, 1.0 if kind == "ef21" else _MOMENTUM if momentum is None else momentum)


def _contractive_factor(codec: Codec, size: int | None) -> float:
    """What to decode times so that errors do not grow.

    Errors of unbiased stages one below the other multiply, 1 + nmse = (1 + nmse_1) (1 + nmse_2); where one of them lies
    below a biased stage, its own factor is still the best for what reaches it.
    """
    if size is not None:
        check_whole(size, "size", 1, 2**48)
    lossy = [stage for stage in codec.stages if stage.is_unbiased and not stage.is_lossless]
    return 1 / math.prod(1 + _largest_nmse(stage, size) for stage in lossy)


def _largest_nmse(stage: Stage, size: int | None) -> float:
    """Over arrays of all sizes: a factor for the largest error is safe for all."""
    limit = _LARGEST_SIZE if size is None else size
    sizes = [*range(1, min(limit, 4)), *(4**i for i in range(1, 13) if 4**i < limit), limit]
    known = [nmse for each in sizes if (nmse := stage.expected_nmse(each)) is not None]
    if len(known) < len(sizes):
        raise ArgumentError(
            f"the error of {stage} over its input is not known beforehand; if that error is above one, what is fed "
            "back would grow without end. Give shrink=, at most 1 / (1 + nmse), or a codec of given nmse; shrink=1 "
            "where the error is bounded whatever the input, as with a given step"
        )
    if size is None and known[-1] > 1.05 * known[-3]:
        raise ArgumentError(
            f"the error of {stage} grows with the array's size; give size=, the elements of the largest array, or "
            "shrink=, at most 1 / (1 + nmse)"
        )
    return max(known)


def _shrunk(factor: float) -> tuple[Stage, ...]:
    return () if factor == 1 else (Shrink(factor),)


def _saturated(x: Array, dtype: np.dtype) -> Array:
    """In the dtype, what leaves its range at its end: an infinite memory would never recover."""
    info = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    return jnp.clip(x, float(info.min), float(info.max)).astype(dtype)
