"""Downloads that can be interrupted and go on where they stopped."""

import http.client
import re
import urllib.error
import urllib.request
from pathlib import Path

from laconic.data._cache import filling
from laconic.data._progress import progress
from laconic.errors import NotAvailableError

_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 16
_PARTIAL, _RANGE_NOT_SATISFIABLE = 206, 416


def download(url: str, target: Path) -> None:
    """Downloads a file, unless it is there.

    What has arrived is kept in `<target>.part`; an interrupted download goes on there, at once as long as each attempt
    brings something, otherwise at the next call. `target` appears only when it is complete.

    Raises:
      NotAvailableError: the server cannot be reached or does not have the file, or `target` cannot be written.
    """
    if target.exists():
        return
    with filling(target):
        if target.exists():  # another process did it while this one waited
            return
        part = _Part(target)
        while True:
            before = part.size
            try:
                _fetch_rest(url, part)
                break
            except (OSError, http.client.HTTPException) as error:  # all of urllib's own errors are OSErrors
                if part.size <= before:
                    raise NotAvailableError(_failure(url, part, error)) from error
        part.finish()


class _Part:
    """What has arrived of a file, and which version of the file it is a part of."""

    def __init__(self, target: Path):
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._version = target.with_name(f"{target.name}.part.version")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def range_headers(self) -> dict[str, str]:
        """The request for the rest, if the file on the server is still the same, and for all of it otherwise."""
        version = self._version.read_text() if self._version.exists() else ""
        # Without a version the rest of another file might be appended unnoticed, so all of it is requested.
        return {"Range": f"bytes={self.size}-", "If-Range": version} if self.size and version else {}

    def restart(self, version: str) -> None:
        self.path.write_bytes(b"")
        self._version.write_text(version)

    def finish(self) -> None:
        self.path.replace(self.target)
        self._version.unlink(missing_ok=True)


def _fetch_rest(url: str, part: _Part) -> None:
    request = urllib.request.Request(url, headers=part.range_headers())  # noqa: S310 (the URL is ours, not a user's)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310
            _receive(response, part)
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            if error.code != _RANGE_NOT_SATISFIABLE:
                raise
            total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        # Nothing is left to send: all had arrived, or what had arrived is not a part of this file.
        if not total or int(total[1]) != part.size:
            part.restart("")
            _fetch_rest(url, part)


def _receive(response: http.client.HTTPResponse, part: _Part) -> None:
    if response.status != _PARTIAL:  # a server may ignore the range and send everything
        # A weak validator (W/...) does not promise the same bytes, and so cannot be used in If-Range.
        version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        part.restart("" if version.startswith("W/") else version)
    elif not response.headers.get("Content-Range", "").startswith(f"bytes {part.size}-"):
        raise ConnectionError(f"the server sent another range: {response.headers.get('Content-Range')}")
    total = None if response.length is None else part.size + response.length
    with part.path.open("ab") as file, progress(f"downloading {part.target.name}", total, part.size) as report:
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            report(file.tell())
    # HTTPResponse.read(n) takes an early end of the connection for the end of the file.
    if total is not None and part.size != total:
        raise ConnectionError(f"the connection ended after {part.size} of {total} bytes")


def _failure(url: str, part: _Part, error: Exception) -> str:
    reason = getattr(error, "reason", None) or str(error) or type(error).__name__
    kept = f"; {part.size} bytes are kept, and the next call goes on from there" if part.size else ""
    return f"{url} cannot be downloaded: {reason}{kept}"
