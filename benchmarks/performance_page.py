"""Writes docs/performance.md from the csv files of benchmarks/results/: what is there is shown, the rest is absent.

    uv run python benchmarks/performance_page.py

A file is named by what it measures and the machine, ``rgn-amd-epyc.csv``. Columns that say the same in every row stand
above the table. Plots (benchmarks/plot.py) are shown where they are drawn.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from pages import ABSENT, ROOT, page, table
from recording import RESULTS, read_rows

from vmr_common.io import write_text

COMMAND = "uv run python benchmarks/performance_page.py"
NOT_OURS = ("parity", "leorn-ablation", "corpus", "presence")  # these belong to other pages
ABOUT = """Operations are not seconds: fewer of them can take longer, so the first table has both.

- Operations are counts, asserted by tests (`tests/<package>/test_cost.py`).
- Seconds are measured by `benchmarks/` on the machine that the heading of a table names, and never asserted.
- What was not measured is absent.
- Seconds of RGN and RGNet in the sections of their own were taken before the code that the first table measures, on a
  processor with AVX-512; they do not compare with those of CFMR's query, taken on one with AVX2."""
AGAINST_PLAIN = """Processor time of ours over that of a plain form (`benchmarks/plain/`).
The plain form gives the same numbers on the same weights and inputs.
It runs what the papers' programs run: full maps, every pass a call of its own, every window of a video anew.
Both run in turn in one process; below 1 is faster.

- `ratio`: the median over the pairs; `least` and `most`: their range.
- `flop ratio`: that of the operations.
- `difference`: the largest one of what both gave, relative.
- `first`: the ratio of version 0.1 to the authors' own programs on a Xeon with AVX-512 and AMX.
- `goal`: what we set ourselves."""
FLOPS = """GFLOP, two per multiplication and addition, of matrix products, convolutions, attention and recurrent layers.
The authors' column is what their released program runs at the same sizes, counted on it or by formula.
The numbers that come out are the same ([results.md](results.md), parity)."""

