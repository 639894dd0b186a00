"""What every benchmark writes: a machine-readable file, and a table for people."""

import argparse
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any


def data_file(path: str) -> Path:
    """An argument that names a data file, for argparse."""
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"there is no data file {path}")
    return Path(path)


def environment() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "numpy", "optax")}
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        **versions,
    }


def write(path: Path, results: dict[str, Any]) -> None:
    """Writes results and environment as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"environment": environment(), **results}, indent=1) + "\n")
    print(f"written to {path}")


def table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
