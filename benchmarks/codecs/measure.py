"""Distortion and limits: what every figure is computed with. NumPy alone, since peers' environments run it too."""

import math
from typing import Any

import numpy as np


def nmse(x: np.ndarray, decoded: np.ndarray) -> float:
    """|decoded - x|^2 / |x|^2, in double precision."""
    error = decoded.astype(np.float64) - x.astype(np.float64)
    return float(np.dot(error.ravel(), error.ravel()) / np.sum(np.square(x, dtype=np.float64)))


def shannon_rate(distortion: float, *, unbiased: bool) -> float:
    """The least bits per parameter at this NMSE for a Gaussian source and large d (0 where no bit is needed).

    R(D) = 1/2 log2(1/D). Unbiased reconstructions are at least 1/2 log2(1 + 1/D): their linear minimum-mean-square
    estimate has the error D / (1 + D).
    """
    if distortion <= 0:
        return math.inf
    return 0.5 * math.log2(1 + 1 / distortion) if unbiased else max(0.0, 0.5 * math.log2(1 / distortion))


def entropy(codes: np.ndarray, contexts: np.ndarray | None = None) -> float:
    """Bits of all the codes together under their own histogram, or each context's: the empirical entropy times size."""
    if contexts is None:
        return _entropy(codes)
    return sum(_entropy(codes[contexts == context]) for context in np.unique(contexts))


def _entropy(codes: np.ndarray) -> float:
    counts = np.unique(codes, return_counts=True)[1].astype(np.float64)
    return float(-np.sum(counts * np.log2(counts / codes.size))) if codes.size else 0.0


def summary(values: list[float]) -> dict[str, Any]:
    """Median and mean."""
    return {"median": float(np.median(values)), "mean": float(np.mean(values))}
