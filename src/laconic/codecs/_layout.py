"""Where each tensor's bytes lie in a payload."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from laconic.codecs import _wire
from laconic.codecs._coders import Raw
from laconic.codecs._recursion import Section
from laconic.codecs._specs import TensorSpec, spec_of
from laconic.errors import ArgumentError, DecodeError


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
class Payload:
    """Bytes that travel, and what they are made of.

    The sections are coded when a payload is made; they are put together only when `blob` is asked for. A codec in the
    same process may decode the payload itself, which spares a simulation two copies and two checksums of every update.

    Attributes:
      sections: each coded section and the length field before it, empty where there is none.
      tensors: each tensor's share; what is left of `len(payload)` is framing and description.
      description: of the layout.
      described: whether the description travels.
    """

    sections: tuple[tuple[bytes, memoryview], ...]
    tensors: tuple[TensorSize, ...]
    description: bytes
    described: bool

    @functools.cached_property
    def blob(self) -> bytes:
        """The bytes as they travel."""
        parts = [part for section in self.sections for part in section]
        return _wire.frame(self.description, parts, described=self.described)

    def __len__(self) -> int:
        """The length of `blob`."""
        return self.framing + sum(tensor.payload + tensor.side_information for tensor in self.tensors)

    @property
    def framing(self) -> int:
        """Bytes that belong to no tensor."""
        return _wire.framing_size(self.description, described=self.described)


class Layout:
    """Puts coded sections together and takes them apart.

    A tensor's sections are those of its codec, then the raw arrays that go with it (parameters or reports). A section
    whose length the specs fix has no length field; another has one before it.

    Args:
      names: each tensor's name.
      sections: each tensor's sections.
      extras: for each tensor the specs of the arrays that go with it.
      description: what a payload may carry to say all this.
    """

    def __init__(
        self,
        names: Sequence[str],
        sections: Sequence[Sequence[Section]],
        extras: Sequence[Sequence[TensorSpec]],
        description: bytes,
    ):
        self._names = tuple(names)
        self._coded = [len(own) for own in sections]
        self._sections = [
            [*own, *(Section(Raw(), spec, is_side_information=True) for spec in extra)]
            for own, extra in zip(sections, extras, strict=True)
        ]
        self._description = description

    def static_size(self, *, described: bool) -> int | None:
        """Bytes of every payload of this layout, or None where they depend on the values."""
        total = _wire.framing_size(self._description, described=described)
        for section in self._all_sections():
            size = section.coder.size(section.spec)
            if size is None:
                return None
            total += size
        return total

    def pack(self, arrays: Sequence[Sequence[Any]], extras: Sequence[Sequence[Any]], *, described: bool) -> Payload:
        """The payload of each tensor's coded arrays and extras.

        Raises:
          ArgumentError: if an array's shape or dtype is another than when the codec was bound, or a value is outside
            its coder's alphabet.
        """
        coded_sections: list[tuple[bytes, memoryview]] = []
        sizes = []
        for name, sections, own, extra in zip(self._names, self._sections, arrays, extras, strict=True):
            payload = side_information = tensor_bits = 0
            for section, array in zip(sections, (*own, *extra), strict=True):
                coded = memoryview(section.coder.encode(_checked(array, section)))
                length = _wire.varint(len(coded)) if section.coder.size(section.spec) is None else b""
                coded_sections.append((length, coded))
                side_information += len(length)
                if section.is_side_information:
                    side_information += len(coded)
                else:
                    payload += len(coded)
                tensor_bits += section.coder.tensor_bits(section.spec, len(coded))
            sizes.append(TensorSize(name, payload, side_information, tensor_bits))
        return Payload(tuple(coded_sections), tuple(sizes), self._description, described)

    def unpack(self, payload: Any) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
        """Each tensor's coded arrays and extras, from bytes or from a `Payload`.

        Raises:
          DecodeError: if it is not a payload of this layout.
        """
        if not isinstance(payload, Payload):
            _, reader = _wire.unframe(payload, self._description)
            return self.read(reader)
        if payload.description != self._description:
            raise DecodeError("the payload was made by another codec or for other shapes than those it is decoded with")
        return self._decoded(coded for _, coded in payload.sections)

    def read(self, reader: _wire.Reader) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
        """Like `unpack`, from the sections alone."""
        arrays = self._decoded(_taken(reader, section) for section in self._all_sections())
        reader.finish()
        return arrays

    def _decoded(self, coded: Iterator[memoryview]) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
        arrays, extras = [], []
        for sections, count in zip(self._sections, self._coded, strict=True):
            own = [_decoded_section(next(coded), section) for section in sections]
            arrays.append(own[:count])
            extras.append(own[count:])
        return arrays, extras

    def _all_sections(self) -> list[Section]:
        return [section for sections in self._sections for section in sections]


def _checked(array: Any, section: Section) -> np.ndarray:
    found = spec_of(array, section.spec.name)
    if found != section.spec:
        raise ArgumentError(
            f"{section.spec.name or 'the array'} was {section.spec} when the codec was bound, and is now {found}; "
            "parameters, reports and outputs keep shape and dtype from round to round"
        )
    return np.asarray(array)


def _taken(reader: _wire.Reader, section: Section) -> memoryview:
    size = section.coder.size(section.spec)
    what = f"a section of {section.spec.name or 'the array'}"
    return reader.take(reader.varint(what) if size is None else size, what)


def _decoded_section(coded: memoryview, section: Section) -> np.ndarray:
    spec = section.spec
    array = section.coder.decode(coded, spec)
    if array.shape != spec.shape or array.dtype != spec.dtype:
        raise DecodeError(
            f"coder {section.coder.name!r} must decode {spec.name or 'the array'} to {spec}, got {spec_of(array)}"
        )
    return array
