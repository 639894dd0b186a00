"""Pseudo-clients: many writers from a few, each with a fixed slant."""

import numpy as np
import pytest

from laconic import data
from laconic.data import _images
from laconic.errors import ArgumentError, DataError


@pytest.fixture
def real(writers):
    """The three made-up writers."""
    return data.from_arrays(writers["train"])


def cross(shape=(1, 28, 28)):
    """A black cross in the middle of a white image."""
    images = np.ones(shape, np.float32)
    images[:, 13:15, 6:22] = 0
    images[:, 6:22, 13:15] = 0
    return images


def test_ids_and_counts(real):
    """Pseudo-clients go round the real ones; ids do not depend on how many there are, nor do counts on loading."""
    pseudo = data.pseudo_clients(real, 7)
    assert pseudo.client_ids == ("a_0", "a_1", "a_2", "b_0", "b_1", "c_0", "c_1")
    assert [pseudo.known_num_examples(i) for i in pseudo] == [5, 5, 5, 1, 1, 12, 12]
    np.testing.assert_array_equal(pseudo["c_1"]["x"], data.pseudo_clients(real, 1_000)["c_1"]["x"])


def test_the_first_is_the_real_one(real):
    """The real writers are among the pseudo-clients, unchanged."""
    pseudo = data.pseudo_clients(real, 6)
    for client_id in real:
        for name in ("x", "y"):
            np.testing.assert_array_equal(pseudo[f"{client_id}_0"][name], real[client_id][name])


def test_others_are_transformed(real):
    """Images differ between pseudo-clients, keep shape, dtype and range, and labels stay."""
    pseudo = data.pseudo_clients(real, 12)
    versions = [pseudo[f"c_{k}"] for k in range(4)]
    assert len({version["x"].tobytes() for version in versions}) == 4
    for version in versions:
        np.testing.assert_array_equal(version["y"], real["c"]["y"])
        assert version["x"].shape == (12, 28, 28)
        assert version["x"].dtype == np.float32
        assert version["x"].min() >= 0
        assert version["x"].max() <= 1


def test_one_transformation_per_client():
    """All images of a pseudo-client are slanted alike, and the slant is gentle: the digit stays in the image."""
    clients = data.from_arrays({"a": {"x": cross((3, 28, 28)), "y": [0, 0, 0]}})
    pseudo = data.pseudo_clients(clients, 200)
    ink = (1 - cross()).sum()
    for client_id in pseudo:
        images = pseudo[client_id]["x"]
        np.testing.assert_array_equal(images[0], images[2])
        assert 0.7 < (1 - images[0]).sum() / ink < 1.4


def test_uncovered_places_are_background():
    """A blank page stays exactly blank, wherever it is moved."""
    clients = data.from_arrays({"a": {"x": np.ones((2, 28, 28), np.float32), "y": [0, 1]}})
    pseudo = data.pseudo_clients(clients, 50)
    assert all((pseudo[i]["x"] == 1).all() for i in pseudo)


def test_channels_are_transformed_alike(real):
    """Images with a channel axis give the same as without."""
    channelled = real.map(lambda examples: examples | {"x": np.repeat(examples["x"][..., None], 2, axis=-1)})
    plain, stacked = (data.pseudo_clients(clients, 6)["c_1"]["x"] for clients in (real, channelled))
    for channel in range(2):
        np.testing.assert_array_equal(stacked[..., channel], plain)


def test_golden_transformation():
    """A pseudo-client's images are these on any machine, up to rounding."""
    clients = data.from_arrays({"a": {"x": cross(), "y": [0]}})
    image = data.pseudo_clients(clients, 2)["a_1"]["x"][0]
    np.testing.assert_allclose(image[[4, 12, 13], [13, 4, 11]], GOLDEN_PIXELS, atol=1e-5)


def test_impossible_counts(real):
    """At least one pseudo-client is made."""
    with pytest.raises(ArgumentError, match=r"number of pseudo-clients must be at least 1, got 0"):
        data.pseudo_clients(real, 0)


@pytest.mark.parametrize(
    ("fields", "got"),
    [
        ({"x": np.zeros((2, 784), np.float32)}, r"float32\[2, 784\]"),
        ({"x": np.zeros((2, 28, 28), np.uint8)}, r"uint8\[2, 28, 28\]"),
        ({"pixels": np.zeros((2, 28, 28))}, "no field 'x'"),
    ],
)
def test_only_images_can_be_transformed(fields, got):
    """What is no floating-point image is named when the client is loaded."""
    pseudo = data.pseudo_clients(data.from_arrays({"a": fields}), 2)
    with pytest.raises(DataError, match=rf"pseudo-client 'a_1' .*, got {got}"):
        pseudo["a_1"]


def test_bilinear_sampling():
    """Between pixels values are weighted by distance; a pixel beyond the edge all is background."""
    image = np.array([[[0.0, 4.0], [8.0, 12.0]]], np.float32)
    rows = np.array([[0.0, 0.5, 1.0, 0.25, -0.5, -1.0, 5.0]])
    columns = np.array([[0.0, 0.5, 1.0, 0.75, 0.0, 0.0, 0.0]])
    sampled = _images.bilinear(image, rows, columns, background=100.0)
    np.testing.assert_allclose(sampled[0, 0], [0, 6, 12, 5, 50, 100, 100])


def test_resizing_to_the_same_size_changes_nothing():
    """The pixel centres coincide."""
    np.testing.assert_array_equal(_images.resize(cross(), 28), cross())


GOLDEN_PIXELS = [0.423658, 0.754178, 0.323963]
