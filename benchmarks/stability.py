"""How far a default run on Shapes depends on seed, threads and CPU kernels, which rounding alone may decide.

    uv run python benchmarks/stability.py [PAPER ...] [--seeds 0 1 2] [--threads 1 2] [--kernels default avx2]
        [--jobs 2] [--data-root FOLDER] [--runs FOLDER] [--out FILE] [-- OPTIONS OF THE TRAINING COMMAND]

Every run is a process of its own, as a user types it; its row is added to the csv as soon as it ends, and a row that is
there is not measured again. `kernels` is what torch chooses from (ATEN_CPU_CAPABILITY; `native` leaves it the choice),
figures are percent of the test split (protocol `strict`). `uv run python benchmarks/stability.py --table` prints mean,
deviation and range of the file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from recording import measured_here, read_rows, write_rows

PAPERS = ("rgn", "cfmr", "cdn", "leorn", "rgnet")
METRICS = ("R@1,IoU@0.3", "R@1,IoU@0.5", "R@1,IoU@0.7", "R@1,mIoU")
CELL = ("paper", "seed", "threads", "kernels")
COLUMNS = (*CELL, *METRICS, "cpu_seconds")


def run_cell(cell: Sequence[str], root: Path, runs: Path, options: Sequence[str]) -> dict[str, str]:
    """The row of one run: paper, seed, threads and kernels, then its figures; its folder is made in `runs`.

    Raises:
        subprocess.CalledProcessError: if the training fails.
    """
    paper, seed, threads, kernels = cell
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    environment["OMP_WAIT_POLICY"] = "passive"  # runs beside each other
    environment.pop("ATEN_CPU_CAPABILITY", None)
    if kernels != "native":
        environment["ATEN_CPU_CAPABILITY"] = kernels
    name = "-".join((*cell[1:], *(option.strip("-") for option in options)))
    command = [
        sys.executable,
        "-m",
        paper,
        "train",
        "--data-root",
        str(root),
        "--runs",
        str(runs),
        "--overwrite",
    ]
    command += ["--train.device", "cpu", "--train.seed", seed, *options, "--name", name]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    message = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise RuntimeError(f"{' '.join(command)}: {message}")
    rows = json.loads((runs / paper / name / "results.json").read_text())
    values = next(row["values"] for row in rows if row["protocol"] == "strict" and row["name"] == paper)
    figures = {metric: f"{100 * values[metric]:.2f}" for metric in METRICS}
    seconds = f"{usage.ru_utime + usage.ru_stime:.0f}"
    return dict(zip(CELL, cell, strict=True)) | figures | {"cpu_seconds": seconds}


def table(rows: Sequence[dict[str, str]]) -> list[str]:
    """Lines of mean, sample deviation and range of every paper's runs, over all cells and by kernels and threads."""
    lines = []
    for paper in dict.fromkeys(row["paper"] for row in rows):
        mine = [row for row in rows if row["paper"] == paper]
        groups = {"all": mine}
        for row in mine:
            groups.setdefault(f"{row['threads']} threads, {row['kernels']}", []).append(row)
        for name, group in groups.items():
            parts = []
            for metric in METRICS:
                values = [float(row[metric]) for row in group]
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                parts.append(
                    f"{statistics.mean(values):.1f} ± {spread:.1f} ({min(values):.1f} to {max(values):.1f})"
                )
            lines.append(f"{paper:6} {name:20} {len(group):3} runs  " + "  ".join(parts))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("papers", nargs="*", metavar="PAPER", help=f"of {', '.join(PAPERS)} (default: all)")
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--threads", nargs="+", default=["1", "2"])
    parser.add_argument("--kernels", nargs="+", default=["native"])
    parser.add_argument("--jobs", type=int, default=1, help="runs beside each other")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--runs", type=Path, help="keep the run folders here (default: they are removed)")
    parser.add_argument("--out", type=Path, default=measured_here("stability"))
    parser.add_argument(
        "--table", action="store_true", help="print the table of what is there, and run nothing"
    )
    given = sys.argv[1:]
    cut = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:cut])
    training = given[cut + 1 :]
    rows = read_rows(options.out) if options.out.exists() else []
    if not options.table:
        there = {tuple(row[name] for name in CELL) for row in rows}
        cells = itertools.product(options.seeds, options.threads, options.kernels, options.papers or PAPERS)
        wanted = [(paper, *rest) for *rest, paper in cells if (paper, *rest) not in there]
        with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(options.jobs) as pool:
            runs = options.runs or Path(temporary)
            for row in pool.map(lambda cell: run_cell(cell, options.data_root, runs, training), wanted):
                rows.append(row)
                print(time.strftime("%H:%M:%S"), " ".join(row.values()), flush=True)
                write_rows(options.out, rows, COLUMNS)
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
