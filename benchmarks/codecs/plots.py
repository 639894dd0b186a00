"""Rate-distortion curves: a figure for each vector, at its largest size, and the gap to the bound on Gaussian data."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.codecs import measure, our_codecs

Row = dict[str, Any]

OURS = "Laconic"
EDEN = "EDEN, by its formula"
RATE_LIMITS = (0.008, 40.0)
DISTORTION_LIMITS = (1e-5, 300.0)
TITLES = {
    "gaussian": "Gaussian",
    "laplace": "Laplace",
    "lognormal": "log-normal",
    "student_t3": "Student t, 3 degrees of freedom",
    "sparse_1pct": "one entry in a hundred Gaussian, the rest 0",
    "update_1": "a client's update in round 1",
    "update_30": "a client's update in round 30",
    "update_120": "a client's update in round 120",
    "update_1_dense": "the dense layer of a client's update in round 1",
    "update_30_dense": "the dense layer of a client's update in round 30",
    "update_120_dense": "the dense layer of a client's update in round 120",
}


def draw(rows: Sequence[Row], folder: Path) -> None:
    """Writes rate_distortion_VECTOR.png and gap.png."""
    import matplotlib as mpl

    mpl.use("Agg")
    measured = [row for row in rows if row.get("bits_per_parameter") and row.get("nmse", 0) > 0]
    styles = _styles(measured)
    for name in dict.fromkeys(row["vector"] for row in measured):
        size = max(row["size"] for row in measured if row["vector"] == name)
        chosen = [row for row in measured if (row["vector"], row["size"]) == (name, size)]
        _rate_distortion(name, size, chosen, styles, folder / f"rate_distortion_{name}.png")
    sizes = {row["size"] for row in measured if row["vector"] == "gaussian"}
    if sizes:
        size = 2**20 if 2**20 in sizes else max(sizes)
        chosen = [row for row in measured if (row["vector"], row["size"]) == ("gaussian", size)]
        _gap(size, chosen, styles, folder / "gap.png")


def _styles(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Each family's colour and marker, the same in all figures: ours filled and joined, peers' hollow and dotted."""
    import matplotlib.pyplot as plt

    colours = [*plt.get_cmap("tab10").colors, *plt.get_cmap("Dark2").colors]  # type: ignore[attr-defined]
    pairs = itertools.cycle(zip(itertools.cycle(colours), itertools.cycle("osD^vP*X<>ph"), strict=False))
    styles: dict[str, dict[str, Any]] = {}
    for family, by in dict.fromkeys((row["family"], row["by"]) for row in rows):
        colour, marker = next(pairs)
        own: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.2}
        if by != OURS:
            own |= {"markerfacecolor": "none", "linestyle": ":", "linewidth": 0.9}
        styles[family] = own
    return styles


def _rate_distortion(name: str, size: int, rows: Sequence[Row], styles: dict[str, Any], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(16, 9), sharex=True, sharey=True, layout="constrained")
    for axes, unbiased in zip(panels, (True, False), strict=True):
        bound = np.geomspace(1e-6, 1e3 if unbiased else 0.999, 400)
        rates = [measure.shannon_rate(distortion, unbiased=unbiased) for distortion in bound]
        formula = "½ log₂(1 + 1/NMSE)" if unbiased else "½ log₂(1/NMSE)"
        axes.plot(rates, bound, color="black", linewidth=1.6, label=f"Shannon, Gaussian: {formula}")
        for family, points in _curves([row for row in rows if row["unbiased"] == unbiased], "nmse"):
            axes.plot(*zip(*points, strict=True), label=family, **styles[family])
        axes.set(xscale="log", yscale="log", xlim=RATE_LIMITS, ylim=DISTORTION_LIMITS, xlabel="bits per parameter",
                 title="unbiased codecs" if unbiased else "biased codecs")  # fmt: skip
        ticks = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 32]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(visible=True, color="0.9")
        if name == "gaussian" and unbiased:
            axes.plot(
                *zip(*our_codecs.EDEN_NMSE_AT_RATE.items(), strict=True), "*", color="crimson", markersize=9, label=EDEN
            )
        axes.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.09), frameon=False)
    panels[0].set_ylabel("NMSE, |decoded - x|² / |x|²")
    figure.suptitle(f"{TITLES.get(name, name)}, d = {size:,}: real bytes against measured error")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _gap(size: int, rows: Sequence[Row], styles: dict[str, Any], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(10, 6.5), layout="constrained")
    for family, points in _curves([row for row in rows if row["unbiased"] and row.get("gap") is not None], "gap"):
        if min(gap for _, gap in points) < 1.0:
            axes.plot(*zip(*points, strict=True), label=family, **styles[family])
    formula = [
        (rate, rate - measure.shannon_rate(nmse, unbiased=True)) for rate, nmse in our_codecs.EDEN_NMSE_AT_RATE.items()
    ]
    axes.plot(*zip(*formula, strict=True), "*", color="crimson", markersize=9, label=EDEN)
    axes.axhline(0.2546, color="black", linewidth=1, linestyle="--")
    axes.text(8.4, 0.2546, " scalar\n floor", va="center", fontsize=8)
    axes.axhline(0, color="black", linewidth=1.4)
    ticks = [0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8]
    axes.set(xscale="log", xlim=(0.015, 8.4), ylim=(-0.05, 1.2), xlabel="bits per parameter",
             ylabel="bits per parameter above ½ log₂(1 + 1/NMSE)",
             title=f"Unbiased codecs on Gaussian data, d = {size:,}: distance from the bound")  # fmt: skip
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(visible=True, color="0.9")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _curves(rows: Sequence[Row], y: str) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    for family in dict.fromkeys(row["family"] for row in rows):
        points = [(row["bits_per_parameter"], row[y]) for row in rows if row["family"] == family]
        # Along the curve, which in rate may turn back.
        yield family, sorted(points, key=lambda point: -point[1] if y == "nmse" else point[0])
