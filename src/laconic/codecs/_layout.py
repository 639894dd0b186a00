"""Where each tensor's bytes lie in a payload."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from laconic.codecs import _wire
from laconic.codecs._recursion import Section
from laconic.codecs._specs import TensorSpec, spec_of
from laconic.codecs.coders._coder import Raw
from laconic.codecs.random import Key
from laconic.errors import ArgumentError, DecodeError

_KEY_BYTES = 8


@dataclasses.dataclass(frozen=True)
class TensorSize:
    """What one tensor takes in a payload.

    Attributes:
      name: the tensor's path in the tree.
      payload: bytes of its compressed values.
      side_information: bytes of ranges, tables, parameters, reports and lengths.
      tensor_bits: the same as TFF counts it, elements x dtype bits.
    """

    name: str
    payload: int
    side_information: int
    tensor_bits: int


@dataclasses.dataclass(frozen=True)
class SectionSize:
    """What one section takes in a payload.

    Attributes:
      name: what is coded: the tensor's path, and the path of outputs within its codec.
      coder: the coder's name on the wire.
      elements: number of elements coded.
      nbytes: bytes of the section and of its length field.
      is_side_information: whether it is a range, a scale, a parameter, a report or the like.
    """

    name: str
    coder: str
    elements: int
    nbytes: int
    is_side_information: bool


@dataclasses.dataclass(frozen=True)
class Payload:
    """Bytes that travel, and what they are made of.

    The sections are coded when a payload is made; they are put together only when `blob` is asked for. A codec in the
    same process may decode the payload itself, which spares a simulation two copies and two checksums of every update.

    Attributes:
      sections: each coded section and the length field before it, empty where there is none.
      tensors: what each tensor takes, or tensors that are concatenated take together; what is left of `len(payload)`
        is framing and description.
      description: of the layout.
      described: whether the description travels.
      key: the key that the receiver needs, empty if it needs none.
      unpacked: what the sections hold. Coders are lossless, so a receiver in the same process need not decode them.
    """

    sections: tuple[tuple[bytes, memoryview], ...]
    tensors: tuple[TensorSize, ...]
    description: bytes
    described: bool
    key: bytes
    unpacked: "Unpacked" = dataclasses.field(repr=False, compare=False)

    @functools.cached_property
    def blob(self) -> bytes:
        """The bytes as they travel."""
        parts = [self.key, *(part for section in self.sections for part in section)]
        return _wire.frame(self.description, parts, described=self.described)

    def __len__(self) -> int:
        """The length of `blob`."""
        return self.framing + sum(self.unit_sizes)

    @property
    def framing(self) -> int:
        """Bytes that belong to no tensor."""
        return len(self.key) + _wire.framing_size(self.description, described=self.described)

    @property
    def unit_sizes(self) -> list[int]:
        """Bytes of each of `tensors`."""
        return [tensor.payload + tensor.side_information for tensor in self.tensors]


class Unpacked(NamedTuple):
    """What is read from a payload.

    Attributes:
      arrays: for each unit, what its coders decoded.
      extras: for each unit, its parameters or reports.
      key: that the payload was encoded with, if it travels.
      unit_sizes: bytes that each unit took.
    """

    arrays: list[list[np.ndarray]]
    extras: list[list[np.ndarray]]
    key: Key | None
    unit_sizes: list[int]


class Layout:
    """Puts coded sections together and takes them apart.

    First comes the key, if stages regenerate what they drew. A unit's sections are those of its codec, then the raw
    arrays that go with it (parameters or reports). A section whose length the specs fix has no length field; another
    has one before it.

    Args:
      names: each unit's name.
      sections: each unit's sections.
      extras: for each unit the specs of the arrays that go with it.
      description: what a payload may carry to say all this.
      has_key: whether the key travels.
      contexts: from a key to each unit's sections' contexts; None if no section has any.
    """

    def __init__(
        self,
        names: Sequence[str],
        sections: Sequence[Sequence[Section]],
        extras: Sequence[Sequence[TensorSpec]],
        description: bytes,
        *,
        has_key: bool,
        contexts: Callable[[Key], Any] | None,
    ):
        self._names = tuple(names)
        self._coded = [len(own) for own in sections]
        self._sections = [
            [*own, *(Section(Raw(), spec, is_side_information=True) for spec in extra)]
            for own, extra in zip(sections, extras, strict=True)
        ]
        self._description = description
        self._has_key = has_key
        self._contexts = contexts

    def static_size(self, *, described: bool) -> int | None:
        """Bytes of every payload of this layout, or None where they depend on the values."""
        total = _wire.framing_size(self._description, described=described) + self._key_bytes
        for section in self._all_sections():
            size = section.coder.size(section.spec)
            if size is None:
                return None
            total += size
        return total

    def pack(
        self,
        arrays: Sequence[Sequence[Any]],
        contexts: Sequence[Sequence[Any]],
        extras: Sequence[Sequence[Any]],
        key: Key,
        *,
        described: bool,
    ) -> Payload:
        """The payload of each unit's coded arrays and extras.

        Raises:
          ArgumentError: if an array's shape or dtype is another than when the codec was bound, or a value is outside
            its coder's alphabet.
        """
        coded_sections: list[tuple[bytes, memoryview]] = []
        sizes, held = [], []
        for name, sections, own, its_contexts, extra in zip(
            self._names, self._sections, arrays, contexts, extras, strict=True
        ):
            payload = side_information = tensor_bits = 0
            contexts_of_all = (*its_contexts, *(None for _ in extra))
            held.append([_checked(array, section) for section, array in zip(sections, (*own, *extra), strict=True)])
            for section, array, context in zip(sections, held[-1], contexts_of_all, strict=True):
                coded = memoryview(_encoded(section, array, context))
                length = _wire.varint(len(coded)) if section.coder.size(section.spec) is None else b""
                coded_sections.append((length, coded))
                side_information += len(length)
                if section.is_side_information:
                    side_information += len(coded)
                else:
                    payload += len(coded)
                tensor_bits += section.coder.tensor_bits(section.spec, len(coded))
            sizes.append(TensorSize(name, payload, side_information, tensor_bits))
        key_bytes = np.asarray(key).astype("<u4").tobytes() if self._has_key else b""
        unpacked = Unpacked(
            [each[:count] for each, count in zip(held, self._coded, strict=True)],
            [each[count:] for each, count in zip(held, self._coded, strict=True)],
            _read_key(key_bytes) if self._has_key else None,
            [each.payload + each.side_information for each in sizes],
        )
        return Payload(tuple(coded_sections), tuple(sizes), self._description, described, key_bytes, unpacked)

    def unpack(self, payload: Any) -> Unpacked:
        """What a payload holds, from its bytes or from a `Payload`.

        Raises:
          DecodeError: if it is not a payload of this layout.
        """
        if not isinstance(payload, Payload):
            _, reader = _wire.unframe(payload, self._description)
            return self.read(reader)
        if payload.description != self._description:
            raise DecodeError("the payload was made by another codec or for other shapes than those it is decoded with")
        return payload.unpacked

    def read(self, reader: _wire.Reader) -> Unpacked:
        """Like `unpack`, from the sections alone."""
        key = self._take_key(reader)
        unpacked = self._decoded(key, (_taken(reader, section) for section in self._all_sections()))
        reader.finish()
        return unpacked

    def section_sizes(self, reader: _wire.Reader) -> list[SectionSize]:
        """What each section takes, without decoding it."""
        self._take_key(reader)
        sizes = []
        for section in self._all_sections():
            length, coded = _taken(reader, section)
            spec, coder = section.spec, section.coder.name
            nbytes = len(length) + len(coded)
            sizes.append(SectionSize(spec.name, coder, spec.size, nbytes, section.is_side_information))
        reader.finish()
        return sizes

    @property
    def _key_bytes(self) -> int:
        return _KEY_BYTES if self._has_key else 0

    def _take_key(self, reader: _wire.Reader) -> Key | None:
        return _read_key(reader.take(_KEY_BYTES, "the key")) if self._has_key else None

    def _decoded(self, key: Key | None, coded: Iterator[tuple[Any, memoryview]]) -> Unpacked:
        taken = [list(itertools.islice(coded, len(sections))) for sections in self._sections]
        contexts: Sequence[Sequence[Any]] = [[None] * count for count in self._coded]
        if self._contexts is not None:
            assert key is not None, "contexts are regenerated, so the key travels"
            contexts = self._contexts(key)
        arrays, extras, sizes = [], [], []
        for sections, own, its_contexts in zip(self._sections, taken, contexts, strict=True):
            count = len(its_contexts)
            all_contexts = [*its_contexts, *(None for _ in sections[count:])]
            decoded = [
                _decoded_section(data, section, context)
                for (_, data), section, context in zip(own, sections, all_contexts, strict=True)
            ]
            arrays.append(decoded[:count])
            extras.append(decoded[count:])
            sizes.append(sum(len(length) + len(data) for length, data in own))
        return Unpacked(arrays, extras, key, sizes)

    def _all_sections(self) -> list[Section]:
        return [section for sections in self._sections for section in sections]


def _read_key(data: Any) -> Key:
    return np.frombuffer(data, "<u4").astype(np.uint32)


def _checked(array: Any, section: Section) -> np.ndarray:
    if not section.spec.is_of(array) and (found := spec_of(array, section.spec.name)) != section.spec:
        raise ArgumentError(
            f"{section.spec.name or 'the array'} was {section.spec} when the codec was bound, and is now {found}; "
            "parameters, reports and outputs keep shape and dtype from round to round"
        )
    return np.asarray(array)


def _encoded(section: Section, array: np.ndarray, contexts: Any) -> Any:
    if not section.coder.uses_contexts:
        return section.coder.encode(array)
    return section.coder.encode(array, None if contexts is None else np.asarray(contexts))


def _taken(reader: _wire.Reader, section: Section) -> tuple[bytes, memoryview]:
    """A section's length field, empty if it has none, and the section."""
    size = section.coder.size(section.spec)
    what = f"a section of {section.spec.name or 'the array'}"
    if size is not None:
        return b"", reader.take(size, what)
    size = reader.varint(what)
    return _wire.varint(size), reader.take(size, what)


def _decoded_section(coded: memoryview, section: Section, contexts: Any) -> np.ndarray:
    spec, coder = section.spec, section.coder
    if coder.uses_contexts:
        array = coder.decode(coded, spec, None if contexts is None else np.asarray(contexts))
    else:
        array = coder.decode(coded, spec)
    if array.shape != spec.shape or array.dtype != spec.dtype:
        raise DecodeError(
            f"coder {coder.name!r} must decode {spec.name or 'the array'} to {spec}, got {spec_of(array)}"
        )
    return array
