"""Small data sets in every format, the real samples, and a server to download from."""

import http.server
import json
import lzma
import sqlite3
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

SAMPLES = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def cache_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test, so that none sees the user's or another test's."""
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def samples() -> Path:
    """The folder of real handwriting, which is beside the project and not in it."""
    if not SAMPLES.is_dir():
        pytest.skip(f"the real samples are not at {SAMPLES}")
    return SAMPLES


@pytest.fixture(scope="session")
def writers() -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Three small writers by split and id, made up; pixels are 255ths."""
    generator = np.random.default_rng(0)

    def images(count: int) -> dict[str, np.ndarray]:
        pixels = generator.integers(0, 256, (count, 28, 28)).astype(np.float32) / np.float32(255)
        return {"x": pixels, "y": generator.integers(0, 10, count).astype(np.int32)}

    return {
        "train": {"a": images(5), "b": images(1), "c": images(12)},
        "test": {"a": images(2), "b": images(1), "c": images(3)},
    }


@pytest.fixture
def files(writers, tmp_path) -> dict[str, Path]:
    """The three writers in each format, by the format's name."""
    folder = tmp_path / "files"
    folder.mkdir()
    tff = _write_tff(folder / "tff.sqlite", writers)
    archive = folder / "tff.sqlite.lzma"
    archive.write_bytes(lzma.compress(tff.read_bytes()))
    return {
        "tff": tff,
        "tff archive": archive,
        "fedjax": _write_fedjax(folder / "fedjax.sqlite", writers["train"]),
        "leaf": _write_leaf(folder / "leaf.json", writers["train"]),
        "npz": _write_npz(folder / "digits.npz", writers),
    }


def _write_tff(path: Path, writers) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE examples (split_name TEXT, client_id TEXT, serialized_example_proto BLOB)")
        connection.execute("CREATE TABLE client_metadata (client_id TEXT, split_name TEXT, num_examples INTEGER)")
        for part, clients in writers.items():
            split = f"digits_only_{part}"
            for client_id, examples in clients.items():
                metadata = (client_id, split, len(examples["y"]))
                connection.execute("INSERT INTO client_metadata VALUES (?, ?, ?)", metadata)
                blobs = [_example_proto(x, y) for x, y in zip(examples["x"], examples["y"], strict=True)]
                rows = [(split, client_id, blob) for blob in blobs]
                connection.executemany("INSERT INTO examples VALUES (?, ?, ?)", rows)
    return path


def _example_proto(x: np.ndarray, y: int) -> bytes:
    def field(number: int, content: bytes) -> bytes:
        length = len(content)
        encoded = bytearray()
        while length >= 0x80:
            encoded.append(length & 0x7F | 0x80)
            length >>= 7
        return bytes([number << 3 | 2, *encoded, length]) + content

    pixels = field(2, field(1, x.astype("<f4").tobytes()))
    label = field(3, field(1, bytes([y])))
    entries = [field(1, field(1, b"pixels") + field(2, pixels)), field(1, field(1, b"label") + field(2, label))]
    return field(1, b"".join(entries))


def _write_fedjax(path: Path, clients) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TABLE federated_data (client_id BLOB NOT NULL PRIMARY KEY, data BLOB NOT NULL, "
            "num_examples INTEGER NOT NULL)"
        )
        for client_id, examples in clients.items():
            fields = (_msgpack_array("pixels", examples["x"]), _msgpack_array("label", examples["y"]))
            data = zlib.compress(b"\x82" + b"".join(fields))
            row = (client_id.encode(), data, len(examples["y"]))
            connection.execute("INSERT INTO federated_data VALUES (?, ?, ?)", row)
    return path


def _msgpack_array(name: str, array: np.ndarray) -> bytes:
    def text(value: str) -> bytes:
        return bytes([0xA0 | len(value)]) + value.encode()

    shape = bytes([0x90 | array.ndim, *array.shape])
    content = b"\xc6" + struct.pack(">I", array.nbytes) + array.tobytes()
    data = b"\x93" + shape + text(array.dtype.name) + content
    return text(name) + b"\xc9" + struct.pack(">IB", len(data), 1) + data


def _write_leaf(path: Path, clients) -> Path:
    user_data = {i: {"x": e["x"].reshape(-1, 784).tolist(), "y": e["y"].tolist()} for i, e in clients.items()}
    content = {"users": list(clients), "num_samples": [len(e["y"]) for e in clients.values()], "user_data": user_data}
    path.write_text(json.dumps(content))
    return path


def _write_npz(path: Path, writers) -> Path:
    parts = [(i, part, e) for part, clients in writers.items() for i, e in clients.items()]
    ids = sorted(writers["train"])
    np.savez_compressed(
        path,
        pixels=np.concatenate([np.round(e["x"] * 255).astype(np.uint8) for _, _, e in parts]),
        label=np.concatenate([e["y"].astype(np.uint8) for _, _, e in parts]),
        client=np.concatenate([np.full(len(e["y"]), ids.index(i), np.int32) for i, _, e in parts]),
        is_test=np.concatenate([np.full(len(e["y"]), part == "test") for _, part, e in parts]),
        client_ids=np.array(ids),
    )
    return path


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`, as well or badly as its attributes say.

    Attributes:
      content: the file.
      version: its ETag.
      honours_range: whether it sends only what is asked for.
      breaks_after: for each coming response, after how many bytes the connection ends; None or nothing: not early.
      ranges: the Range header of each request so far.
    """

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.version: str | None = '"one"'
        self.honours_range = True
        self.breaks_after: list[int | None] = []
        self.ranges: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/emnist_all.sqlite.lzma"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.ranges.append(wanted)
        total = len(server.content)
        is_same = self.headers.get("If-Range") in (None, server.version)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.honours_range and is_same else None
        body = server.content[start or 0 :]
        if start is not None and start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            body = b""
        elif start is not None:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if server.version:
            self.send_header("ETag", server.version)
        self.end_headers()
        self.wfile.write(body[: server.breaks_after.pop(0) if server.breaks_after else None])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(files, monkeypatch) -> Iterator[Server]:
    """A server on this machine that has the archive of the three writers."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(files["tff archive"].read_bytes()) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()
