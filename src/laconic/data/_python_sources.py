"""Text that every machine has: the sources of Python's own standard library, one module a client."""

import sys
import sysconfig
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from laconic.data import characters
from laconic.data._client_data import ClientData, from_loader
from laconic.data._examples import Examples
from laconic.data._files import AnyPath, existing, reading
from laconic.errors import ArgumentError

_EXPECTED = "a directory of Python modules"

# Tests are not what a package says, and some are broken on purpose.
_NOT_WALKED = {"test", "tests", "idle_test"}
# Written by programs: tables of character sets, and the language reference.
_GENERATED = {"encodings", "pydoc_data"}


def python_sources(
    path: AnyPath | None = None,
    *,
    length: int = 64,
    min_examples: int = 20,
    max_examples: int | None = 100,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> tuple[ClientData, ClientData]:
    """Federated text that needs no network: Python sources, one module a client, to predict the next character.

    A module's text is cut into windows of `length` + 1 characters, of which the last is the first of the next window.
    An example is a window: `x` int32 [n, length] are its first characters, and `y` int32 [n, length] the ones that
    follow each, in the codes of `data.characters`; so every character but a module's first is predicted once, and what
    is left at its end is dropped. Modules are read when they are asked for. Their dotted names are the client ids.

    The standard library differs between versions of Python, and a little between distributions: name the version beside
    a result. Modules written in C, tests, and the generated packages `encodings` and `pydoc_data` are left out; Python
    3.11.7 has 512 clients with 42,634 examples.

    Args:
      path: a directory with modules and packages, such as a project's `src`; None is the standard library's.
      length: the characters of an example.
      min_examples: modules with fewer examples are left out.
      max_examples: of a module with more, this many are taken, evenly from its start to its end; None takes all.
      test_fraction: the share of each module's examples that is held out for testing, at least one.
      seed: which examples are held out.

    Returns:
      The training data and the test data.

    Raises:
      ArgumentError: an argument is out of its range, or no module has enough examples.
      NotAvailableError: there is no such directory; some distributions of Python come without their sources.
      DataError: when a module is read that has changed, or vanished.
    """
    _check_sizes(length, min_examples, max_examples)
    modules = _standard_library() if path is None else dict(_modules(existing(path, _EXPECTED)))
    available = {name: _num_windows(len(_text(file)), length) for name, file in modules.items()}
    counts = {
        name: count if max_examples is None else min(count, max_examples)
        for name, count in available.items()
        if count >= min_examples
    }
    if not counts:
        raise ArgumentError(
            f"none of the {len(modules)} Python modules in {path or 'the standard library'} has min_examples="
            f"{min_examples} windows of {length} characters; ask for fewer or shorter ones, or pass another path"
        )
    return from_loader(counts, partial(_load, modules, counts, length), counts).hold_out(test_fraction, seed=seed)


def _check_sizes(length: int, min_examples: int, max_examples: int | None) -> None:
    if length < 1:
        raise ArgumentError(f"length must be at least 1 character, got {length}")
    # With one example there is nothing to hold out.
    if min_examples < 2:
        raise ArgumentError(f"min_examples must be at least 2, one to train on and one to test on, got {min_examples}")
    if max_examples is not None and max_examples < min_examples:
        raise ArgumentError(f"max_examples must be at least min_examples, {min_examples}, got {max_examples}")


def _standard_library() -> dict[str, Path]:
    root = existing(sysconfig.get_path("stdlib"), "the sources of Python's standard library")
    # Its directory also holds installed packages, and what building Python left there.
    wanted = sys.stdlib_module_names - _GENERATED
    return {name: file for name, file in _modules(root) if name.partition(".")[0] in wanted}


def _modules(directory: Path, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """The modules in a directory and in the packages below it, by dotted name; a package's own text is its init's."""
    for entry in sorted(directory.iterdir()):
        if entry.suffix == ".py" and entry.is_file():
            is_init = prefix and entry.stem == "__init__"
            yield (prefix.rstrip(".") if is_init else prefix + entry.stem), entry
        elif (entry / "__init__.py").is_file() and entry.name not in _NOT_WALKED:
            yield from _modules(entry, f"{prefix}{entry.name}.")


def _text(file: Path) -> str:
    with reading(file, "a Python source"):
        return file.read_text("utf-8", errors="replace")  # whatever is not UTF-8 has the code of the unknown, too


def _load(modules: dict[str, Path], counts: dict[str, int], length: int, client_id: str) -> Examples:
    codes = characters.encode(_text(modules[client_id]))
    total = _num_windows(len(codes), length)
    count = min(counts[client_id], total)  # fewer than promised where the file has changed, which is an error
    chosen = np.arange(count) * total // max(count, 1)
    x, y = (codes[start : start + total * length].reshape(total, length)[chosen] for start in (0, 1))
    return {"x": x, "y": y}


def _num_windows(num_characters: int, length: int) -> int:
    return max(num_characters - 1, 0) // length
