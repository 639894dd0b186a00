"""The embedded digits: real images, dealt to writers who differ."""

import numpy as np
import pytest
from sklearn import datasets

from laconic import data
from laconic.errors import ArgumentError, MissingExtraError


def all_digits(size=8, **options):
    """Every digit of both parts, sorted."""
    parts = [part.examples() for part in data.digits.load(size=size, **options)]
    images = np.concatenate([part["x"] for part in parts]).reshape(1797, -1)
    labels = np.concatenate([part["y"] for part in parts])
    return sorted(zip(labels.tolist(), images.tolist(), strict=True))


@pytest.mark.parametrize("num_clients", [1, 30, 224])
def test_every_digit_has_one_writer(num_clients):
    """All 1,797 images are dealt, each once, scaled to [0, 1] with 1.0 = background."""
    bunch = datasets.load_digits()
    expected = sorted(zip(bunch.target.tolist(), (1 - bunch.data / 16).tolist(), strict=True))
    assert all_digits(num_clients=num_clients) == expected


def test_form():
    """Images are float32 of the wanted size in [0, 1], labels int32."""
    for options, side in (({}, 28), ({"size": 8}, 8), ({"size": 14}, 14)):
        train, _ = data.digits.load(**options)
        examples = train.examples()
        assert examples["x"].shape[1:] == (side, side)
        assert (examples["x"].dtype, examples["y"].dtype) == (np.float32, np.int32)
        assert examples["x"].min() >= 0
        assert examples["x"].max() <= 1
        assert np.median(examples["x"][:, 0, 0]) == 1  # the corner is background


def test_resized_digits_are_the_digits():
    """Averaged back to 8 by 8, an enlarged image is almost the original."""
    small, large = (data.digits.load(size=size)[0].examples()["x"] for size in (8, 56))
    averaged = large.reshape(-1, 8, 7, 8, 7).mean(axis=(2, 4))
    assert np.corrcoef(averaged.ravel(), small.ravel())[0, 1] > 0.97
    assert abs(averaged.mean() - small.mean()) < 0.01


@pytest.mark.parametrize("num_clients", [10, 224])
def test_every_writer_has_a_few(num_clients):
    """Sizes differ by a factor of three, and everyone can train and test."""
    train, test = data.digits.load(num_clients)
    assert len(train) == len(test) == num_clients
    totals = [train.num_examples(i) + test.num_examples(i) for i in train]
    assert min(totals) >= 4
    assert test.statistics().minimum >= 1
    assert 2 < max(totals) / min(totals) < 4


def test_writers_differ_by_concentration():
    """A small concentration leaves a writer few labels, a large one all."""

    def labels_per_writer(concentration):
        train, _ = data.digits.load(20, concentration=concentration)
        return np.mean([len(np.unique(train[i]["y"])) for i in train])

    assert labels_per_writer(0.01) < 3.5
    assert 6 < labels_per_writer(1.0) < 9
    assert labels_per_writer(1e6) > 9.9


def test_seeds():
    """The same seed deals the same, bit by bit; another deals differently."""
    first, again, other = (data.digits.load(seed=seed)[0].examples() for seed in (0, 0, 1))
    np.testing.assert_array_equal(first["x"], again["x"])
    assert not np.array_equal(first["y"], other["y"])


def test_golden_deal():
    """The first writer's labels are these, whatever is installed."""
    train, test = data.digits.load()
    assert train["writer_000"]["y"].tolist()[:12] == GOLDEN_LABELS
    assert (train.num_examples("writer_000"), test.num_examples("writer_000")) == GOLDEN_COUNTS


@pytest.mark.parametrize(
    "options",
    [{"num_clients": 0}, {"num_clients": 225}, {"concentration": 0.0}, {"size": 0}, {"test_fraction": 0.0}],
)
def test_impossible_options(options):
    """Every argument out of its range is named with its value."""
    ((name, value),) = options.items()
    with pytest.raises(ArgumentError, match=rf"{name.removeprefix('test_')}.* must be .*{value}"):
        data.digits.load(**options)


def test_without_scikit_learn(monkeypatch):
    """Without scikit-learn the error says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"data.digits.load needs 'sklearn.datasets'.*laconic\[data\]"):
        data.digits.load(size=9)


GOLDEN_LABELS = [4, 5, 9, 9, 8, 4, 9, 4, 6, 4, 5, 5]
GOLDEN_COUNTS = (57, 14)
