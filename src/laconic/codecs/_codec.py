"""Stages and coders composed into a codec: a tree with a stage at each node and a coder at each leaf."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from laconic.codecs import _wire
from laconic.codecs._merging import Merge
from laconic.codecs._registry import check_name
from laconic.codecs._stage import Stage
from laconic.codecs.coders._coder import Coder, Raw
from laconic.errors import ArgumentError, ArgumentTypeError

MAX_DEPTH = 64
"""Stages on a path from a codec's root to a coder, and nodes on one from a tree's root to a leaf."""


@dataclasses.dataclass(frozen=True, eq=False)
class Codec:
    """A stage, and for each of its outputs the codec or coder that encodes it further; made by `chain` and `branch`.

    Attributes:
      stage: what is done to the array first.
      children: for each of the stage's outputs, in their order, its name and what encodes it.
    """

    stage: Stage
    children: tuple[tuple[str, "Codec | Coder"], ...]
    description: bytes = dataclasses.field(init=False, repr=False)
    """The codec as the wire format describes it."""

    def __post_init__(self) -> None:
        if self.depth > MAX_DEPTH:
            raise ArgumentError(f"a codec may have at most {MAX_DEPTH} stages one after another, got {self.depth}")
        parts = [describe(self.stage), _wire.varint(len(self.children))]
        for name, child in self.children:
            parts += [_wire.text(name), child.description if isinstance(child, Codec) else describe(child)]
        object.__setattr__(self, "description", b"".join(parts))

    # Fields' own equality would not do: 1 == 1.0 == True, which are different bytes and may compute differently.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Codec) and (self.description, self._classes) == (other.description, other._classes)

    def __hash__(self) -> int:
        return hash(self.description)

    @property
    def _classes(self) -> tuple[type, ...]:
        below = (child._classes if isinstance(child, Codec) else (type(child),) for _, child in self.children)
        return (type(self.stage), *(each for classes in below for each in classes))

    @property
    def depth(self) -> int:
        """Number of stages from here to the furthest coder."""
        return 1 + max((child.depth for _, child in self.children if isinstance(child, Codec)), default=0)

    @property
    def stages(self) -> Iterator[Stage]:
        """All stages, outermost first."""
        yield self.stage
        for _, child in self.children:
            if isinstance(child, Codec):
                yield from child.stages

    @property
    def commutes_with_sum(self) -> bool:
        """Whether every stage commutes, so that a sum of encodings stays encoded down to the coders."""
        return all(stage.commutes_with_sum for stage in self.stages)

    @property
    def is_lossless(self) -> bool:
        """Whether decoding gives back the input, bit for bit."""
        return all(stage.is_lossless for stage in self.stages)

    @property
    def is_unbiased(self) -> bool:
        """Whether the decoded array's expectation is the input.

        A lossy stage may only lie below stages that decode linearly.
        """
        below_unbiased = all(child.is_unbiased for _, child in self.children if isinstance(child, Codec))
        below_lossless = all(child.is_lossless for _, child in self.children if isinstance(child, Codec))
        return self.stage.is_unbiased and below_unbiased and (below_lossless or self.stage.is_linear)

    @property
    def is_stochastic(self) -> bool:
        """Whether encoding needs a seed."""
        return any(stage.is_stochastic for stage in self.stages)

    @property
    def is_adaptive(self) -> bool:
        """Whether any stage has state at the server, reports to it or is told parameters by it."""
        return any(stage.is_adaptive for stage in self.stages)

    @property
    def needs_client_state(self) -> bool:
        """Whether the encoding side must keep a memory of its own from one encoding to the next."""
        return any(stage.needs_client_state for stage in self.stages)

    @property
    def has_receiver_memory(self) -> bool:
        """Whether a decoded sum depends on earlier sums, so that there must be one receiver."""
        return any(stage.has_receiver_memory for stage in self.stages)

    @property
    def is_searched(self) -> bool:
        """Whether a stage promises a rate, for which encoding tries several steps."""
        return self.target_bits_per_parameter is not None

    @property
    def target_bits_per_parameter(self) -> float | None:
        """The promised rate, all bytes counted, or None."""
        targets = [stage.target_bits_per_parameter for stage in self.stages]
        return max((target for target in targets if target is not None), default=None)

    @property
    def shares_randomness(self) -> bool:
        """Whether decoding draws from the encoding's key too, so that the key travels: 8 bytes a payload."""
        return any(stage.regenerated for stage in self.stages)

    def expected_nmse(self, size: int) -> float | None:
        """E|decoded - x|^2 / |x|^2 for a vector of `size` independent Gaussian entries, or None if theory has none."""
        lossy = [stage for stage in self.stages if not stage.is_lossless]
        if not lossy:
            return 0.0
        # An orthonormal transform leaves Gaussian vectors Gaussian, and errors as large as they are.
        *outer, last = lossy
        return last.expected_nmse(size) if all(stage.expected_nmse(size) == 0 for stage in outer) else None

    def __str__(self) -> str:
        below = [
            str(child) if isinstance(child, Codec) else _short(child)
            for _, child in self.children
            if not isinstance(child, Raw)
        ]
        return " > ".join([_short(self.stage), ", ".join(below)] if below else [_short(self.stage)])


