"""Seconds of every model and of `vmr-score` beside a plain form that gives the same numbers.

    uv run python benchmarks/against_plain.py [CASE ...] [--pairs 5] [--threads 1] [--seconds 30] [--no-write]

Every case runs in a process of its own, ours and the plain form (benchmarks/plain/) in turn; a pair's ratio is
processor time of ours over that of the plain form, so below 1 is faster. Printed are its median and range over the
pairs, and the ratio of operations beside it: the two differ. `goal` is the ratio that the project set itself.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from plain import Pair
from recording import measured_here, write_rows


class Case(NamedTuple):
    """A pair to measure: `build` names module and function of benchmarks/plain/; `first` the ratio of version 0.1."""

    build: str
    first: float | None
    goal: float
    torch: bool = True


CASES = {
    "rgn charades train": Case("rgn.train", 0.82, 0.42),
    "rgn charades infer": Case("rgn.infer", 0.81, 0.70),
    "cfmr charades train": Case("cfmr.train", 0.95, 0.44),
    "cfmr charades infer": Case("cfmr.infer", 0.55, 0.45),
    "cdn charades train": Case("cdn.train_charades", 3.68, 0.75),
    "cdn charades infer": Case("cdn.infer_charades", 1.54, 0.65),
    "cdn tacos train": Case("cdn.train_tacos", 1.14, 0.65),
    "cdn tacos infer": Case("cdn.infer_tacos", 0.73, 0.50),
    "leorn charades train": Case("leorn.train", 1.42, 0.80),
    "leorn charades infer": Case("leorn.infer", 1.21, 0.65),
    "rgnet ego4d contrast train": Case("rgnet.train_contrast", 0.69, 0.69),
    "rgnet ego4d scratch train": Case("rgnet.train_scratch", 0.99, 0.75),
    "rgnet 8 min query": Case("rgnet.query_8_min", 0.80, 0.80),
    "rgnet 1 h query": Case("rgnet.query_1_h", 0.36, 0.25),
    "vmr-score proposal-map": Case("score.proposal_map", 2.1, 0.5, torch=False),
    "vmr-score qvhighlights": Case("score.qvhighlights", 1.49, 0.5, torch=False),
    "vmr-score mad": Case("score.mad", 0.16, 0.1, torch=False),
}
COLUMNS = (
    "case", "threads", "ours_cpu_s", "plain_cpu_s", "ratio", "least", "most", "pairs", "flop_ratio", "difference",
    "first", "goal", "peak_mb", "kernels", "torch",
)  # fmt: skip


def processor_seconds() -> float:
    """Processor time of this process and of the ones that it has waited for."""
    return sum(os.times()[:4])


def spent(run: Callable[[], object]) -> float:
    before = processor_seconds()
    run()
    return processor_seconds() - before


def counted(run: Callable[[], object], torch: bool) -> int:
    """Operations of one run, which also warms it up; 0 where they are not counted."""
    if not torch:
        run()
        return 0
    from vmr_train.flops import count_flops

    with count_flops() as flops:
        run()
    return flops()


def measured(name: str, pairs: int, seconds: float) -> dict[str, Any]:
    """The row of one case, measured in this process: at least one pair, then more while time is left."""
    case = CASES[name]
    module, function = case.build.split(".")
    pair: Pair = getattr(importlib.import_module(f"plain.{module}"), function)()
    ours, plain = counted(pair.ours, case.torch), counted(pair.plain, case.torch)
    difference = pair.difference()
    begin, times = time.perf_counter(), []
    while len(times) < pairs and (not times or time.perf_counter() - begin < seconds):
        first, second = (pair.ours, pair.plain) if len(times) % 2 == 0 else (pair.plain, pair.ours)
        one, other = spent(first), spent(second)
        times.append((one, other) if len(times) % 2 == 0 else (other, one))
    ratios = [one / other for one, other in times]
    return {
        "case": name,
        "ours_cpu_s": f"{statistics.median(one for one, _ in times):.4g}",
        "plain_cpu_s": f"{statistics.median(other for _, other in times):.4g}",
        "ratio": f"{statistics.median(ratios):.3f}",
        "least": f"{min(ratios):.3f}",
        "most": f"{max(ratios):.3f}",
        "pairs": len(times),
        "flop_ratio": f"{ours / plain:.3f}" if plain else "",
        "difference": f"{difference:.1e}",
        "first": case.first,
        "goal": case.goal,
        **machine_state(case.torch),
    }


def machine_state(torch: bool) -> dict[str, Any]:
    import resource

    state: dict[str, Any] = {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}
    if torch:
        import torch as library

        kernels = library.backends.cpu.get_cpu_capability().lower()
        return {
            **state,
            "threads": library.get_num_threads(),
            "kernels": kernels,
            "torch": library.__version__,
        }
    return {**state, "threads": os.environ["OMP_NUM_THREADS"]}


def in_own_process(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The row of one case, measured in a fresh process with so many threads.

    Raises:
        RuntimeError: if that process fails.
    """
    threads = str(options.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    limits = ["--pairs", str(options.pairs), "--seconds", str(options.seconds)]
    command = [sys.executable, __file__, name, "--here", *limits]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: the measuring process ended with status {done.returncode}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help="names, or beginnings of names (default: all)"
    )
    parser.add_argument("--pairs", type=int, default=5, help="pairs of each case at most")
    parser.add_argument("--seconds", type=float, default=30, help="no further pair of a case after so many")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument(
        "--here", action="store_true", help="measure one case in this process, print it as JSON"
    )
    options = parser.parse_args()
    names = [name for name in CASES if not options.cases or name.startswith(tuple(options.cases))]
    if not names:
        parser.error(f"no such case; there are {', '.join(CASES)}")
    if options.here:
        print(json.dumps(measured(names[0], options.pairs, options.seconds)))
        return
    begin = time.perf_counter()
    rows = []
    print(f"{'case':28} {'ours s':>8} {'plain s':>8} {'ratio':>6} {'range':>13} {'flops':>6} {'goal':>5}")
    for name in names:
        row = in_own_process(name, options)
        spread = f"{row['least']}-{row['most']}"
        print(
            f"{name:28} {row['ours_cpu_s']:>8} {row['plain_cpu_s']:>8} {row['ratio']:>6} {spread:>13} "
            f"{row['flop_ratio'] or '-':>6} {row['goal']:>5}  difference {row['difference']}, {row['pairs']} pairs",
            flush=True,
        )
        rows.append(row)
    print(f"{time.perf_counter() - begin:.0f} s in all; load of the machine {os.getloadavg()[0]:.1f}")
    if not options.no_write and not options.cases:
        write_rows(measured_here("against-plain"), rows, COLUMNS)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
