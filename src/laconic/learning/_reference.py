"""The model on its way down, as its difference from a model that all clients hold already."""

import dataclasses
import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from laconic.codecs import (
    Codec,
    CodecFor,
    EntropyCoder,
    Identity,
    RowColumn,
    TensorSpec,
    bind,
    chain,
    concatenate,
    identity,
)
from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError
from laconic.federated import Value, federated_broadcast, federated_held, federated_map, member_type
from laconic.learning._model import Weights
from laconic.learning._parts import Distributor

STEP_IN_RMS = 2.0

_STEPS_PER_OCTAVE = 2
_MATRIX = 2**12  # entries, from which a tensor is coded by its rows and columns
_LARGEST_CODE = 2**15 - 1
_SMALLEST_STEP = 2.0**-100
_MOST_STEPS = 2**22  # in the largest difference, which float32 can still tell from its neighbours
_LARGEST_PRODUCT = 2**29  # of which the double and some more fit 32 bits
_MOST_OCTAVES = 20  # by which steps may differ for an earlier message to be of use


class ReferenceMessage(NamedTuple):
    """What travels down: w = reference + step * codes.

    Attributes:
      codes: int16 or int32, a tree like the model's; less what `predicted_codes` makes of an earlier message's, if this
        one is for clients that hold that.
      step: float32, of at most eight significant bits, so that its products with codes of 16 bits are exact.
      fingerprint: uint32[2], of the reference that the codes are for.
      number: int32, of this message: each broadcast has one more than the one before.
      since: int32, the number of the earlier message that this one is for, -1 for everybody.
    """

    codes: Any
    step: Any
    fingerprint: Any
    number: Any
    since: Any


class ReferenceDifference(NamedTuple):
    """What travels down where a codec was given: w = reference + scale * difference.

    Attributes:
      difference: a tree like the model's, of floats, as decoded.
      scale: float32, the root mean square of what has changed, 0 if nothing has.
      fingerprint: uint32[2], of the reference that it is from.
    """

    difference: Any
    scale: Any
    fingerprint: Any


class _State(NamedTuple):
    reference: Weights
    fingerprint: Any
    number: Any
    codec: Any


def reference_broadcast(
    *,
    step_in_rms: float | Callable[[Any], Any] | None = None,
    codec: CodecFor | None = None,
    reference: Weights | None = None,
    cached_rounds: int = 0,
) -> Distributor:
    """Sends the model as its difference from a reference that all clients hold, on a grid, entropy-coded.

    The reference is the model before the first round, which every client can make from the run's seed, or a given one,
    which they were installed with. With the difference d = w - reference of all tensors together, the step is
    `step_in_rms` times the root mean square of d, rounded to a half octave, so that it follows d through the rounds and
    changes seldom. The codes are q = rint(d / step) and the clients train from reference + step q. Small differences
    are not sent until they have grown, as with error feedback: nothing is lost, since the server keeps w itself and
    rounds it anew each round. Clients keep nothing but the reference.

    With `cached_rounds`, a client also keeps the codes that it received last, for so many rounds. The server knows who
    does, and sends them the difference of codes where that takes less: exact, so that no error adds up, from any round
    to any later one.

    With `codec`, d travels through that instead: one that promises an error or a rate (`codecs.auto(nmse=0.05)`,
    `codecs.auto(bits_per_parameter=1)`), a step for each tensor (`codecs.dithered(step_in_rms=1)`, which is not
    concatenated), any other. It is given d in root mean squares of d, all tensors together, so that
    `codecs.dithered(step=1)` is one such step for all tensors. The server's own model is then the one that
    `broadcast_weights` gives: with codecs that draw their errors anew in each round, it is the better one.

    Rate: found by the coder, `codecs.RowColumn` for large tensors, one stream for all small ones; 0.46 bits per
    parameter for the tutorial's model with the default step. Error: at most half a step in each entry.
    Biased. The payload has the reference's fingerprint, 8 bytes: a client with another one must not use it
    (`HeldReference.rebuild` refuses). With `codec`, all three are the codec's.

    Args:
      step_in_rms: the step over the root mean square of the difference; or a schedule, a function that JAX can trace
        from the broadcast's number, int32 and 0 for the first, to that (any of optax's); it must stay above zero, or
        the round is refused. A step is not finer than 2**-22 of the largest difference. None is 2.0.
      codec: instead of the grid: a codec, a tree of codecs like the model, or a function that is called once for each
        model tensor's spec and gives its codec.
      reference: None is the model before the first round; else weights that clients hold.
      cached_rounds: for how many rounds clients keep codes; 0 is not at all.

    Raises:
      ArgumentError: if the step is not above zero, `cached_rounds` is negative, or `codec` is given beside a step or
        `cached_rounds`; from `initialize`, if the reference is not like the model, or not finite.
      ArgumentTypeError: if an argument is of the wrong kind; from `initialize`, if the model is not of floats.
    """
    if isinstance(cached_rounds, bool) or not isinstance(cached_rounds, int):
        raise ArgumentTypeError(f"cached_rounds must be a whole number, got {cached_rounds!r}")
    if cached_rounds < 0:
        raise ArgumentError(f"cached_rounds must not be negative, got {cached_rounds}")
    initialize = _initializer(reference, codec)
    if codec is None:
        return _on_grid(initialize, _checked_step(step_in_rms), cached_rounds)
    if step_in_rms is not None:
        raise ArgumentError(f"codec stands for the grid, so step_in_rms must be left out, got {step_in_rms!r}")
    if cached_rounds:
        raise ArgumentError(
            f"only the grid's codes can be kept for later, so with a codec cached_rounds must be 0, got {cached_rounds}"
        )
    return _through_codec(initialize, codec)


