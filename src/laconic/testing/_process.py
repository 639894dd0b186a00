"""The other process of `check_other_process`: imports a stage's module and decodes payloads, from files to files."""

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

MARK = "LACONIC_CHECKS_IN_OTHER_PROCESS"
"""Environment variable that is set in the other process."""


def request_file(directory: Path) -> Path:
    """Where to find the stage, and how many payloads there are."""
    return directory / "request.json"


def payload_file(directory: Path, index: int) -> Path:
    """A payload to decode."""
    return directory / f"payload-{index}"


def answer_file(directory: Path, index: int) -> Path:
    """The decoded arrays, encoded as they are."""
    return directory / f"answer-{index}"


def main(directory: Path) -> None:
    """Decodes all payloads of the directory."""
    request = json.loads(request_file(directory).read_text("utf-8"))
    from laconic import codecs

    import_stage(request["module"], Path(request["file"]))
    for i in range(request["payloads"]):
        tree = codecs.decode(payload_file(directory, i).read_bytes())
        answer_file(directory, i).write_bytes(codecs.encode(tree, codecs.identity()))


def import_stage(name: str, file: Path) -> Any:
    """Imports a module by its name or, where that leads elsewhere, as for a script, from its file."""
    if name != "__main__":
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            module = None
        if module is not None and Path(str(getattr(module, "__file__", ""))).resolve() == file:
            return module
    spec = importlib.util.spec_from_file_location("stage_module", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(Path(sys.argv[1]))
