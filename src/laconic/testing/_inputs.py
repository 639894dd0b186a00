"""What a stage is checked with: arrays of a few shapes and dtypes, each with several kinds of values.

All arrays of one kind make a tree, and all trees are of one structure, so that each function is compiled once.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from laconic.codecs import Stage, TensorSpec
from laconic.codecs._specs import spec_of
from laconic.errors import ArgumentError, ArgumentTypeError
from laconic.testing._report import Failed, summary

Tree = dict[str, np.ndarray]
"""One array for each shape and dtype, by the spec's name."""

_SIZE = 27  # odd, and no multiple of any group that a packer or transform works in
_SPIKE = 100

_DEFAULT_SPECS: tuple[tuple[tuple[int, ...], Any], ...] = (
    ((_SIZE,), np.float32),
    ((3, 9), np.float32),
    ((), np.float32),
    ((1,), np.float32),
    ((0,), np.float32),
    ((_SIZE,), np.float16),
    ((_SIZE,), jnp.bfloat16),
    ((_SIZE,), np.int32),
    ((_SIZE,), np.uint8),
)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Trees of one structure.

    Attributes:
      specs: each array's, by name.
      trees: for each kind of values a tree.
      labels: how messages call the array of a tree, if not by kind and spec.
    """

    specs: Mapping[str, TensorSpec]
    trees: Mapping[str, Tree]
    labels: Mapping[tuple[str, str], str] = dataclasses.field(default_factory=dict)

    def label(self, kind: str, name: str) -> str:
        """How messages call an array."""
        return f"{self.labels.get((kind, name), kind)} {self.specs[name]}"

    def __iter__(self) -> Iterator[tuple[str, Tree]]:
        return iter(self.trees.items())

    def select(self, names: Sequence[str]) -> "Inputs":
        """Only these specs."""
        return dataclasses.replace(
            self,
            specs={name: self.specs[name] for name in names},
            trees={kind: {name: tree[name] for name in names} for kind, tree in self.trees.items()},
        )

    def client(self, index: int) -> Tree:
        """A client's own values: another kind for each client, shifted and scaled, so that ranges and norms differ."""
        trees = list(self.trees.values())
        tree = trees[index % len(trees)]
        return {name: _shifted_and_scaled(tree[name], index) for name in self.specs}


def accepted(stage: Stage, inputs: Inputs) -> tuple[Inputs, tuple[str, ...]]:
    """The inputs whose specs the stage accepts, and the specs that it refuses."""
    refusals = {}
    for name, spec in inputs.specs.items():
        try:
            stage.check(spec)
        except (ArgumentError, ArgumentTypeError) as refusal:
            refusals[name] = refusal
        except Exception as error:
            raise Failed(
                f"check({spec}) to return, or to raise codecs' ArgumentError or ArgumentTypeError",
                summary(error),
            ) from error
    kept = [name for name in inputs.specs if name not in refusals]
    if not kept:
        raise Failed(
            f"check to accept one at least of {', '.join(map(str, inputs.specs.values()))}",
            f"refusals only, the last being: {refusals[next(reversed(refusals))]}",
            "pass inputs= of a shape and dtype that the stage takes",
        )
    return inputs.select(kept), tuple(str(inputs.specs[name]) for name in refusals)


def default_inputs(seed: int) -> Inputs:
    """Normal vectors, one spike, alternating signs, a constant, all zero; in each default shape and dtype."""
    generator = np.random.default_rng(seed)
    specs = [_named_spec(shape, np.dtype(dtype)) for shape, dtype in _DEFAULT_SPECS]
    trees: dict[str, Tree] = {}
    for spec in specs:
        for kind, values in _values(spec, generator).items():
            trees.setdefault(kind, {})[spec.name] = values
    return Inputs({spec.name: spec for spec in specs}, trees)


def given_inputs(inputs: Any) -> Inputs:
    """The caller's arrays: one, a sequence, or a mapping by name.

    Raises:
      ArgumentTypeError: if something is not an array.
      ArgumentError: if there is none, or one holds NaN or infinity.
    """
    arrays = _named(inputs)
    groups: dict[TensorSpec, list[str]] = {}
    for label, value in arrays.items():
        spec = spec_of(value, label)
        arrays[label] = np.asarray(value, spec.dtype)
        if spec.is_float and not np.isfinite(arrays[label].astype(np.float64)).all():
            raise ArgumentError(f"inputs must be finite, since nothing else travels, got NaN or infinity in {label!r}")
        groups.setdefault(_named_spec(spec.shape, spec.dtype), []).append(label)
    specs = {spec.name: spec for spec in groups}
    trees: dict[str, Tree] = {}
    labels: dict[tuple[str, str], str] = {}
    for position in range(max(map(len, groups.values()))):
        chosen = {name: members[position % len(members)] for name, members in zip(specs, groups.values(), strict=True)}
        kind = ", ".join(chosen.values())
        trees[kind] = {name: arrays[label] for name, label in chosen.items()}
        labels |= {(kind, name): label for name, label in chosen.items()}
    return Inputs(specs, trees, labels)


def _named(inputs: Any) -> dict[str, Any]:
    if isinstance(inputs, Mapping):
        named = {str(name): value for name, value in inputs.items()}
    elif isinstance(inputs, list | tuple):
        named = {f"input {i}": value for i, value in enumerate(inputs)}
    else:
        named = {"given": inputs}
    if not named:
        raise ArgumentError("inputs must hold at least one array, got none; leave it out for the default ones")
    return named


def _named_spec(shape: tuple[int, ...], dtype: np.dtype) -> TensorSpec:
    """Messages, Laconic's and the stage's own, call a tensor what it is: float32[27]."""
    return TensorSpec(str(TensorSpec("", shape, dtype)), shape, dtype)


def _values(spec: TensorSpec, generator: np.random.Generator) -> dict[str, np.ndarray]:
    size, unit = spec.size, 1.0 if spec.is_float else 8.0
    noise = generator.normal(size=size)
    signs = np.where(np.arange(size) % 2, -1.0, 1.0)
    spike = noise.copy()
    spike[size // 2 : size // 2 + 1] = _SPIKE / unit
    kinds = {
        "normal": noise,
        "spike": spike,
        "alternating": signs,
        "constant": np.full(size, 0.7),
        "zero": 0.0 * signs,  # of both signs: a lossless stage keeps them
    }
    return {kind: _cast(values * unit, spec) for kind, values in kinds.items()}


def _cast(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    if spec.dtype.kind == "u":
        values = np.abs(values)
    return (values if spec.is_float else np.round(values)).astype(spec.dtype).reshape(spec.shape)


def _shifted_and_scaled(values: np.ndarray, index: int) -> np.ndarray:
    """Halved for each client before, so that the sum of all clients' values fits the dtype."""
    shifted = np.roll(values.reshape(-1), index).reshape(values.shape)
    if values.dtype == np.bool_:
        return shifted if index == 0 else np.zeros_like(shifted)
    if values.dtype.kind in "iu":
        return (shifted // 2 ** min(index + 1, 7)).astype(values.dtype)
    return (shifted.astype(np.float64) / 2.0 ** (index + 1)).astype(values.dtype)