def _checked_step(step_in_rms: Any) -> float | Callable[[Any], Any]:
    if step_in_rms is None:
        return STEP_IN_RMS
    if callable(step_in_rms):
        return step_in_rms
    if isinstance(step_in_rms, bool) or not isinstance(step_in_rms, (int, float)):
        raise ArgumentTypeError(f"step_in_rms must be a number or a schedule, got {step_in_rms!r}")
    if not (math.isfinite(step_in_rms) and step_in_rms > 0):
        raise ArgumentError(f"step_in_rms must be a finite number above zero, got {step_in_rms}")
    return float(step_in_rms)


def _initializer(reference: Weights | None, codec: CodecFor | None) -> Callable[[Weights], _State]:
    def initialize(weights: Weights) -> _State:
        leaves = jax.tree.leaves(member_type(weights).structs)
        if not leaves:
            raise ArgumentError("reference_broadcast takes models with at least one tensor, got none")
        for leaf in leaves:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise ArgumentTypeError(f"reference_broadcast takes models of floats only, got a {leaf.dtype} tensor")
        if reference is not None and member_type(reference).structure != member_type(weights).structure:
            raise ArgumentError(
                f"reference must be {member_type(weights)}, like the model, got {member_type(reference)}"
            )
        held = jax.tree.map(jnp.asarray, weights if reference is None else reference)
        if member_type(held) != member_type(weights):
            raise ArgumentError(f"reference must be {member_type(weights)}, like the model, got {member_type(held)}")
        # On the host: by JAX's functions, one is compiled for each shape.
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(held)):
            raise ArgumentError("reference must be finite, got NaN or infinity; look at where its weights come from")
        own = fingerprint(held)
        if codec is None:
            return _State(held, own, np.int32(0), ())
        message = jax.eval_shape(_difference, held, own, weights)
        return _State(held, own, np.int32(0), bind(_of_difference(codec), message).initial_sender_state())

    return initialize


def _on_grid(
    initialize: Callable[[Weights], _State], step_in_rms: float | Callable[[Any], Any], cached_rounds: int
) -> Distributor:
    def quantized(state: _State, weights: Weights) -> ReferenceMessage:
        return _quantized(state, weights, step_in_rms)

    def next_(state: Value, weights: Value) -> tuple[Value, Value]:
        message = federated_map(quantized, (state, weights))
        received = federated_broadcast(message, codec=_codec, label="model", since=_since if cached_rounds else None)
        weights = federated_map(_rebuilt, (federated_held(state.reference), received.codes, received.step))
        return federated_map(lambda own: own._replace(number=own.number + 1), state), weights

    def received(state: _State, weights: Weights) -> Weights:
        message = quantized(state, weights)
        return _rebuilt(state.reference, message.codes, message.step)

    return Distributor(initialize, next_, jax.jit(received), cached_rounds)


def _through_codec(initialize: Callable[[Weights], _State], codec: CodecFor) -> Distributor:
    def next_(state: Value, weights: Value) -> tuple[Value, Value]:
        message = federated_map(_difference, (state.reference, state.fingerprint, weights))
        received, after = federated_broadcast(message, codec=_of_difference(codec), state=state.codec, label="model")
        weights = federated_map(_added, (federated_held(state.reference), received.difference, received.scale))
        return federated_map(
            lambda own, after: own._replace(number=own.number + 1, codec=after), (state, after)
        ), weights

    return Distributor(initialize, next_)


