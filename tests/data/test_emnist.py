"""Federated EMNIST: downloads that survive what networks do."""

import threading

import numpy as np
import pytest

from laconic import data
from laconic.data import _cache, _download, _progress, emnist
from laconic.errors import ArgumentError, DataError, NotAvailableError


@pytest.fixture(autouse=True)
def local_server(server, monkeypatch):
    """The archive comes from this machine, and in small pieces."""
    monkeypatch.setattr(emnist, "URL", server.url)
    monkeypatch.setattr(_download, "_CHUNK", 1_000)


def leftovers(cache_directory):
    """The files in the cache that are neither the archive, the data nor a lock."""
    return sorted(path.name for path in cache_directory.iterdir() if path.suffix not in {".lzma", ".sqlite", ".lock"})


def test_download(server, writers, cache_directory):
    """The first call downloads and decompresses; the next needs no network."""
    train, test = data.emnist.load()
    for client_id, examples in writers["train"].items():
        np.testing.assert_array_equal(train[client_id]["x"], examples["x"])
    assert [test.num_examples(i) for i in test] == [2, 1, 3]
    assert leftovers(cache_directory) == []
    data.emnist.load(only_digits=True)
    assert len(server.ranges) == 1


def test_interrupted_downloads_go_on(server, cache_directory):
    """As long as something arrives, the rest is fetched at once, from where it stopped."""
    server.breaks_after = [5_000, 3_000]
    assert len(data.emnist.load()[0]) == 3
    assert server.ranges == [None, "bytes=5000-", "bytes=8000-"]
    assert leftovers(cache_directory) == []


def test_broken_downloads_go_on_at_the_next_call(server, cache_directory):
    """When nothing more arrives, the error says what is kept, and the next call needs only the rest."""
    server.breaks_after = [5_000, 0]
    with pytest.raises(NotAvailableError, match=r"cannot be downloaded: .*; 5000 bytes are kept, and the next call"):
        data.emnist.load()
    assert leftovers(cache_directory) == ["emnist_all.sqlite.lzma.part", "emnist_all.sqlite.lzma.part.version"]
    assert len(data.emnist.load()[0]) == 3
    assert server.ranges == [None, "bytes=5000-", "bytes=5000-"]


def test_servers_that_ignore_ranges(server):
    """Everything is fetched again, and not appended."""
    server.breaks_after, server.honours_range = [5_000], False
    assert len(data.emnist.load()[0]) == 3
    assert server.ranges == [None, "bytes=5000-"]


def test_files_that_change_on_the_server(server):
    """The parts of two versions are never put together."""
    server.breaks_after = [5_000, 0]
    with pytest.raises(NotAvailableError):
        data.emnist.load()
    server.version = '"two"'
    assert len(data.emnist.load()[0]) == 3


def test_servers_that_name_no_version(server):
    """Without a version, or with a weak one, the file is fetched whole."""
    for version in (None, 'W/"weak"'):
        server.version, server.breaks_after = version, [5_000]
        _download.download(server.url, _cache.directory() / f"file {version is None}")
    assert server.ranges == [None] * 4


def test_all_had_arrived(server, cache_directory):
    """A download that was interrupted after its last byte is complete; one that is too long starts again."""
    cache_directory.mkdir()
    part = cache_directory / "emnist_all.sqlite.lzma.part"
    part.with_name(f"{part.name}.version").write_text('"one"')
    part.write_bytes(server.content)
    _download.download(server.url, part.with_suffix(""))
    assert server.ranges == [f"bytes={len(server.content)}-"]
    part.with_name(f"{part.name}.version").write_text('"one"')
    part.write_bytes(server.content + b"more")
    part.with_suffix("").unlink()
    _download.download(server.url, part.with_suffix(""))
    assert part.with_suffix("").read_bytes() == server.content


def test_damaged_archives(server, cache_directory):
    """An archive that is damaged or cut short on the server is named, and leaves no data."""
    good = server.content
    for damaged in (good[:-500], good[:4_000] + b"?" + good[4_001:], b"<html>not found</html>"):
        server.content = damaged
        with pytest.raises(DataError, match=r"emnist_all.sqlite.lzma is damaged .* fetch the file again"):
            data.emnist.load()
        assert not (cache_directory / "emnist_all.sqlite").exists()
        (cache_directory / "emnist_all.sqlite.lzma").unlink()
    server.content = good
    assert len(data.emnist.load()[0]) == 3


def test_offline(monkeypatch, cache_directory):
    """The error gives the address, where to put the file, and what needs no network."""
    monkeypatch.setattr(emnist, "URL", "http://127.0.0.1:1/emnist_all.sqlite.lzma")
    message = (
        rf"{emnist.URL} cannot be downloaded: .* at {cache_directory}/emnist_all.sqlite.lzma, .*data.digits.load\(\)"
    )
    with pytest.raises(NotAvailableError, match=message):
        data.emnist.load()


def test_not_on_the_server(server, monkeypatch):
    """What the server says is in the message."""
    server.ranges.clear()
    monkeypatch.setattr(server.RequestHandlerClass, "do_GET", lambda handler: handler.send_error(404))
    with pytest.raises(NotAvailableError, match=r"cannot be downloaded: Not Found"):
        data.emnist.load()


def test_files_put_by_hand(server, files, cache_directory):
    """A file in the cache or a path is used as it is; nothing is downloaded."""
    assert len(data.emnist.load(path=files["tff"])[0]) == 3
    assert len(data.emnist.load(path=files["tff archive"])[0]) == 3
    (cache_directory / "emnist_all.sqlite.lzma").write_bytes(server.content)
    assert len(data.emnist.load()[0]) == 3
    assert server.ranges == []


def test_missing_path(tmp_path):
    """A path that leads nowhere is not replaced by a download."""
    with pytest.raises(NotAvailableError, match=r"nothing.sqlite does not exist"):
        data.emnist.load(path=tmp_path / "nothing.sqlite")


def test_letters(files):
    """All classes are another split of the same file."""
    with pytest.raises(ArgumentError, match=r"got 'all'"):
        data.emnist.load(only_digits=False, path=files["tff"])


def test_cache_directories(monkeypatch, tmp_path):
    """An argument, LACONIC_CACHE, XDG_CACHE_HOME and the home directory say where the cache is, in this order."""
    assert _cache.directory(tmp_path / "given") == tmp_path / "given"
    assert _cache.directory() == tmp_path / "cache"
    monkeypatch.delenv("LACONIC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert _cache.directory() == tmp_path / "xdg" / "laconic"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _cache.directory() == tmp_path / ".cache" / "laconic"


def test_callers_at_the_same_time(server):
    """Several threads that find the cache empty make one download."""
    results = []
    threads = [threading.Thread(target=lambda: results.append(len(data.emnist.load()[0]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [3] * 4
    assert len(server.ranges) == 1


@pytest.mark.parametrize("has_rich", [True, False])
def test_progress(has_rich, capsys, monkeypatch):
    """Long transfers show how far they are, with rich or in plain lines, on stderr; short ones say nothing."""
    monkeypatch.setattr(_progress.importlib.util, "find_spec", lambda _: has_rich or None)
    with _progress.progress("downloading it", 20_000_000, 4_000_000) as report:
        for now in range(5_000_000, 21_000_000, 1_000_000):
            report(now)
    with _progress.progress("small", 1_000) as report:
        report(1_000)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "small" not in captured.err
    assert "downloading it" in captured.err
    if not has_rich:
        lines = captured.err.splitlines()
        assert lines[0] == "downloading it: 6.0 of 20.0 MB"
        assert lines[-1] == "downloading it: 20.0 of 20.0 MB"
