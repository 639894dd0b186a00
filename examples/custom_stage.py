"""Two codec stages of your own: one stateless, one adaptive; checked, then trained with.

    python examples/custom_stage.py --rounds 40

Needs `laconic[data]`, and no network. docs/custom-stages.md goes through it step by step.
"""
# ruff: noqa: ARG002 - a method takes what the interface gives it, used or not

import argparse
import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
import optax
from jax import Array

from laconic import codecs, data, learning, testing
from laconic.codecs.random import Key
from laconic.errors import ArgumentTypeError
from laconic.federated import Traffic


# A stage turns one array into named arrays, and back. It is a frozen dataclass whose fields are constants: they travel
# in the payload's description, so that any process that knows the registered name can decode.
@codecs.register
@dataclasses.dataclass(frozen=True)
class MuLaw(codecs.Stage):
    """Compands to -1..1, so that a uniform quantizer after it has fine steps near zero, where most of an update lies.

    y = sign(x) log(1 + mu |x| / s) / log(1 + mu) with s = max |x| (ITU-T G.711, where x is speech).

    Args:
      mu: how much finer the steps are near zero.
    """

    name: ClassVar[str] = "example.mu_law"
    outputs: ClassVar[tuple[str, ...]] = ("values", "scale")
    compressible: ClassVar[tuple[str, ...]] = ("values",)  # the scale is one number, and travels as it is

    mu: float = 255.0

    def check(self, spec: codecs.TensorSpec) -> None:
        """Refuses what it cannot take when the codec is bound, before anything is encoded."""
        if not spec.is_float:
            raise ArgumentTypeError(f"{spec.name or 'value'} is {spec}, but companding takes floating-point arrays")

    def encode(self, key: Key, x: Array, parameters: codecs.Arrays) -> dict[str, Array]:
        """Pure, and traced by jax.jit: no branches on values."""
        x = x.astype(jnp.float32)
        scale = jnp.max(jnp.abs(x), initial=0.0)  # `initial`, since an array may have no entries
        share = jnp.abs(x) / jnp.where(scale > 0, scale, 1.0)  # or only zeros
        return {"values": jnp.sign(x) * jnp.log1p(self.mu * share) / math.log1p(self.mu), "scale": scale}

    def decode(
        self, encoded: codecs.Arrays, parameters: codecs.Arrays, *, num_summands: int | Array, spec: codecs.TensorSpec
    ) -> Array:
        """Expands. No sum comes here, since the stage does not say that it commutes with it."""
        y = encoded["values"]
        x = jnp.sign(y) * encoded["scale"] * jnp.expm1(jnp.abs(y) * math.log1p(self.mu)) / self.mu
        return x.astype(spec.dtype)


# An adaptive stage has a state, which the server holds, and parameters made of it, which travel to the clients.
@codecs.register
@dataclasses.dataclass(frozen=True)
class EvenOdd(codecs.Stage):
    """Keeps the even entries in one round and the odd ones in the next: half the entries to send.

    What is not sent decodes to zero. For an update that is right: an entry of which the server hears nothing does not
    move in this round. To repeat what the server remembers of the last round would apply each update twice, the second
    time to a model that has moved on. For a model on its way down zeros would be wrong, so use the stage for updates.
    """

    name: ClassVar[str] = "example.even_odd"

    @property
    def commutes_with_sum(self) -> bool:
        """All clients of a round keep the same entries, so the server adds up halves and spreads out only their sum."""
        return True

    def encode(self, key: Key, x: Array, parameters: codecs.Arrays) -> dict[str, Array]:
        """Shapes must not depend on values: an array of odd size gets a zero more, and both halves have one length."""
        pairs = jnp.pad(x.reshape(-1), (0, x.size % 2)).reshape(-1, 2)
        return {"values": jnp.where(parameters["odd"], pairs[:, 1], pairs[:, 0])}

    def decode(
        self, encoded: codecs.Arrays, parameters: codecs.Arrays, *, num_summands: int | Array, spec: codecs.TensorSpec
    ) -> Array:
        """Puts the entries, or their sum, back in their places."""
        kept, zeros = encoded["values"], jnp.zeros_like(encoded["values"])
        even, odd = jnp.where(parameters["odd"], zeros, kept), jnp.where(parameters["odd"], kept, zeros)
        return jnp.stack([even, odd], axis=1).reshape(-1)[: spec.size].reshape(spec.shape).astype(spec.dtype)

    def initial_state(self, spec: codecs.TensorSpec) -> Array:
        """Whose turn it is: 0 for even, 1 for odd. An array, since Python numbers do not travel."""
        return jnp.uint8(0)

    def parameters(self, state: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        """What encode and decode are told in this round: one byte."""
        return {"odd": state}, {"odd": state}

    def update_state(self, state: Array, merged: codecs.Arrays) -> Array:
        """The next round's state. What clients report could count, too; these report nothing."""
        return 1 - state


STAGES = (MuLaw(), EvenOdd())

# Stages of your own go before, between and after Laconic's.
CODECS = {
    "as they are, float32": codecs.identity(),
    "mu-law, 3 bit": codecs.chain(MuLaw(), codecs.UniformQuantizer(3, (-1.0, 1.0)), codecs.FixedWidth(3)),
    "even or odd, 8 bit": codecs.chain(EvenOdd(), codecs.UniformQuantizer(8), codecs.FixedWidth(8)),
    "even or odd, mu-law, 4 bit": codecs.chain(
        EvenOdd(), MuLaw(), codecs.UniformQuantizer(4, (-1.0, 1.0)), codecs.FixedWidth(4)
    ),
}


def train(codec: codecs.Codec, rounds: int, seed: int) -> tuple[float, Traffic]:
    """Federated Averaging whose updates travel through the codec: test accuracy, and what travelled."""
    train_data, test_data = data.digits.load(size=8)
    batched = train_data.batched(batch_size=10, epochs=2, shuffle=True)
    model = learning.models.perceptron(input_size=64, hidden_sizes=(64,))
    process = learning.fed_avg(
        model,
        client_optimizer=optax.sgd(0.1),
        # Small tensors are not worth the side information.
        aggregator=learning.encoded_mean(lambda spec: codec if spec.size > 500 else codecs.identity()),
    )
    state, traffic = process.initialize(seed=seed), Traffic()
    for round_number in range(rounds):
        state, result = process.next(state, batched.sample(10, seed=seed, round_number=round_number))
        traffic += result.traffic
    evaluation = learning.evaluation(model)
    metrics = evaluation.central(process.model_weights(state), data.batches(test_data.examples(), batch_size=100))
    return metrics["accuracy"], traffic


def main() -> None:
    """Checks the stages, then trains with each codec."""
    parser = argparse.ArgumentParser(description="Two codec stages of your own, checked and trained with.")
    parser.add_argument("--rounds", type=int, default=40, help="rounds of training with each codec")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    for stage in STAGES:
        print(testing.check_stage(stage), end="\n\n")

    print(f"{'updates':28} {'accuracy':>8} {'MB up':>8} {'smaller':>8}")
    uncompressed = 0
    for title, codec in CODECS.items():
        accuracy, traffic = train(codec, options.rounds, options.seed)
        uncompressed = uncompressed or traffic.aggregate_bytes
        ratio = uncompressed / traffic.aggregate_bytes
        print(f"{title:28} {accuracy:8.3f} {traffic.aggregate_bytes / 1e6:8.3f} {ratio:7.1f}x")


if __name__ == "__main__":
    main()