def _of_difference(codec: CodecFor) -> CodecFor:
    """The codec for the difference's tensors, by their names in the model; the fingerprint as it is."""
    if not (isinstance(codec, Codec) or callable(codec)):
        return ReferenceDifference(codec, identity(), identity())

    def choose(spec: TensorSpec) -> Codec:
        if spec.name in ("scale", "fingerprint"):
            return identity()
        own = spec.name.removeprefix("difference").removeprefix("/")
        return codec if isinstance(codec, Codec) else codec(dataclasses.replace(spec, name=own))

    return choose


class HeldReference:
    """A client's reference, and the models that it makes of messages.

    Args:
      weights: what the client holds.
    """

    def __init__(self, weights: Weights):
        # As the server holds it: JAX has no float64, unless it is told to.
        self._weights = jax.tree.map(jnp.asarray, weights)
        self._fingerprint = fingerprint(self._weights)
        self._last: ReferenceMessage | None = None

    def rebuild(self, message: ReferenceMessage | ReferenceDifference) -> Weights:
        """The model that was sent; a message's codes are kept for the next one.

        Raises:
          DecodeError: if the message is for another reference, or needs an earlier one that this client does not hold.
        """
        if not np.array_equal(np.asarray(message.fingerprint), self._fingerprint):
            raise DecodeError(
                f"the message is for the reference {_hexadecimal(message.fingerprint)}, but this client holds "
                f"{_hexadecimal(self._fingerprint)}; make the reference from the run's seed, or install the named model"
            )
        if isinstance(message, ReferenceDifference):
            return _added(self._weights, message.difference, message.scale)
        if message.since >= 0:
            if self._last is None or self._last.number != message.since:
                holds = "none" if self._last is None else f"message {int(self._last.number)}"
                raise DecodeError(
                    f"the message is for clients that hold message {int(message.since)}, but this client holds "
                    f"{holds}; ask for one that is for everybody"
                )
            predicted = predicted_codes(self._last, message.step)
            message = message._replace(codes=jax.tree.map(jnp.add, message.codes, predicted), since=np.int32(-1))
        self._last = message
        rebuilt: Weights = _rebuilt(self._weights, message.codes, message.step)
        return rebuilt


