"""Draws the plots of docs/ from the csv files of benchmarks/results/.

    uv run --group plots python benchmarks/plot.py [NAME ...]

One SVG per name in docs/images/; without names, all whose results are there.
"""

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
IMAGES = Path(__file__).parents[1] / "docs/images"
COLOURS = ("#1f6f8b", "#c8553d", "#5a8f29", "#7a4f9e", "#8a8a8a")


def rows(pattern: str) -> list[dict[str, str]]:
    """The rows of all results of one kind, with the machine's name added."""
    found = []
    for path in sorted(RESULTS.glob(f"{pattern}-*.csv")):
        machine = path.stem.removeprefix(f"{pattern}-")
        with path.open(newline="") as file:
            found += [{**row, "machine": machine} for row in csv.DictReader(file)]
    return found


def cfmr_corpus() -> Figure | None:
    """Seconds per query over the number of videos."""
    table = rows("cfmr-corpus")
    if not table:
        return None
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    lines = sorted({(row["dtype"], row["batch"], row["threads"]) for row in table})
    for number, (dtype, batch, threads) in enumerate(lines):
        mine = [
            row for row in table if (row["dtype"], row["batch"], row["threads"]) == (dtype, batch, threads)
        ]
        mine.sort(key=lambda row: int(row["videos"]))
        axes.plot(
            [int(row["videos"]) for row in mine],
            [1e3 * float(row["s_per_query"]) for row in mine],
            marker="o" if batch == "1" else "s",
            linestyle="-" if dtype == "float16" else "--",
            color=COLOURS[number % len(COLOURS)],
            label=f"{dtype}, {batch} at once, {threads} thread{'s' * (threads != '1')}",
        )
    axes.set(xscale="log", yscale="log", xlabel="videos in the index", ylabel="milliseconds per query")
    axes.grid(visible=True, which="major", linewidth=0.4)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(f"CFMR: exact search of a collection ({table[0]['machine']})", fontsize=9, loc="left")
    return figure


PLOTS: dict[str, Callable[[], Figure | None]] = {"cfmr-corpus": cfmr_corpus}


def main(names: list[str]) -> None:
    # letters stay letters, and the same numbers give the same bytes
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "vmr", "font.family": "sans-serif"})
    for name in names or PLOTS:
        figure = PLOTS[name]()
        if figure is None:
            sys.stdout.write(f"{name}: no results\n")
            continue
        path = IMAGES / f"{name}.svg"
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
        sys.stdout.write(f"{path.relative_to(IMAGES.parents[1])}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
