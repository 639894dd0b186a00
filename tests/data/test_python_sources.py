"""Python's own sources as federated text."""

import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from laconic import data
from laconic.errors import ArgumentError, DataError, NotAvailableError


@pytest.fixture
def project(tmp_path):
    """Modules of 9, 21, 33 and 101 characters, and files that are none."""
    files = {
        "tiny.py": text(9),
        "short.py": text(21),
        "package/__init__.py": text(33),
        "package/inner.py": text(101),
        "package/tests/__init__.py": text(50),
        "package/tests/test_inner.py": text(50),
        "package/data.txt": text(50),
        "no_package/script.py": text(50),
    }
    for name, content in files.items():
        file = tmp_path / "project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return tmp_path / "project"


def text(count):
    """Characters that say where they are, as far as there are enough of them."""
    return "".join(data.characters.VOCABULARY[1 + i % 96] for i in range(count))


def both(parts, client_id):
    """A client's training and test examples together."""
    return (np.concatenate([part[client_id][name] for part in parts]) for name in "xy")


def test_one_module_a_client(project):
    """Modules and packages are clients by their dotted names; tests, other files and loose directories are not."""
    train, test = data.python_sources(project, length=10, min_examples=2)
    assert train.client_ids == test.client_ids == ("package", "package.inner", "short")
    assert [train.num_examples(i) + test.num_examples(i) for i in train] == [3, 10, 2]


def test_a_package_itself(project):
    """Where the directory is a package, its own text has a name, too."""
    train, _ = data.python_sources(project / "package", length=10, min_examples=2)
    assert train.client_ids == ("__init__", "inner")


def test_every_character_but_the_first_is_predicted_once(project):
    """Windows follow each other; labels are the inputs one place on; what is left at the end is dropped."""
    codes = data.characters.encode(text(96))
    x, y = both(data.python_sources(project, length=10, min_examples=2), "package.inner")
    assert (x.dtype, y.dtype, x.shape, y.shape) == (np.int32, np.int32, (10, 10), (10, 10))
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    expected = np.append(codes, codes[:5])  # `text` begins again after 96 characters
    assert sorted(y.tolist()) == sorted(expected[1:].reshape(10, 10).tolist())


def test_few_of_many(project):
    """Of a long module the examples are taken evenly, the first among them."""
    x, _ = both(data.python_sources(project, length=10, min_examples=2, max_examples=4), "package.inner")
    starts = data.characters.encode(text(96))[[0, 20, 50, 70]]
    assert sorted(x[:, 0].tolist()) == sorted(starts.tolist())


def test_what_is_held_out(project):
    """The share and the seed say which examples are for testing, and the same seed says the same."""
    options = {"length": 10, "min_examples": 2}
    train, test = data.python_sources(project, **options, test_fraction=0.3)
    assert (train.num_examples("package.inner"), test.num_examples("package.inner")) == (7, 3)
    again, other = (data.python_sources(project, **options, test_fraction=0.3, seed=seed)[1] for seed in (0, 7))
    np.testing.assert_array_equal(test["package.inner"]["x"], again["package.inner"]["x"])
    assert not np.array_equal(test["package.inner"]["x"], other["package.inner"]["x"])


def test_any_bytes_are_text(tmp_path):
    """What is not UTF-8 is unknown characters, line ends of all systems are new lines, and nothing is imported."""
    (tmp_path / "odd.py").write_bytes(b"raise\r\n\xff\xfe\tx\ry")
    train, test = data.python_sources(tmp_path, length=5, min_examples=2)
    x, _ = both((train, test), "odd")
    assert {data.characters.decode(row) for row in x} == {"raise", "\n\ufffd\ufffd\ufffdx"}


def test_the_standard_library():
    """It has hundreds of modules by default, `argparse` and `json.decoder` among them, and nothing else's."""
    train, test = data.python_sources()
    assert len(train) == len(test) > 200
    assert {"argparse", "json.decoder", "collections"} <= set(train.client_ids)
    assert {name.partition(".")[0] for name in train} <= sys.stdlib_module_names - {"encodings", "test"}
    statistics = train.statistics()
    assert (statistics.minimum, statistics.maximum) == (16, 80)
    path = Path(sysconfig.get_path("stdlib")) / "argparse.py"
    examples = train["argparse"]
    assert examples["x"].shape == examples["y"].shape == (80, 64)
    source = path.read_text("utf-8")
    assert all(data.characters.decode(row) in source for row in examples["x"])


def test_a_module_that_changes(project):
    """A client has the examples that it was counted with, or an error."""
    train, _ = data.python_sources(project, length=10, min_examples=2)
    (project / "short.py").write_text("x = 1")
    with pytest.raises(DataError, match="client 'short' has 0 examples, but had or was said to have 2"):
        train["short"]
    (project / "short.py").unlink()
    with pytest.raises(DataError, match="short.py"):
        train["short"]


def test_nothing_there(tmp_path):
    """A path that is wrong, and a directory without a module long enough, are told apart."""
    with pytest.raises(NotAvailableError, match="missing does not exist"):
        data.python_sources(tmp_path / "missing")
    with pytest.raises(ArgumentError, match="none of the 0 Python modules in .* has min_examples=20 windows of 64"):
        data.python_sources(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length must be at least 1 character, got 0"),
        ({"min_examples": 1}, "min_examples must be at least 2"),
        ({"min_examples": 20, "max_examples": 19}, "max_examples must be at least min_examples, 20, got 19"),
        ({"test_fraction": 1.0}, "fraction must be a share"),
    ],
)
def test_impossible_options(project, options, message):
    """Every argument out of its range is named with its value."""
    with pytest.raises(ArgumentError, match=message):
        data.python_sources(project, **{"length": 10, "min_examples": 2} | options)
