"""What a bound codec keeps between rounds, and what it tells encoders and decoders of it."""

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import PyTreeDef

from laconic.codecs import _recursion
from laconic.codecs._stage import Stage, checked_arrays
from laconic.codecs._units import Unit
from laconic.errors import ArgumentError


class States:
    """The states of the stages of all units; lists with a tree of arrays for each unit.

    Args:
      units: what is coded as one.
      is_wide: whether a tensor has integers or floats of 64 bits.

    Attributes:
      codec_specs: for each unit, the specs at each of its codec's stages.
      needs_client_state: whether a codec remembers.
      initial: the receiver's state before the first round.
      initial_memory: a sender's before its first contribution.
      initial_of_sender: that of the sender of broadcasts before the first one.
      merges: for each array that stages report, how several senders' are merged.
    """

    def __init__(self, units: Sequence[Unit], *, is_wide: bool):
        self._units = units
        self._is_wide = is_wide
        self.needs_client_state = any(unit.codec.needs_client_state for unit in units)
        self._is_adaptive = any(unit.codec.is_adaptive for unit in units)
        with self.precision():
            built = [_recursion.initial_state(unit.codec, unit.spec) for unit in units]
            self.initial = [state for state, _ in built]
            self.codec_specs = [codec_specs for _, codec_specs in built]
            self.initial_memory = [
                _recursion.initial_memory(unit.codec, specs)
                for unit, specs in zip(units, self.codec_specs, strict=True)
            ]
        merges = [_recursion.map_stages(unit.codec, lambda stage: dict(stage.merges)) for unit in units]
        self.merges = jax.tree.leaves(merges)
        self._reports: PyTreeDef = jax.tree.structure(merges)
        self.initial_of_sender = self.with_memory(self.initial, self.initial_memory)

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """JAX's setting to compute these codecs with, whatever the process has configured: both ends need the same."""
        return jax.enable_x64(self._is_wide)

    def encode_parameters(self, state: Any) -> list[Any]:
        """What encoders must be told in a round with this state."""
        return self._parameters(state, 0)

    def decode_parameters(self, state: Any) -> list[Any]:
        """What decoders must be told."""
        return self._parameters(state, 1)

    def _parameters(self, state: Any, which: int) -> list[Any]:
        def of_stage(stage: Stage, own: Any) -> dict[str, Any]:
            return checked_arrays(stage, "parameter", stage.parameters(own)[which])

        with self.precision():
            return [
                _recursion.map_stages(unit.codec, of_stage, own) for unit, own in zip(self._units, state, strict=True)
            ]

    def memory(self, state: Any) -> list[Any]:
        """What the sender of broadcasts remembers."""
        return [own.get("memory", first) for own, first in zip(state, self.initial_memory, strict=True)]

    def with_memory(self, state: Any, memory: Any) -> Any:
        """The same with another memory, if a codec remembers."""
        if not self.needs_client_state:
            return state
        return [{**own, "memory": each} for own, each in zip(state, memory, strict=True)]

    def next(self, state: Any, merged: Sequence[Any], sizes: Sequence[int], count: int) -> Any:
        """The state of the next round, given the reports, the units' bytes, and from how many senders these are."""
        if not self._is_adaptive:
            return state
        rates = [8 * size / max(unit.spec.size * count, 1) for unit, size in zip(self._units, sizes, strict=True)]
        with self.precision():
            reports = jax.tree.unflatten(self._reports, [jnp.asarray(report) for report in merged])
            return [
                {**own, **_recursion.map_stages(unit.codec, functools.partial(_updated, rate), own, own_reports)}
                for unit, own, own_reports, rate in zip(self._units, state, reports, rates, strict=True)
            ]


def _updated(rate: float, stage: Stage, state: Any, reports: Any) -> Any:
    updated = stage.observe_traffic(stage.update_state(state, reports), rate)
    before: PyTreeDef = jax.tree.structure(state)
    after: PyTreeDef = jax.tree.structure(updated)
    if before != after:
        raise ArgumentError(f"stage {stage.name!r} must update its state to a tree like {before}, got {after}")
    return updated
