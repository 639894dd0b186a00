"""The package as a whole."""

import subprocess
import sys

import pytest

import laconic
from laconic import errors


def run(script):
    """Runs a script in a fresh interpreter and gives what it printed."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_is_light():
    """`import laconic` loads no part of it, nor JAX, until they are used."""
    assert run("import sys, laconic; print('jax' in sys.modules, 'laconic.codecs' in sys.modules)") == "False False"
    assert run("import laconic; print(laconic.codecs.__name__)") == "laconic.codecs"


def test_optional_libraries_are_imported_where_they_are_used():
    """The parts import without any of the extras."""
    extras = ["keras", "sklearn", "msgpack", "rich", "tensorboardX", "matplotlib", "tyro"]
    script = (
        f"import sys\nfor name in {extras}: sys.modules[name] = None\n"
        "import laconic.codecs, laconic.federated, laconic.learning, laconic.engines, laconic.data, laconic.testing\n"
        "import laconic.experiments\nprint('fine')"
    )
    assert run(script) == "fine"


def test_unknown_attributes():
    """A name that does not exist is an AttributeError, and dir() lists the parts."""
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = laconic.nonsense
    assert {"codecs", "data", "learning"} <= set(dir(laconic))


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.ArgumentError, ValueError),
        (errors.ArgumentTypeError, TypeError),
        (errors.NonFiniteError, ValueError),
        (errors.DecodeError, ValueError),
        (errors.PlacementError, TypeError),
        (errors.DataError, ValueError),
        (errors.UnknownClientError, KeyError),
        (errors.NotAvailableError, OSError),
        (errors.MissingExtraError, ImportError),
    ],
)
def test_errors_derive_from_both(error, builtin):
    """Every error is a LaconicError and the builtin that fits, and shows its sentence as it is."""
    raised = error("a sentence")
    assert isinstance(raised, laconic.LaconicError)
    assert isinstance(raised, builtin)
    assert str(raised) == "a sentence"


def test_require_names_the_extra():
    """What is not installed is named with the command that installs it; a broken install is not hidden."""
    with pytest.raises(
        errors.MissingExtraError, match=r"plots needs 'no_such_module', .*: pip install 'laconic\[all\]'"
    ):
        errors.require("no_such_module", extra="all", purpose="plots")
    assert errors.require("json", extra="all", purpose="nothing").__name__ == "json"


def test_require_does_not_blame_the_extra_for_what_it_misses(tmp_path, monkeypatch):
    """An optional module that is there but lacks something of its own fails with its own error."""
    (tmp_path / "half_there.py").write_text("import surely_not_installed\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed") as caught:
        errors.require("half_there", extra="all", purpose="plots")
    assert not isinstance(caught.value, errors.MissingExtraError)
