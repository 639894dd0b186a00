"""Checks over many seeds: whether a stage draws at all, and whether what it draws is unbiased."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from laconic.codecs import TensorSpec, random
from laconic.testing._inputs import Tree
from laconic.testing._report import Failed, NotApplicable
from laconic.testing._subject import Subject, attempt, epsilon

FALSE_ALARM = 1e-6
"""Probability that an unbiased stage fails, all entries of all inputs together."""

_FEW_SEEDS = 16
_MAX_ELEMENTS = 2**21  # of one batch of seeds, so that large inputs do not fill the memory


def check_stochastic(subject: Subject) -> str:
    """A stage that does not draw encodes alike under all keys; one that draws does not."""
    keys = next(_batches_of_keys(subject))
    for kind, tree in subject.inputs:
        encoded, _ = _drawn(subject, keys, tree)
        for name, outputs in encoded.items():
            varying = [output for output, drawn in outputs.items() if not _all_alike(np.asarray(drawn))]
            if varying and subject.stage.is_stochastic:
                return f"encodings of {subject.inputs.label(kind, name)} vary"
            if varying:
                raise Failed(
                    f"encode of {subject.inputs.label(kind, name)} to give the same {varying[0]!r} for every key",
                    f"different ones for {len(keys)} keys",
                    "return True from is_stochastic, or do not draw",
                )
    if subject.stage.is_stochastic:
        raise Failed(
            "the encoding of one input at least to depend on the key",
            f"the same encodings for {len(keys)} keys",
            "return False from is_stochastic",
        )
    return "not claimed, and encodings do not depend on the key"


def check_unbiased(subject: Subject) -> str:
    """The mean of what is decoded, over keys, is the input.

    Of each input the error of every entry is tested, and two weighted means of its entries' errors: with equal weights,
    where a bias common to all entries shows best, and in proportion to the entries, where shrinking shows.

    Each of these m errors is compared with the two-sided empirical Bernstein bound (Maurer and Pontil 2009, "Empirical
    Bernstein bounds and sample variance penalization", theorem 4) at level `FALSE_ALARM` / m, so by the union bound an
    unbiased stage fails with a probability of at most `FALSE_ALARM`. Unlike a t-test, the bound does not take errors
    for normal, which they are not where rounding up is rare. It takes the range of an error to be what the draws show
    of it, for all entries of one input together; so what carries expectation must come up at least once in about
    `seeds` / 15 draws. Rounding is allowed for: of the input's own dtype, and of sums in the dtype of computation.
    """
    if not subject.stage.is_unbiased or subject.stage.is_lossless:
        raise NotApplicable("no claim to test")
    tests = sum(spec.size + 2 for spec in subject.inputs.specs.values()) * len(subject.inputs.trees)
    logarithm = math.log(4 * tests / FALSE_ALARM)
    largest = 0.0
    for kind, tree in subject.inputs:
        for name, moments in _moments(subject, tree).items():
            spec = subject.inputs.specs[name]
            rounding = _rounding(spec) * float(np.abs(tree[name].astype(np.float64)).max(initial=0.0))
            bounds = moments.bounds(logarithm) + rounding
            shares = np.abs(moments.mean) / np.where(bounds > 0, bounds, 1)
            if not shares.size:
                continue
            worst = int(shares.argmax())
            largest = max(largest, float(shares[worst]))
            if shares[worst] > 1:
                label = subject.inputs.label(kind, name)
                raise Failed(
                    f"the mean of {moments.count} decodings of {label} to be the input within {bounds[worst]:.2g}",
                    f"a bias of {moments.mean[worst]:.2g} in {_place(worst, spec.size)}",
                    "return False from is_unbiased, or round so that the expectation is the input",
                )
    return f"largest bias {largest:.2g} of what {subject.seeds} seeds would show"


def _rounding(spec: TensorSpec) -> float:
    """What arithmetic may add to an entry's mean error, relative to the largest entry.

    Rounding to the input's own dtype, and the sums of a transform in the dtype of computation, float32 at least.
    """
    wide = dataclasses.replace(spec, dtype=np.result_type(spec.dtype, np.float32)) if spec.is_float else spec
    return 2 * epsilon(spec) + 16 * epsilon(wide)


@dataclasses.dataclass
class _Moments:
    """Streaming moments of the errors of one array: of each entry, then of two weighted means."""

    size: int
    count: int = 0
    mean: Any = 0.0
    squares: Any = 0.0  # sum of squared deviations from the mean
    low: Any = np.inf
    high: Any = -np.inf

    def add(self, errors: np.ndarray) -> None:
        """Takes a batch of draws, [draws, columns] (Chan et al. 1979, "Updating formulae and a pairwise algorithm")."""
        count, mean = len(errors), errors.mean(axis=0)
        squares = ((errors - mean) ** 2).sum(axis=0)
        delta, total = mean - self.mean, self.count + count
        self.squares = self.squares + squares + delta**2 * self.count * count / total
        self.mean = self.mean + delta * count / total
        self.count = total
        self.low = np.minimum(self.low, errors.min(axis=0))
        self.high = np.maximum(self.high, errors.max(axis=0))

    def bounds(self, logarithm: float) -> np.ndarray:
        """How far each mean may be from zero if the expectation is zero."""
        ranges = self.high - self.low
        entries = ranges[: self.size]
        if self.size:
            entries[:] = self.high[: self.size].max() - self.low[: self.size].min()
        variance = self.squares / (self.count - 1)
        spread = np.sqrt(2 * variance * logarithm / self.count)
        return np.asarray(spread + 7 * ranges * logarithm / (3 * (self.count - 1)))


def _moments(subject: Subject, tree: Tree) -> dict[str, _Moments]:
    moments = {name: _Moments(spec.size) for name, spec in subject.inputs.specs.items() if spec.size}
    for keys in _batches_of_keys(subject):
        _, decoded = _drawn(subject, keys, tree)
        for name, own in moments.items():
            x = tree[name].astype(np.float64).reshape(-1)
            errors = np.asarray(decoded[name]).astype(np.float64).reshape(len(keys), -1) - x
            own.add(np.concatenate([errors, errors @ _weights(x)], axis=1))
    return moments


def _weights(x: np.ndarray) -> np.ndarray:
    """Two columns of weights, the absolute values of which add up to one."""
    total = np.abs(x).sum()
    return np.stack([np.full(x.size, 1 / x.size), x / total if total else np.zeros(x.size)], axis=1)


def _drawn(subject: Subject, keys: np.ndarray, tree: Tree) -> tuple[Any, Any]:
    what = "encode and decode to be vectorised over keys by jax.vmap"
    return attempt(what, "use jax.numpy throughout", subject.draw, keys, tree)


def _batches_of_keys(subject: Subject) -> Iterator[np.ndarray]:
    """Keys in batches of one size: the generator's output at successive counters."""
    claims = subject.stage.is_unbiased and not subject.stage.is_lossless
    count = subject.seeds if claims else _FEW_SEEDS
    total = sum(spec.size for spec in subject.inputs.specs.values())
    size = min(count, max(_FEW_SEEDS, _MAX_ELEMENTS // max(total, 1)))
    for first in range(0, count, size):
        counters = np.arange(first, first + size, dtype=np.uint32)
        yield np.stack(random.threefry(subject.key("seeds"), counters, np.zeros_like(counters)), axis=1)


def _all_alike(drawn: np.ndarray) -> bool:
    """Whether all of the first axis are equal, bit for bit."""
    rows = np.ascontiguousarray(drawn).reshape(len(drawn), -1).view(np.uint8)
    return bool(np.all(rows == rows[0]))


def _place(index: int, size: int) -> str:
    if index < size:
        return f"entry {index}"
    return ("the mean of all entries", "the mean of all entries weighted by the input")[index - size]
