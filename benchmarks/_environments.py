"""Environments of their own for other people's packages: each is made by one command, and knows why it cannot be."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Environment:
    """Somebody else's package and all that it runs on.

    Attributes:
      name: as tables call it.
      folder: where it is.
      requirements: what pip installs, pinned.
      check: a statement that must run for the package to be of use.
      made_by: the command that makes it.
      without_dependencies: what pip installs afterwards, as it is: packages whose bounds nothing meets any more.
      python_version: such as "3.9"; that of this process if left out.
      variables: environment variables that it needs.
    """

    name: str
    folder: Path
    requirements: tuple[str, ...]
    check: str
    made_by: str
    without_dependencies: tuple[str, ...] = ()
    python_version: str | None = None
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.folder / "bin" / "python"

    @property
    def process_variables(self) -> dict[str, str]:
        """The variables that its processes get: ours, without our import path, and its own."""
        inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return inherited | dict(self.variables)

    def make(self, interpreters: dict[str, Path] | None = None) -> str | None:
        """Makes the environment anew; what went wrong, or None.

        Args:
          interpreters: interpreters by version, such as "3.9", for versions that are not to be looked for.
        """
        print(f"{self.name}: {' '.join((*self.requirements, *self.without_dependencies))}", flush=True)
        trouble = self._make(interpreters or {})
        self.record(trouble)
        return trouble

    def record(self, trouble: str | None) -> None:
        """Writes down how the making ended."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {"requirements": self._wanted, "trouble": trouble}
        (self.folder / "setup.json").write_text(json.dumps(state) + "\n")

    def trouble(self) -> str | None:
        """Why the package cannot be used here, or None."""
        file = self.folder / "setup.json"
        if not file.exists():
            return f"not set up; run: {self.made_by}"
        state: dict[str, Any] = json.loads(file.read_text())
        if state["requirements"] != self._wanted:
            return f"set up with other versions; run: {self.made_by}"
        return state["trouble"]

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Runs a command from the project's root and keeps what it says of errors."""
        return subprocess.run(
            command, check=False, cwd=ROOT, env=self.process_variables, text=True, stderr=subprocess.PIPE
        )

    @property
    def _wanted(self) -> list[str]:
        return [*self.requirements, *self.without_dependencies]

    def _make(self, interpreters: dict[str, Path]) -> str | None:
        version = self.python_version
        base = Path(sys.executable) if version is None else interpreters.get(version) or interpreter(version)
        if base is None:
            return f"no interpreter of Python {version} here"
        for what, step in self._steps(base):
            done = self.run(step)
            if done.returncode:
                return f"{what} fails: {last_line(done.stderr) or f'exit status {done.returncode}'}"
        return None

    def _steps(self, base: Path) -> Iterator[tuple[str, list[str]]]:
        install = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        yield "its environment", [str(base), "-m", "venv", "--clear", str(self.folder)]
        yield "its installation", [*install, *self.requirements]
        if self.without_dependencies:
            yield "its installation", [*install, "--no-deps", *self.without_dependencies]
        yield "its import", [str(self.python), "-c", self.check]


def interpreter(version: str) -> Path | None:
    """This interpreter, one on the path or one of pyenv's, of a version such as "3.9"; None if there is none."""
    return next((path for path in _candidates(version) if _version(path) == version), None)


def last_line(text: str) -> str:
    """The last line that says anything: in a traceback, the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _candidates(version: str) -> Iterator[Path]:
    yield Path(sys.executable)
    if found := shutil.which(f"python{version}"):
        yield Path(found)
    yield from sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"), reverse=True)


def _version(python: Path) -> str | None:
    """What an interpreter says its version is; None for one that does not run, such as a stub of pyenv's."""
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([str(python), "-c", program], check=False, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None