PLOTS = {  # of docs/images/: what they show
    "rgn": "RGN: operations beside the authors', and milliseconds per query",
    "cfmr": "CFMR: operations beside the authors'",
    "cdn": "CDN: operations beside the authors', and memory kept for the backward pass",
    "leorn": "LEORN: operations beside the authors', and milliseconds to load objects",
    "rgnet": "RGNet: operations beside the authors', and seconds per query over long videos",
}


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        kind: Begins the names of its csv files.
        title: Heading.
        about: Text below it.
        script: What writes the csv.
        plots: Names of svg files in docs/images/.
    """

    kind: str
    title: str
    about: str
    script: str
    plots: tuple[str, ...] = ()


SECTIONS = (
    Section("against-plain", "Seconds beside operations", AGAINST_PLAIN, "against_plain.py"),
    Section(
        "default-runs",
        "A default training run",
        "`*-train` on Shapes as typed, from the command to its last line; `test` is R@1 at an overlap of 0.5.",
        "default_runs.py",
    ),
    Section(
        "stability",
        "The same run with other seeds, threads and kernels",
        "Percent of the test split, and processor seconds; `native` kernels are the machine's own (AVX2 there).",
        "stability.py",
    ),
    Section("flops", "Operations per query, beside the authors'", FLOPS, "flops.py", tuple(PLOTS)),
    Section("rgn", "RGN: a training step, inference, the loader", "Sizes of Charades-STA.", "rgn_speed.py"),
    Section(
        "cfmr-latency",
        "CFMR: one query",
        "Sizes of Charades-STA, a query of 7 words; warm: the video's vectors are at hand.",
        "cfmr_speed.py latency",
    ),
    Section(
        "cfmr-corpus",
        "CFMR: searching a whole collection",
        "Every proposal of every video is scored; the result is exact.",
        "cfmr_speed.py corpus",
        ("cfmr-corpus",),
    ),
    Section(
        "cdn",
        "CDN: a training step and inference",
        "The eight map layers alone: size of TACoS, one sample, forward; `plain` is a convolution over the full "
        "map, the others are the ways that are built in.\nStep and inference: a whole batch, sizes of Charades-STA.",
        "cdn_speed.py",
    ),
    Section(
        "cdn-memory",
        "CDN: memory of a training step",
        "Sizes of TACoS; the plain form keeps full maps and gives the same losses.",
        "cdn_memory.py",
    ),
    Section(
        "leorn-memory-kept",
        "LEORN: what a training step keeps for the backward pass",
        "One query and its video at the sizes of the papers, with and without computing again.",
        "leorn_memory.py",
    ),
    Section(
        "leorn-memory-step",
        "LEORN: memory of a training step",
        "A real step in a process of its own; peak over what Python and torch take.",
        "leorn_memory.py --step",
    ),
    Section(
        "object-loading",
        "LEORN: loading objects",
        "256 frames per video.\n`plain` reads the whole array for every query; `warm` finds the video in memory.\n"
        "Processor time of one thread, files in the page cache.",
        "object_loading.py",
    ),
    Section(
        "rgnet",
        "RGNet: a query over long videos",
        "Sizes of MAD, five rows per second.\nThe plain form computes and decodes every window for every query.",
        "rgnet_speed.py",
    ),
    Section(
        "coarse-windows",
        "RGNet: looking only at the windows most like the sentence",
        "- `kept`: how often a window of the moment is among those examined, percent.\n"
        "- `matching`: whether moments are also ranked by their likeness.\n\n"
        "Sentence vectors: a linear map of mean word vectors, learnt on the training queries.\n"
        "Queries of one video go together only where all windows are examined.",
        "rgnet_coarse.py",
        ("coarse-windows",),
    ),
    Section(
        "features",
        "Reading and pooling features",
        "Against raw h5py with the file kept open (`plain`) and opened for every video (`reopened`); `first` also "
        "checks every value.\nProcessor time of one thread, milliseconds per video.",
        "features.py",
    ),
    Section(
        "metrics",
        "Evaluation protocols",
        "Against loops over queries that give the same figures.\nProcessor time of one thread.",
        "metrics.py",
    ),
    Section(
        "query-memory",
        "Memory per annotated query",
        "Resident bytes above those of the same with 1,000 queries, per query: at most (`peak`) and when the "
        "queries are read (`held`).\nActivityNet's file is one JSON document, which is parsed at once.\n`vmr-score` "
        "reads five windows per query too, and scores random ones beside them.",
        "query_memory.py",
    ),
    Section(
        "corpus-search",
        "Search of a corpus: the engines",
        "24 float16 vectors of 1,792 numbers a video, one sentence at a time; recall is of the exact first ten.",
        "corpus_search.py",
    ),
    Section(
        "search-latency",
        "Search of a corpus: a whole request",
        "Milliseconds of a sentence over all Shapes videos, by part; `ground` is the method of the second stage.",
        "search_latency.py",
    ),
    Section(
        "decoding",
        "Video files: frames",
        "Against PyAV's bare loop of decoding; above 1 ours is faster.",
        "decoding.py",
    ),
    Section(
        "extraction",
        "Video files: features",
        "Extracting features against the bare network, in videos or frames a second; and decoding alone.",
        "extraction.py",
    ),
    Section(
        "video-files",
        "Video files: the same answers",
        "Percent of queries whose answers from rendered files (by quality of H.264) are those from stored features.",
        "video_files.py",
    ),
)


def kind_of(path: Path) -> tuple[str, str]:
    """What a csv measures and on which machine; a kind that no section names is the whole name."""
    fits = [section.kind for section in SECTIONS if f"{path.stem}-".startswith(f"{section.kind}-")]
    kind = max(fits, key=len, default=path.stem)
    return kind, path.stem.removeprefix(kind).strip("-")


def spaced(name: str) -> str:
    return name.replace("_", " ")


def measured(path: Path) -> str:
    """One csv: what all rows share, then the table of the rest."""
    rows = read_rows(path)
    machine = kind_of(path)[1]
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    shared = [name for name in columns if len(rows) > 1 and len({row[name] for row in rows}) == 1]
    said = [f"{spaced(name)} {rows[0][name]}" for name in shared if rows[0][name] != machine]
    heading = ", ".join([f"**{machine}**" if machine else "", *said]).strip(", ")
    left = [name for name in columns if name not in shared]
    cells = [[row[name] or ABSENT for name in left] for row in rows]
    shown = table([spaced(name) for name in left], cells)
    return f"{heading}:\n\n{shown}" if heading else shown


def shortfalls(path: Path) -> str:
    """The cases of a csv with ratios that are slower than the plain form, and those short of their goal."""
    rows = [row for row in read_rows(path) if "ratio" in row and "goal" in row]
    slower = [f"{row['case']} ({row['ratio']})" for row in rows if float(row["ratio"]) > 1]
    short = [
        f"{row['case']} ({row['ratio']}, goal {row['goal']})"
        for row in rows
        if float(row["ratio"]) > float(row["goal"])
    ]
    found = (("Slower than the plain form", slower), ("Short of the goal", short))
    return "\n\n".join(f"{title}: {', '.join(cases)}." for title, cases in found if cases)


def part(section: Section, paths: list[Path], images: Path) -> str:
    lines = [f"## {section.title}", section.about]
    drawn = [name for name in section.plots if (images / f"{name}.svg").is_file()]
    lines += [f"![{PLOTS.get(name, section.title)}](images/{name}.svg)" for name in drawn]
    for path in paths:
        lines += [measured(path), shortfalls(path)]
    if section.script:
        lines.append(f"`uv run python benchmarks/{section.script}`")
    return "\n\n".join(line for line in lines if line)


def render(results: Path, images: Path) -> str:
    found: dict[str, list[Path]] = {}
    for path in sorted(results.glob("*.csv")):
        if path.stem not in NOT_OURS:
            found.setdefault(kind_of(path)[0], []).append(path)
    known = [part(section, found.pop(section.kind), images) for section in SECTIONS if section.kind in found]
    others = [part(Section(kind, kind, "", ""), paths, images) for kind, paths in found.items()]
    return page("# Performance", ABOUT, *known, *others, command=COMMAND)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs/performance.md")
    options = parser.parse_args()
    write_text(options.out, render(RESULTS, ROOT / "docs/images"))
    print(options.out)


if __name__ == "__main__":
    main()
