"""Writes docs/results.md, and the table of the README, from run folders.

    uv run python benchmarks/results_page.py --shapes RUN.. --clip RUN.. --long RUN..

Runs of one package and configuration that differ by seed, threads and kernels are one row; `stability.py --runs`
makes such. All are kept in benchmarks/results/runs.jsonl: a run that is given takes the place of an equal one,
others stay; delete a line there to be rid of a run. Without options the page is only written again.
Parity comes from benchmarks/results/parity.csv, which the parity tests write:

    VMR_PARITY_ERRORS=benchmarks/results/parity.csv uv run pytest -n 0 tests/parity
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from further_results import corpus, presence
from pages import ABSENT, ROOT, giga, page, replace_between, table
from recording import RESULTS, read_rows
from runs import PROTOCOL, Row, Run, differences, quirk_pairs, rows_of, spread, update

from vmr_common.errors import UserError
from vmr_common.io import write_text

COMMAND = "uv run python benchmarks/results_page.py"
THRESHOLDS = ("0.3", "0.5", "0.7")
METRICS = [*(f"R@1,IoU@{m}" for m in THRESHOLDS), "R@1,mIoU", *(f"R@5,IoU@{m}" for m in THRESHOLDS)]
HEAD = ["", "R@1 0.3", "0.5", "0.7", "mIoU", "R@5 0.3", "0.5", "0.7"]
MODELS = {  # package: paper, what it learns from
    "rgn": ("Re-Glance Networks", "one time point per query"),
    "cfmr": ("Faster Video Moment Retrieval with Point-Level Supervision", "one time point per query"),
    "cdn": ("Cross-modal Dynamic Networks", "start and end"),
    "leorn": ("Language-enhanced Object Reasoning Networks", "start and end, with object features"),
    "rgnet": ("RGNet, for videos of hours", "start and end"),
}
ABOUT = f"""What every model reaches here, what that took, and how closely it agrees with its authors' code. Mean ±
sample deviation over runs, in brackets the least and the greatest. Figures that were not run are absent ({ABSENT}),
never estimated. GFLOP per query: counted while the test split was evaluated, divided by its queries, so what
queries of one video share counts once. Training time is by the clock, with the evaluations in between, of the
shortest of the runs, because the machine had other work at the same time."""
SHAPES = """The embedded data set ([shapes.md](shapes.md)): rendered videos, features from pixels, held-out
combinations in the test split. It shows that a method learns; it does not rank methods for real video. `rgnet` is
made for long videos and has a test split of its own, so its figures are not comparable with the others.
To repeat a row, train with each of its seeds, as in `cdn-train --train.seed 1 --name seed-1`; threads and processor
move a figure within its range."""
CLIP = """Real features (CLIP ViT-B/32, one frame per second) of 1,214 videos of the official Charades-STA **test**
part, divided by video into 914 to train on and 300 to evaluate on. Not to be compared with published numbers. There
is a table per test split, because variants of a data set keep different queries."""
LONG = """The same videos joined end to end by `rgnet-data concat`
([long-video-data.md](long-video-data.md#long-streams-out-of-short-videos)), for methods that first have
to find the right part."""
QUIRKS = """The same settings, once with `quirks: released` and once with `quirks: fixed`; the page of each
model lists its quirks. The released rows are runs of version 0.1. Differences within the deviation over runs
say nothing. CDN's and LEORN's released rows were measured with the cross-entropy of logits, which the fixed
ones use."""
PARITY = """Worst difference between what is computed here and what was recorded while the released code ran, over
all arrays of a test: absolute, and relative to the largest number of the array. The parity tests themselves write
it; float32 on the CPU."""
SECTIONS = {
    "shapes": ("Shapes", SHAPES),
    "clip": ("Charades with CLIP features", CLIP),
    "long": ("Long streams of Charades videos with CLIP features", LONG),
}


def percent(values: Sequence[float], *, bounds: bool = False) -> str:
    return spread([100 * value for value in values], ".2f" if len(values) == 1 else ".1f", bounds=bounds)


def name_of(row: Row, note: str) -> str:
    return f"`{row.first.package}`" + (f", {note}" if note else "")


def by_split(runs: Sequence[Run]) -> dict[tuple[str, int], list[Run]]:
    found: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        found.setdefault((run.split, run.queries), []).append(run)
    return found


def baseline_rows(runs: Sequence[Run]) -> list[list[str]]:
    """Chance and bias, as every run of the split found them."""
    chances = {tuple(run.scores["chance"][metric] for metric in METRICS) for run in runs}
    if len(chances) != 1:
        raise UserError(f"{runs[0].split}: the runs were evaluated on different queries (chance differs)")
    rows = [["chance", *(percent([value]) for value in chances.pop())]]
    biases: dict[tuple[float, ...], list[str]] = {}
    for run in runs:
        if "bias" in run.scores:
            packages = biases.setdefault(tuple(run.scores["bias"][metric] for metric in METRICS), [])
            packages += [run.package] * (run.package not in packages)
    for values, packages in biases.items():
        of = "" if len(biases) == 1 else f" of the training queries of {', '.join(packages)}"
        rows.append([f"best constant windows (bias){of}", *(percent([value]) for value in values)])
    return rows


def scores_table(runs: Sequence[Run]) -> str:
    rows = rows_of(runs)
    lines = []
    for row, note in zip(rows, differences(rows), strict=True):
        of = f" ({len(row.runs)} run{'s' * (len(row.runs) > 1)})"
        figures = (percent(row.values(metric), bounds=metric in METRICS[:2]) for metric in METRICS)
        lines.append([name_of(row, note) + of, *figures])
    return table(HEAD, [*lines, *baseline_rows(runs)])


def duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def one_of(values: Sequence[object]) -> str:
    """What all runs agree on, or all that they say."""
    return ", ".join(dict.fromkeys(str(value) for value in values)) or ABSENT


def where(row: Row) -> str:
    """Devices with precision, and for a processor the numbers of threads and the kernels that torch chose."""
    found = [
        ", ".join(dict.fromkeys(f"{run.figures['device']}, {run.figures['precision']}" for run in row.runs))
    ]
    threads = sorted({run.figures["threads"] for run in row.runs if run.figures.get("threads")})
    if threads and all(run.figures["device"] == "cpu" for run in row.runs):
        found.append(f"{' and '.join(map(str, threads))} thread{'s' * (threads != [1])}")
        kernels = sorted({*row.figures("kernels")})
        found += [f"kernels {' and '.join(kernels)}"] if kernels else []
        found += sorted({*row.figures("cpu")})
    return ", ".join(found)


def weights(row: Row) -> str:
    kind = {"validation": "best on validation", "last": "the last", "test": "**best on TEST**"}
    return f"{row.first.config['train']['epochs']}, {kind[row.first.figures['select']]}"


def cost_table(runs: Sequence[Run]) -> str:
    head = ["", "parameters", "GFLOP per query", "training time", "on", "epochs", "quirks", "seeds", "date"]
    lines, rows = [], rows_of(runs)
    for row, note in zip(rows, differences(rows), strict=True):
        flops, seconds = row.figures("flops_per_query"), row.figures("seconds")
        dates = sorted({*row.figures("date")})
        lines.append(
            [
                name_of(row, note),
                f"{row.first.figures['parameters']:,}",
                giga(flops[0]) if flops else ABSENT,
                duration(min(seconds)) if seconds else ABSENT,
                where(row),
                weights(row),
                row.first.config["quirks"],
                one_of(row.figures("seed")),
                dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}",
            ]
        )
    return table(head, lines)


def without_twins(runs: Sequence[Run]) -> list[Run]:
    """The runs without the released ones of those whose quirks alone differ: these stand in a table of their own."""
    rows = rows_of(runs)
    twins = [released for released, _ in quirk_pairs(rows)]
    return [run for row in rows if row not in twins for run in row.runs]


def section(name: str, runs: Sequence[Run]) -> str | None:
    mine = without_twins([run for run in runs if run.section == name])
    if not mine:
        return None
    title, about = SECTIONS[name]
    parts = [f"## {title}", about]
    for (split, queries), part in by_split(mine).items():
        missing = sum(run.missing for run in part)
        said = f", {missing} without prediction" if missing else ""
        parts += [
            f"**{split}**, {queries:,} queries{said}, protocol `{PROTOCOL}`, percent:",
            scores_table(part),
        ]
        parts += ["What it took:", cost_table(part)]
    return "\n\n".join(parts)


def quirks(runs: Sequence[Run]) -> str | None:
    pairs = quirk_pairs(rows_of(runs))
    if not pairs:
        return None
    lines = []
    for released, fixed in pairs:
        name = f"`{released.first.package}`, {released.first.split}"
        for label, row in (("released", released), ("fixed", fixed)):
            lines.append(
                [name, label, one_of(row.figures("seed")), *(percent(row.values(m)) for m in METRICS)]
            )
    return "\n\n".join(
        [
            "## What the released quirks are worth",
            QUIRKS,
            table(["", "quirks", "seeds", *HEAD[1:]], lines),
        ]
    )


def read_parity() -> list[dict[str, str]]:
    path = RESULTS / "parity.csv"
    return read_rows(path) if path.is_file() else []


def parity(rows: Sequence[dict[str, str]]) -> str | None:
    if not rows:
        return None
    ordered = sorted(rows, key=lambda row: [*MODELS].index(row["package"]))
    lines = [
        [f"`{row['package']}`", row["stage"], row["arrays"], row["worst_absolute"], row["worst_relative"]]
        for row in ordered
    ]
    return "\n\n".join(
        [
            "## Parity with the authors' code",
            PARITY,
            table(["", "test", "arrays", "worst absolute", "worst relative"], lines),
        ]
    )


def overview(runs: Sequence[Run], errors: Sequence[dict[str, str]]) -> str:
    """The first table: a row per package, in the README too."""
    mine = [run for run in runs if run.section == "shapes"]
    rows = rows_of(mine)
    lines = []
    for package, (paper, learns) in MODELS.items():
        # where a package was run with several settings, the first ones given count
        row = next((row for row in rows if row.first.package == package), None)
        cells = [ABSENT] * 4 if row is None else overview_cells(row)
        lines.append([f"`{package}`", paper, learns, *cells, agreement(package, errors)])
    return table(
        [
            "package",
            "paper",
            "learns from",
            "Shapes (test) R@1 IoU 0.3 / 0.5",
            "bias",
            "chance",
            "runs",
            "parity",
        ],
        lines,
    )


def overview_cells(row: Row) -> list[str]:
    both = METRICS[:2]

    def of(name: str) -> str:
        found = row.first.scores.get(name)
        return ABSENT if found is None else " / ".join(f"{100 * found[metric]:.1f}" for metric in both)

    mean = " / ".join(percent(row.values(metric), bounds=True) for metric in both)
    long = "" if row.first.split == "shapes/test" else f" ({row.first.split.partition('/')[0]})"
    return [mean + long, of("bias"), of("chance"), str(len(row.runs))]


def agreement(package: str, errors: Sequence[dict[str, str]]) -> str:
    mine = [row for row in errors if row["package"] == package]
    if not mine:
        return ABSENT
    worst = max(float(row["worst_relative"]) for row in mine)
    return f"{sum(int(row['arrays']) for row in mine):,} recorded arrays within {worst:.0e}"


def render(runs: Sequence[Run], errors: Sequence[dict[str, str]]) -> str:
    parts = [
        "# Results",
        ABOUT,
        overview(runs, errors),
        *(section(name, runs) for name in SECTIONS),
        corpus(),
        presence(),
        quirks(runs),
        parity(errors),
    ]
    return page(*(part for part in parts if part), command=COMMAND)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, (title, _) in SECTIONS.items():
        parser.add_argument(f"--{name}", nargs="+", type=Path, metavar="RUN", help=f"run folders: {title}")
    parser.add_argument("--kept", type=Path, default=RESULTS / "runs.jsonl", help="where figures are kept")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results.md")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    options = parser.parse_args(argv)
    given = {name: folders for name in SECTIONS if (folders := getattr(options, name)) is not None}
    try:
        runs = update(options.kept, given, [*MODELS])
        errors = read_parity()
        write_text(options.out, render(runs, errors))
        replace_between(options.readme, "results", overview(runs, errors))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
