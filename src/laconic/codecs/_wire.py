"""Bytes in, bytes out: the primitives of the wire format. `docs/wire-format.md` is the specification."""

import struct
import zlib
from typing import Any

from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError

MAGIC = b"LAC"
VERSION = 1
DESCRIBED = 0x80
"""Flag beside the version: the payload carries its description."""

FRAMING_BYTES = 8
"""Magic, version and flags, checksum: what every payload costs beside its sections."""

_MAX_VARINT_BYTES = 9  # 63 bits: every length fits a signed 64-bit integer
_MAX_DEPTH = 32


class Reader:
    """Reads from untrusted bytes; every read is checked against what is left."""

    def __init__(self, data: memoryview):
        self._data = data
        self._position = 0

    @property
    def remaining(self) -> int:
        """Bytes not yet read."""
        return len(self._data) - self._position

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._position

    def take(self, count: int, what: str) -> memoryview:
        """The next `count` bytes, a view."""
        if count > self.remaining:
            raise DecodeError(f"the payload is truncated: {what} needs {count} bytes, {self.remaining} are left")
        self._position += count
        return self._data[self._position - count : self._position]

    def finish(self) -> None:
        """Raises unless everything was read."""
        if self.remaining:
            raise DecodeError(f"{self.remaining} bytes follow the payload's last section")

    def varint(self, what: str) -> int:
        """An unsigned LEB128 number of at most 63 bits, in its shortest form."""
        value = 0
        for i in range(_MAX_VARINT_BYTES):
            byte = self.take(1, what)[0]
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                if i and not byte:
                    raise DecodeError(f"{what} is not in its shortest form")
                return value
        raise DecodeError(f"{what} is longer than {_MAX_VARINT_BYTES} bytes")

    def text(self, what: str) -> str:
        """A length and that many bytes of UTF-8."""
        try:
            return str(self.take(self.varint(what), what), "utf-8")
        except UnicodeDecodeError:
            raise DecodeError(f"{what} is not UTF-8") from None

    def constant(self, depth: int = 0) -> Any:
        """A Python constant, as `write_constant` wrote it."""
        tag = self.take(1, "a constant's tag")[0]
        match tag:
            case 0 | 1 | 2:
                return (None, False, True)[tag]
            case 3:
                return self.varint("a constant")
            case 4:
                return -1 - self.varint("a constant")
            case 5:
                return struct.unpack("<d", self.take(8, "a constant"))[0]
            case 6:
                return self.text("a constant")
            case 7 if depth == _MAX_DEPTH:
                raise DecodeError(f"tuples are nested more than {_MAX_DEPTH} deep")
            case 7:
                return tuple(self.constant(depth + 1) for _ in range(self.count("a tuple")))
        raise DecodeError(f"a constant has the unknown tag {tag}")

    def count(self, what: str) -> int:
        """A number of items to come, each of which takes a byte at least."""
        count = self.varint(what)
        if count > self.remaining:
            raise DecodeError(
                f"the payload is truncated: {what} announces {count} items, {self.remaining} bytes are left"
            )
        return count


def varint(value: int) -> bytes:
    """An unsigned number as LEB128: seven bits a byte, lowest first, the top bit set on all but the last."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def text(value: str) -> bytes:
    """UTF-8 after its length."""
    try:
        encoded = value.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(f"{value!r:.60} cannot be written as UTF-8: {error}") from error
    return varint(len(encoded)) + encoded


def write_constant(value: Any, depth: int = 0) -> bytes:
    """A Python constant: a tag byte, then the value.

    Raises:
      ArgumentTypeError: if it is not a constant that the format knows.
    """
    match value:
        case None:
            return b"\x00"
        case bool():
            return b"\x02" if value else b"\x01"
        case int() if -(2**63) <= value < 2**63:
            return b"\x03" + varint(value) if value >= 0 else b"\x04" + varint(-1 - value)
        case float():
            return b"\x05" + struct.pack("<d", value)
        case str():
            return b"\x06" + text(value)
        case tuple() if depth < _MAX_DEPTH:
            return b"\x07" + varint(len(value)) + b"".join(write_constant(item, depth + 1) for item in value)
    raise ArgumentTypeError(
        "what bytes are to say of stages, coders and trees must be None, bool, int (of 64 bits), float, str or a tuple "
        f"of these, got {value!r:.60} of type {type(value).__name__}"
    )


def frame(description: bytes, sections: list[Any], *, described: bool) -> bytes:
    """Puts magic, version, description if wanted, sections and checksum together.

    The description counts in the checksum whether it travels or not: so the checksum of a payload without one also
    proves that both ends agree on it, at no extra byte.
    """
    head = MAGIC + bytes([VERSION | (DESCRIBED if described else 0)])
    counted = varint(len(description)) + description
    total = zlib.crc32(counted, zlib.crc32(head))
    for section in sections:
        total = zlib.crc32(section, total)
    return b"".join((head, counted if described else b"", *sections, struct.pack("<I", total)))


def framing_size(description: bytes, *, described: bool) -> int:
    """Bytes that `frame` adds to the sections."""
    return FRAMING_BYTES + (len(varint(len(description))) + len(description) if described else 0)


def unframe(blob: Any, description: bytes | None) -> tuple[bytes, Reader]:
    """Checks magic, version and checksum; gives the description and a reader over the sections.

    Args:
      blob: any bytes.
      description: what this end knows the payload to be, or None if the payload must say so itself.

    Raises:
      ArgumentTypeError: if `blob` is not bytes.
      DecodeError: if the bytes are not an undamaged payload of that description.
    """
    data = _as_bytes_view(blob)
    if len(data) < FRAMING_BYTES or data[:3] != MAGIC:
        raise DecodeError(
            f"the bytes are not a Laconic payload: it has {FRAMING_BYTES} bytes at least and begins with {MAGIC!r}, "
            f"got {len(data)} bytes that begin with {bytes(data[:3])!r}"
        )
    flags = data[3] & DESCRIBED
    version = data[3] & ~DESCRIBED
    if version != VERSION:
        raise DecodeError(
            f"the payload has format version {version}, but this release reads version {VERSION}; upgrade laconic"
        )
    reader = Reader(data[4:-4])
    carried = bytes(reader.take(reader.varint("the description"), "the description")) if flags else None
    if carried is None and description is None:
        raise DecodeError("the payload carries no description; decode it with the codec and the specs that encoded it")
    known = carried if carried is not None else description
    assert known is not None
    body = reader.take(reader.remaining, "the sections")
    if zlib.crc32(body, zlib.crc32(varint(len(known)) + known, zlib.crc32(data[:4]))) != int.from_bytes(
        data[-4:], "little"
    ):
        hint = "" if flags else ", or made by another codec or for other shapes"
        raise DecodeError(f"the payload's checksum does not match: it is damaged or truncated{hint}")
    if description is not None and known != description:
        raise DecodeError("the payload was made by another codec or for other shapes than those it is decoded with")
    return known, Reader(body)


def _as_bytes_view(blob: Any) -> memoryview:
    try:
        return memoryview(blob).cast("B")
    except TypeError:
        raise ArgumentTypeError(f"a payload must be bytes, got {type(blob).__name__}") from None
