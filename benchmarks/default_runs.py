"""Seconds of every paper's default training run on Shapes, as a user types it: from the command to its last line.

    uv run python benchmarks/default_runs.py [PAPER ...] [--threads 2] [--epochs N] [--data-root FOLDER]

The data sets are made before, in seconds that have rows of their own. `test` is what the table shows at the end: R@1 at
an overlap of 0.5.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from recording import measured_here, write_rows

PAPERS = ("rgn", "cfmr", "cdn", "leorn", "rgnet")
METRIC = "R@1,IoU@0.5"
MAKE = "from vmr_shapes.cli import main; import sys; sys.exit(main())"


def timed_command(command: list[str], threads: int) -> tuple[float, float]:
    """Seconds of a process by the clock and of processor time.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    before, begin = os.times(), time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - begin, processor


def default_run(paper: str, root: Path, runs: Path, threads: int, epochs: int | None) -> dict[str, object]:
    """The row of one run."""
    command = [sys.executable, "-m", paper, "train", "--data-root", str(root), "--runs", str(runs)]
    command += ["--train.device", "cpu"]
    if epochs is not None:
        command += ["--train.epochs", str(epochs)]
    clock, processor = timed_command(command, threads)
    folder = next((runs / paper).iterdir())
    rows = json.loads((folder / "results.json").read_text())
    found = next(row for row in rows if row["protocol"] == "strict" and row["name"] == paper)
    return {
        "what": f"{paper}-train",
        "threads": threads,
        "epochs": yaml.safe_load((folder / "config.yaml").read_text())["train"]["epochs"],
        "seconds": f"{clock:.0f}",
        "cpu_seconds": f"{processor:.0f}",
        "test": f"{100 * found['values'][METRIC]:.1f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("papers", nargs="*", metavar="PAPER", help=f"of {', '.join(PAPERS)} (default: all)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, help="fewer than the default run has; nothing is written then")
    parser.add_argument("--data-root", type=Path, help="where Shapes is, or comes to be (default: made anew)")
    options = parser.parse_args()
    papers = options.papers or PAPERS
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as temporary:
        root = options.data_root or Path(temporary)
        for long in ([], ["--long"]):
            if not (root / ("shapes-long" if long else "shapes")).exists():
                clock, processor = timed_command(
                    [sys.executable, "-c", MAKE, "--data-root", str(root), *long], options.threads
                )
                rows.append({"what": " ".join(["vmr-shapes", *long]), "threads": options.threads})
                rows[-1] |= {"seconds": f"{clock:.0f}", "cpu_seconds": f"{processor:.0f}"}
                print(rows[-1], flush=True)
        for paper in papers:
            rows.append(default_run(paper, root, Path(temporary) / "runs", options.threads, options.epochs))
            print(rows[-1], flush=True)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    if not options.papers and options.epochs is None:
        columns = ("what", "threads", "epochs", "seconds", "cpu_seconds", "test")
        write_rows(measured_here("default-runs"), rows, columns)


if __name__ == "__main__":
    main()