def chain(*parts: Stage | Codec | Coder) -> Codec:
    """A pipeline: each stage's one compressible output goes to the next part; other outputs travel raw.

    Args:
      *parts: stages, then at the end optionally a codec or a coder (`Raw()` if left out).

    Raises:
      ArgumentError: if there is no stage, or a stage that is not last has several compressible outputs (use `branch`).
      ArgumentTypeError: if a part is neither stage, codec nor coder, or a coder or codec is not the last.
    """
    if not parts:
        raise ArgumentError("chain needs at least one stage, got none")
    *stages, last = parts
    if isinstance(last, Stage):
        stages, last = [*stages, last], Raw()
    if not isinstance(last, (Codec, Coder)):
        raise ArgumentTypeError(f"chain takes stages, codecs and coders, got {last!r} of type {type(last).__name__}")
    codec: Codec | Coder = last
    for stage in reversed(stages):
        if not isinstance(stage, Stage):
            raise ArgumentTypeError(
                f"each part of a chain but the last must be a stage, got {stage!r} of type {type(stage).__name__}"
            )
        if len(stage.compressible) == 1:
            codec = branch(stage, **{stage.compressible[0]: codec})
        elif isinstance(codec, Raw):
            codec = branch(stage)
        else:
            raise ArgumentError(
                f"stage {stage.name!r} has {len(stage.compressible)} compressible outputs {stage.compressible}, so a "
                "chain cannot tell which to go on with; use codecs.branch(stage, output=codec, ...)"
            )
    if not isinstance(codec, Codec):
        raise ArgumentError(f"chain needs at least one stage before the coder {codec!r}; use codecs.Identity()")
    return codec


def branch(stage: Stage, **children: Stage | Codec | Coder) -> Codec:
    """A stage with a codec for each named output; outputs that are not named travel raw.

    Raises:
      ArgumentError: if a name is not one of the stage's compressible outputs, or the stage's declarations are wrong.
      ArgumentTypeError: if the stage is not a stage, or a child is neither stage, codec nor coder.
    """
    if not isinstance(stage, Stage):
        raise ArgumentTypeError(f"stage must be a Stage, got {stage!r} of type {type(stage).__name__}")
    _check_declarations(stage)
    unknown = set(children) - set(stage.compressible)
    if unknown:
        raise ArgumentError(
            f"stage {stage.name!r} has the compressible outputs {stage.compressible}, got a codec for {sorted(unknown)}"
        )
    for name, child in children.items():
        if not isinstance(child, (Stage, Codec, Coder)):
            raise ArgumentTypeError(
                f"{name} must be a stage, codec or coder, got {child!r} of type {type(child).__name__}"
            )
    made = {name: chain(child) if isinstance(child, Stage) else child for name, child in children.items()}
    return Codec(stage, tuple((name, made.get(name, Raw())) for name in stage.outputs))


def describe(component: Stage | Coder) -> bytes:
    """A stage or coder as the wire format describes it: its name, and its fields with their values.

    Raises:
      ArgumentError: if the class has another class's name.
      ArgumentTypeError: if it is not a frozen dataclass of constants with a name.
    """
    kind = type(component)
    check_name(kind)
    parameters = getattr(kind, "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        raise ArgumentTypeError(
            f"{kind.__qualname__} must be a frozen dataclass; use @dataclasses.dataclass(frozen=True)"
        )
    names = field_names(kind)
    parts = [_wire.text(component.name), _wire.varint(len(names))]
    for name in names:
        try:
            parts += [_wire.text(name), _wire.write_constant(getattr(component, name))]
        except ArgumentTypeError as error:
            error.add_note(f"field {name!r} of {component!r:.60}")
            raise
    return b"".join(parts)


def field_names(kind: type[Any]) -> tuple[str, ...]:
    """Names of a stage's or coder's constants, in order."""
    return tuple(field.name for field in dataclasses.fields(kind))


def _short(component: Stage | Coder) -> str:
    """The component with the fields that are not at their defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(type(component))}  # type: ignore[arg-type]
    shown = [
        f"{name}={getattr(component, name)!r}"
        for name, default in defaults.items()
        if getattr(component, name) != default
    ]
    return f"{type(component).__name__}({', '.join(shown)})"


def _check_declarations(stage: Stage) -> None:
    kind = type(stage).__qualname__
    for attribute in ("outputs", "compressible"):
        names = getattr(stage, attribute)
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise ArgumentTypeError(f"{kind}.{attribute} must be a tuple of names, got {names!r}")
    if len(set(stage.outputs)) < len(stage.outputs):
        raise ArgumentError(f"{kind}.outputs must be different names, got {stage.outputs}")
    if not set(stage.compressible) <= set(stage.outputs):
        raise ArgumentError(
            f"{kind}.compressible must name some of its outputs {stage.outputs}, got {stage.compressible}"
        )
    merges = stage.merges
    if not isinstance(merges, Mapping) or not all(isinstance(merge, Merge) for merge in merges.values()):
        raise ArgumentTypeError(f"{kind}.merges must give a codecs.Merge for each report, got {merges!r}")
