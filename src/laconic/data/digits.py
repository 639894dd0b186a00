"""Real handwritten digits that need no network: scikit-learn's, dealt to writers who differ.

The images are from E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998): 1,797 of 8x8
pixels.
Who wrote which is not known, so writers are made up: each has a taste for some digits.
"""

from functools import cache

import numpy as np
from jaxtyping import Float32, Int

from laconic.data import _images, _randomness
from laconic.data._client_data import ClientData, from_arrays
from laconic.errors import ArgumentError, require

_INK = 16  # the source's value of full ink; its background is 0
_SMALLEST_MEAN = 8  # examples per client: the smallest client has half the mean


def load(
    num_clients: int = 30,
    *,
    concentration: float = 1.0,
    test_fraction: float = 0.2,
    size: int = 28,
    seed: int = 0,
) -> tuple[ClientData, ClientData]:
    """The 1,797 digits: `x` float32 [n, size, size] in [0, 1], 1.0 = background; `y` int32 [n], 0 to 9.

    Each image belongs to one writer. Writers have from half to one and a half times the mean number of examples, and at
    least four. Which labels a writer has is drawn by Pólya's urn: the more it has of a label, the likelier the next
    has it, too; so a writer's proportions follow a Dirichlet distribution, as far as the supply of images allows.

    Args:
      num_clients: the number of writers, 1 to 224.
      concentration: the parameter of the Dirichlet distribution; near 0, a writer has few of the labels, and the larger
        it is, the more alike writers are.
      test_fraction: the share of each writer's examples that is held out for testing, at least one.
      size: the side of the images, in pixels; 8 gives them as they are, anything else resizes them bilinearly.
      seed: who has which images, and which are held out; the same seed gives the same bits on any machine.

    Returns:
      The training data and the test data.

    Raises:
      ArgumentError: an argument is out of its range.
      MissingExtraError: scikit-learn is not installed.
    """
    if size < 1:
        raise ArgumentError(f"size must be at least 1 pixel, got {size}")
    if not 0 < concentration < np.inf:
        raise ArgumentError(f"concentration must be a finite number above 0, got {concentration}")
    images, labels = _digits(size)
    largest = len(labels) // _SMALLEST_MEAN
    if not 1 <= num_clients <= largest:
        raise ArgumentError(
            f"num_clients must be between 1 and {largest}, so that each has a few of the {len(labels)} digits; "
            f"got {num_clients}; for more clients, use data.pseudo_clients"
        )
    hands = _deal(labels, num_clients, concentration, seed)
    writers = {f"writer_{i:03d}": {"x": images[hand], "y": labels[hand]} for i, hand in enumerate(hands)}
    return from_arrays(writers).hold_out(test_fraction, seed=seed)


@cache
def _digits(size: int) -> tuple[Float32[np.ndarray, "n {size} {size}"], Int[np.ndarray, " n"]]:
    datasets = require("sklearn.datasets", extra="data", purpose="data.digits.load")
    bunch = datasets.load_digits()
    images = (1 - bunch.images / _INK).astype(np.float32)
    return (images if size == images.shape[1] else _images.resize(images, size)), bunch.target


def _deal(labels: np.ndarray, num_clients: int, concentration: float, seed: int) -> list[Int[np.ndarray, " hand"]]:
    """Deals the examples one by one, round and round; for each writer, the positions of its examples."""
    pool = _randomness.order(len(labels), "digits, pool", seed)
    supplies = [list(pool[labels[pool] == label]) for label in range(labels.max() + 1)]
    left = np.array([len(supply) for supply in supplies])
    held = np.zeros((num_clients, len(supplies)))
    hands: list[list[int]] = [[] for _ in range(num_clients)]
    draws = _randomness.uniforms(len(labels), "digits, labels", seed)
    for writer, draw in zip(_turns(len(labels), num_clients, seed), draws, strict=True):
        odds = np.cumsum(np.where(left > 0, concentration + held[writer], 0.0))
        label = int(np.searchsorted(odds, draw * odds[-1], side="right"))
        hands[writer].append(supplies[label].pop())
        held[writer, label] += 1
        left[label] -= 1
    return [np.array(hand) for hand in hands]


def _turns(count: int, num_clients: int, seed: int) -> Int[np.ndarray, " count"]:
    """Whose turn it is: everyone's, again and again, and no longer that of those who have enough."""
    shares = 0.5 + (_randomness.order(num_clients, "digits, sizes", seed) + 0.5) / num_clients
    sizes = np.diff(np.round(np.cumsum(shares) / shares.sum() * count), prepend=0).astype(int)
    writers = np.repeat(np.arange(num_clients), sizes)
    turns = np.concatenate([np.arange(size) for size in sizes])
    return writers[np.argsort(turns, kind="stable")]