def predicted_codes(earlier: ReferenceMessage, step: Any) -> Any:
    """What the codes of an earlier message would be at another step, about: themselves, if it is the same.

    Steps have eight significant bits, so that integers tell it, which are the same on all machines. Zero where that
    would leave 32 bits.
    """
    (now, now_exponent), (then, then_exponent) = (_significand(each) for each in (step, earlier.step))
    octaves = then_exponent - now_exponent
    above = then << jnp.clip(octaves, 0, _MOST_OCTAVES)
    below = now << jnp.clip(-octaves, 0, _MOST_OCTAVES)

    def predicted(codes: Any) -> Any:
        wide = codes.astype(jnp.int32)
        fits = (jnp.abs(octaves) <= _MOST_OCTAVES) & (jnp.abs(wide) <= _LARGEST_PRODUCT // above)
        there = jnp.where(fits, wide, 0) * above
        # Of the narrower integers, what wraps around here wraps back when codes are added.
        rescaled = ((2 * there + below) // (2 * below)).astype(codes.dtype)
        return jnp.where(earlier.step == step, codes, rescaled)

    return jax.tree.map(predicted, earlier.codes)


def _significand(step: Any) -> tuple[Any, Any]:
    """Integers m and e of a step m 2**e, with m of eight bits."""
    fraction, exponent = jnp.frexp(jnp.asarray(step))
    return (fraction * 2**8).astype(jnp.int32), exponent - 8


def _since(message: ReferenceMessage, earlier: ReferenceMessage) -> ReferenceMessage:
    """The message for clients that hold an earlier one. Differences may wrap around, and back when they are added."""
    codes = jax.tree.map(jnp.subtract, message.codes, predicted_codes(earlier, message.step))
    return message._replace(codes=codes, since=earlier.number)


def fingerprint(weights: Weights) -> np.ndarray:
    """Eight bytes of the SHA-256 of a model's tensors, their names, shapes and dtypes, as uint32[2].

    Specified in docs/wire-format.md, since both ends compute it.
    """
    digest = hashlib.sha256()
    for spec, leaf in zip(bind(identity(), weights).specs, jax.tree.leaves(weights), strict=True):
        array = np.ascontiguousarray(leaf)
        digest.update("\0".join((spec.name, ",".join(map(str, spec.shape)), spec.dtype.name, "")).encode())
        digest.update(array.astype(array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data)
    return np.frombuffer(digest.digest()[:8], "<u4").astype(np.uint32)


def _quantized(state: _State, weights: Weights, step_in_rms: float | Callable[[Any], Any]) -> ReferenceMessage:
    difference = _changes(state.reference, weights)
    size = sum(leaf.size for leaf in jax.tree.leaves(difference))
    largest, rms = _magnitudes(difference)
    wanted = step_in_rms(state.number) if callable(step_in_rms) else step_in_rms
    finest = jnp.maximum(largest / _MOST_STEPS, _SMALLEST_STEP)
    # NaN does not travel: the encoder refuses it.
    step = _on_ladder(jnp.where(wanted > 0, jnp.maximum(wanted * rms, finest), jnp.nan))
    # No entry is above sqrt(size) root mean squares, and the ladder rounds down by a quarter of an octave at most.
    bound = math.inf if callable(step_in_rms) else 2**0.5 * size**0.5 / step_in_rms
    dtype = jnp.int16 if bound < _LARGEST_CODE else jnp.int32
    codes = jax.tree.map(lambda d: jnp.round(d / step.astype(d.dtype)).astype(dtype), difference)
    return ReferenceMessage(codes, step, jnp.asarray(state.fingerprint), jnp.asarray(state.number), jnp.int32(-1))


def _on_ladder(step: Any) -> Any:
    """The nearest half octave, with eight significant bits."""
    level = jnp.round(_STEPS_PER_OCTAVE * jnp.log2(step)) / _STEPS_PER_OCTAVE
    return jnp.exp2(level).astype(jnp.bfloat16).astype(jnp.float32)


def _rebuilt(reference: Weights, codes: Any, step: Any) -> Weights:
    return jax.tree.map(
        lambda r, q: (r.astype(_wide(r)) + q.astype(_wide(r)) * step.astype(_wide(r))).astype(r.dtype), reference, codes
    )


def _changes(reference: Weights, weights: Weights) -> Any:
    return jax.tree.map(lambda w, r: w.astype(_wide(w)) - r.astype(_wide(w)), weights, reference)


def _magnitudes(tree: Any) -> tuple[Any, Any]:
    """The largest magnitude of all entries, and their root mean square, float32."""
    leaves = jax.tree.leaves(tree)
    size = sum(leaf.size for leaf in leaves)
    # Of the entries over the largest, since squares of tiny and huge numbers would leave float32.
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf), initial=0).astype(jnp.float32) for leaf in leaves]))
    scale = jnp.where(largest > 0, largest, 1)
    squares = sum(jnp.sum(jnp.square((leaf / scale).astype(jnp.float32))) for leaf in leaves)
    return largest, scale * jnp.sqrt(squares / max(size, 1))


def _difference(reference: Weights, fingerprint: Any, weights: Weights) -> ReferenceDifference:
    changes = _changes(reference, weights)
    _, rms = _magnitudes(changes)
    # Where nothing has changed, no dither must be added. NaN does not travel: the encoder refuses it.
    scale = jnp.where(rms < _SMALLEST_STEP, 0, rms)
    unit = jnp.where(scale == 0, 1, scale)
    in_scale = jax.tree.map(lambda d: d / unit.astype(d.dtype), changes)
    return ReferenceDifference(in_scale, scale, jnp.asarray(fingerprint))


def _added(reference: Weights, difference: Any, scale: Any) -> Weights:
    added: Weights = jax.tree.map(
        lambda r, d: (r.astype(d.dtype) + d * scale.astype(d.dtype)).astype(r.dtype), reference, difference
    )
    return added


def _wide(array: Any) -> Any:
    return jnp.promote_types(array.dtype, jnp.float32)


def _codec(spec: TensorSpec) -> Codec:
    """Large matrices by themselves, all other codes in one stream; the step and the fingerprint as they are."""
    if not spec.name.startswith("codes"):
        return identity()
    if is_large_matrix(spec):
        return chain(Identity(), RowColumn())
    return concatenate(chain(Identity(), EntropyCoder()))


def is_large_matrix(spec: TensorSpec) -> bool:
    """Whether to code a tensor by its rows and columns."""
    return spec.size >= _MATRIX and len(spec.shape) > 1


def _hexadecimal(words: Any) -> str:
    return np.asarray(words, "<u4").tobytes().hex()
