"""How often the moment, and the video, of a test sentence is among the first ones of a whole corpus.

    uv run python benchmarks/corpus_results.py "cfmr, shapes-corpus" --split shapes/test --seeds 0 1 2 \
        --index INDEX INDEX INDEX [--data-root data] [-- OPTIONS OF vmr-search eval]

The indexes are of runs that differ by seed, made by `vmr-search index` or `cfmr-index`. The rows take the place of
those of the same name and split in ``benchmarks/results/corpus.csv``; `results_page.py` shows mean and deviation.
"""

import argparse
import contextlib
import io
import json
import sys
from pathlib import Path

from recording import RESULTS, read_rows, write_rows

from vmr_search.cli.main import main as vmr_search

FIGURES = ("R@1,IoU@0.5", "R@10,IoU@0.5", "R@100,IoU@0.5", "video R@1", "video R@10", "video R@100")
COLUMNS = ("what", "split", "seed", "videos", "queries", "truth", "system", *FIGURES)


def rows_of(what: str, seed: str, command: list[str]) -> list[dict[str, object]]:
    """The rows of one index: the system and chance, by the annotated moment and by graded truth where there is one."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = vmr_search(["eval", *command, "--json"])
    if status:
        sys.exit(status)
    report = json.loads(said.getvalue())
    rows = []
    for system in report["systems"]:
        name, _, graded = system["system"].partition(", ")
        rows.append({"what": what, "split": report["split"], "seed": seed, "videos": report["videos"]})
        rows[-1] |= {"queries": system["num_queries"], "truth": graded or "annotated", "system": name}
        rows[-1] |= {figure: f"{100 * system['values'][figure]:.2f}" for figure in FIGURES}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", help="name of the row: the method and its configuration")
    parser.add_argument("--index", type=Path, nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", required=True, help="of the indexes, in their order")
    parser.add_argument("--split", required=True)
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--out", type=Path, default=RESULTS / "corpus.csv")
    given = sys.argv[1:]
    cut = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:cut])
    kept = read_rows(options.out) if options.out.exists() else []
    rows: list[dict[str, object]] = [
        dict(row) for row in kept if (row["what"], row["split"]) != (options.what, options.split)
    ]
    for seed, index in zip(options.seeds, options.index, strict=True):
        command = [str(index), "--split", options.split, "--data-root", options.data_root, *given[cut + 1 :]]
        rows += rows_of(options.what, seed, command)
    write_rows(options.out, rows, COLUMNS)


if __name__ == "__main__":
    main()
