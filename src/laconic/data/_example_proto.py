"""Reads serialized `tf.train.Example` messages without TensorFlow.

    message Example   { Features features = 1; }
    message Features  { map<string, Feature> feature = 1; }    // a map is a repeated entry { key = 1; value = 2; }
    message Feature   { oneof kind { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3; } }
    message BytesList { repeated bytes value = 1; }
    message FloatList { repeated float value = 1 [packed = true]; }
    message Int64List { repeated int64 value = 1 [packed = true]; }

As the encoding demands (https://protobuf.dev/programming-guides/encoding/), a reader takes packed and unpacked numbers,
skips fields it does not know, and lets the last of several map entries or members of a oneof win.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from laconic.errors import DataError

Feature: TypeAlias = np.ndarray | list[bytes]
"""float32 [n], int64 [n], or n byte strings."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_LENGTHS = {_FIXED64: 8, _FIXED32: 4}
_LONGEST_VARINT = 10


def parse_example(message: bytes) -> dict[str, Feature]:
    """The features of a `tf.train.Example`, by name.

    Raises:
      DataError: the bytes are not such a message.
    """
    features: dict[str, Feature] = {}
    for feature_map in _submessages(message, 1):
        for entry in _submessages(feature_map, 1):
            name, feature = _map_entry(entry)
            features[name] = feature
    return features


def _map_entry(entry: bytes) -> tuple[str, Feature]:
    name, feature = b"", b""
    for number, wire_type, value in _fields(entry):
        if wire_type == _BYTES and number == 1:
            name = value
        elif wire_type == _BYTES and number == 2:
            feature = value
    try:
        return name.decode(), _feature(feature)
    except UnicodeDecodeError as error:
        raise DataError(f"a feature's name is not UTF-8: {name!r}") from error


def _feature(message: bytes) -> Feature:
    feature: Feature = []
    for number, wire_type, value in _fields(message):
        if wire_type == _BYTES and number in _LISTS:
            feature = _LISTS[number](value)
    return feature


def _bytes_list(message: bytes) -> list[bytes]:
    return list(_submessages(message, 1))


def _float_list(message: bytes) -> np.ndarray:
    data = b"".join(value for number, wire_type, value in _fields(message) if _is_value(number, wire_type, _FIXED32))
    if len(data) % 4:
        raise DataError(f"a list of floats must be a multiple of 4 bytes long, got {len(data)} bytes")
    return np.frombuffer(data, "<f4")


def _int64_list(message: bytes) -> np.ndarray:
    data = b"".join(value for number, wire_type, value in _fields(message) if _is_value(number, wire_type, _VARINT))
    values, position = [], 0
    while position < len(data):
        value, position = _varint(data, position)
        values.append(value)
    return np.array(values, np.uint64).view(np.int64)  # two's complement


_LISTS: dict[int, Callable[[bytes], Feature]] = {1: _bytes_list, 2: _float_list, 3: _int64_list}


def _is_value(number: int, wire_type: int, unpacked: int) -> bool:
    return number == 1 and wire_type in (_BYTES, unpacked)


def _submessages(message: bytes, wanted: int) -> Iterator[bytes]:
    return (value for number, wire_type, value in _fields(message) if number == wanted and wire_type == _BYTES)


def _fields(message: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Each field's number, wire type and bytes; a varint's bytes are its encoding."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        start, end = _extent(message, position, wire_type)
        if number == 0 or end > len(message):
            raise DataError(f"field {number} ends at byte {end} of a message of {len(message)} bytes")
        yield number, wire_type, message[start:end]
        position = end


def _extent(message: bytes, position: int, wire_type: int) -> tuple[int, int]:
    """Where a field's value begins and ends."""
    if wire_type == _BYTES:
        length, start = _varint(message, position)
        return start, start + length
    if wire_type == _VARINT:
        return position, _varint(message, position)[1]
    if wire_type in _FIXED_LENGTHS:
        return position, position + _FIXED_LENGTHS[wire_type]
    raise DataError(f"wire type {wire_type} at byte {position} is not one that tf.train.Example uses")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The unsigned 64-bit number at a position, and the position after it."""
    value = 0
    for index, byte in enumerate(data[position : position + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position + index + 1
    raise DataError(f"the number at byte {position} has no end")
