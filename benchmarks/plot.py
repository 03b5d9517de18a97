"""Draws the plots of docs/ from the csv files of benchmarks/results/.

    uv run --group plots python benchmarks/plot.py [NAME ...]

One SVG per name in docs/images/; without names, all whose results are there.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from recording import RESULTS, read_rows

IMAGES = Path(__file__).parents[1] / "docs/images"
COLOURS = ("#1f6f8b", "#c8553d", "#5a8f29", "#7a4f9e", "#8a8a8a")


def rows(pattern: str, *, anywhere: bool = False) -> list[dict[str, str]]:
    """The rows of all results of one kind, with the machine's name added; counts are the same anywhere."""
    found = []
    for path in sorted(RESULTS.glob(f"{pattern}.csv" if anywhere else f"{pattern}-*.csv")):
        machine = path.stem.removeprefix(f"{pattern}-")
        found += [{**row, "machine": machine} for row in read_rows(path)]
    return found


def cfmr_corpus() -> Figure | None:
    """Seconds per query over the number of videos."""
    table = rows("cfmr-corpus")
    if not table:
        return None
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    lines = sorted({(row["dtype"], row["batch"], row["threads"]) for row in table})
    kinds = sorted({(batch, threads) for _, batch, threads in lines})
    for dtype, batch, threads in lines:
        mine = [
            row for row in table if (row["dtype"], row["batch"], row["threads"]) == (dtype, batch, threads)
        ]
        mine.sort(key=lambda row: int(row["videos"]))
        axes.plot(
            [int(row["videos"]) for row in mine],
            [1e3 * float(row["s_per_query"]) for row in mine],
            marker="o" if batch == "1" else "s",
            linestyle="-" if dtype == "float16" else "--",
            color=COLOURS[kinds.index((batch, threads)) % len(COLOURS)],
            label=f"{dtype}, {batch} at once, {threads} thread{'s' * (threads != '1')}",
        )
    axes.set(xscale="log", yscale="log", xlabel="videos in the index", ylabel="milliseconds per query")
    axes.grid(visible=True, which="major", linewidth=0.4)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(f"CFMR: exact search of a collection ({table[0]['machine']})", fontsize=9, loc="left")
    return figure


def bars(axes: Axes, labels: list[str], values: list[float], title: str, unit: str) -> None:
    """Horizontal bars with their numbers, the first on top."""
    drawn = axes.barh(range(len(values)), values, 0.7, color=COLOURS[0])
    axes.bar_label(drawn, fmt="%.3g", fontsize=7, padding=2)
    axes.set_yticks(range(len(values)), labels, fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(unit, fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")


def operations(axes: Axes, package: str) -> None:
    """Counted operations beside the authors' program, as shares of it: the counts span many magnitudes."""
    table = [row for row in rows("flops", anywhere=True) if row["package"] == package]
    labels = [
        f"{row['setting']}: {row['what']}\n{row['ours_gflop']} of {row['authors_gflop']} GFLOP"
        for row in table
    ]
    shares = [100 * float(row["ours_over_authors"]) for row in table]
    bars(axes, labels, shares, f"{package.upper()}: operations", "percent of the authors' program")
    axes.axvline(100, color=COLOURS[-1], linewidth=0.8)


def rgn_seconds(axes: Axes) -> None:
    """Milliseconds per query by precision."""
    table = [row for row in rows("rgn") if row["precision"]]
    labels = [
        f"{row['case']}, {row['precision']}\n{row['threads']} thread{'s' * (row['threads'] != '1')}"
        for row in table
    ]
    values = [float(row["ms_per_query"]) for row in table]
    bars(axes, labels, values, f"measured ({table[0]['machine']})", "milliseconds per query")


def object_seconds(axes: Axes) -> None:
    """Milliseconds to load the objects of a query."""
    table = rows("object-loading")
    labels = [f"{row['case']}, {row['loader']}" for row in table]
    values = [float(row["ms_per_query"]) for row in table]
    bars(axes, labels, values, f"loading objects ({table[0]['machine']})", "milliseconds per query")


def map_memory(axes: Axes) -> None:
    """What autograd keeps of a training step of CDN."""
    table = rows("cdn-memory")
    bars(
        axes,
        [row["form"] for row in table],
        [float(row["kept_mb"]) for row in table],
        f"a training step at the size of TACoS ({table[0]['machine']})",
        "MB kept for the backward pass, batch of 1",
    )


def coarse_windows() -> Figure | None:
    """RGNet: what is found over the time of the search, for several numbers of windows that are examined."""
    table = [row for row in rows("coarse-windows") if row["matching"] == "yes"]
    if not table:
        return None
    splits = sorted({row["split"] for row in table}, reverse=True)
    figure = Figure(figsize=(4.8 * len(splits), 3.4), layout="constrained")
    for axes, split in zip(figure.subplots(1, len(splits), squeeze=False)[0], splits, strict=True):
        mine = sorted(
            (row for row in table if row["split"] == split),
            key=lambda row: (row["examined"] == "all", row["examined"].zfill(4)),
        )
        times = [float(row["cpu_ms_per_query"]) for row in mine]
        kinds = {"kept": "window kept", "window_R@1": "window R@1", "R@1_0.3": "R@1, IoU 0.3"}
        for (kind, name), colour in zip(kinds.items(), COLOURS, strict=False):
            axes.plot(times, [float(row[kind]) for row in mine], "o-", color=colour, label=name, markersize=4)
        for time, row in zip(times, mine, strict=True):
            axes.annotate(
                row["examined"], (time, float(row["kept"])), (0, 5), textcoords="offset points", fontsize=7
            )
        axes.set(xlabel="milliseconds of processor time per query", ylabel="percent", ylim=(0, 110))
        axes.set_title(f"{split}, {mine[0]['windows']} windows", fontsize=9, loc="left")
        axes.grid(linewidth=0.4)
        axes.legend(frameon=False, fontsize=8)
    return figure


def rgnet_seconds(axes: Axes) -> None:
    """Seconds per query over long videos, with the plain form where it was run."""
    table = rows("rgnet")
    kinds = {
        "first_query_s": "first query of a video",
        "following_s": "following query",
        "plain_s": "plain form",
    }
    labels, values = [], []
    for row in table:
        for kind, name in kinds.items():
            if row[kind]:
                labels.append(f"{row['hours']} h, {row['examined']} of {row['windows']} windows: {name}")
                values.append(float(row[kind]))
    bars(axes, labels, values, f"measured ({table[0]['machine']})", "seconds")


def of_package(package: str, kind: str = "", measured: Callable[[Axes], None] | None = None) -> Figure | None:
    """Operations, and beside them what was measured, where it was."""
    counted = [row for row in rows("flops", anywhere=True) if row["package"] == package]
    if not counted:
        return None
    both = measured is not None and bool(rows(kind))
    tallest = max(len(counted), len(rows(kind)) if both else 0)
    figure = Figure(figsize=(9.6 if both else 6.4, 1.2 + 0.34 * tallest), layout="constrained")
    left, *right = figure.subplots(1, 1 + both, squeeze=False)[0]
    operations(left, package)
    if measured is not None and right:
        measured(right[0])
    return figure


PLOTS: dict[str, Callable[[], Figure | None]] = {
    "cfmr-corpus": cfmr_corpus,
    "coarse-windows": coarse_windows,
    "rgn": lambda: of_package("rgn", "rgn", rgn_seconds),
    "cfmr": lambda: of_package("cfmr"),
    "cdn": lambda: of_package("cdn", "cdn-memory", map_memory),
    "leorn": lambda: of_package("leorn", "object-loading", object_seconds),
    "rgnet": lambda: of_package("rgnet", "rgnet", rgnet_seconds),
}


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
