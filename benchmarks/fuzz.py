"""Thousands of damaged files of every kind, given to the commands as a user would.

    uv run python benchmarks/fuzz.py                                 # 10,000 of each kind, some hours
    uv run python benchmarks/fuzz.py --kind hdf5 --count 500 --seed 7
    uv run python benchmarks/fuzz.py --kind hdf5 --seed 7 --only 123 # one case again

Each case is a valid file of some kind with something wrong in it (`benchmarks/fuzzing/`), in a folder of its own. All
that may happen when a command reads it is status 0, or status 2 with one line on stderr. A traceback, another status, a
warning of ours, 20 seconds of processor time, a gigabyte of memory, a crash, control characters on the terminal, or
anything written outside the case's folder is a finding: its files are kept, its command printed, and the status is 1.
"""

import argparse
import collections
import functools
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; cases run side by side at best

from fuzzing import samples
from fuzzing.case import PACKAGES, Case
from fuzzing.watch import Campaign, problem_of, rng_of

KINDS = {
    "text": "texts:make",
    "predictions": "texts:make_predictions",
    "corpus": "texts:make_corpus",
    "folder": "folders:make",
    "hdf5": "hdf5:make",
    "npz": "arrays:make",
    "safetensors": "weights:make",
    "yaml": "configurations:make",
    "json": "inner:make",
    "picture": "pictures:make",
}


def needed(kind, packages):
    """The packages whose runs a kind of case takes as valid files."""
    known = {
        "safetensors": packages,
        "json": [*{*packages, "cfmr"}],
        "yaml": packages[:1],
        "picture": ["leorn"],
    }
    return known.get(kind, [])


def maker(kind, layout):
    module, _, name = KINDS[kind].partition(":")
    make = getattr(importlib.import_module(f"fuzzing.{module}"), name)
    return functools.partial(make, layout=layout) if layout else make


def run_in_process_of_its_own(case: Case, folder: Path) -> list[str]:
    """Problems of a case whose commands are started as a user starts them."""
    problems = []
    for call in case.calls:
        done = subprocess.run(
            [Path(sys.executable).with_name(call.program), *call.argv()],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if problem := problem_of(str(done.returncode), done.stdout, done.stderr):
            problems.append(f"{problem}: {call.program} {' '.join(call.argv())}\n{done.stderr[-3000:]}")
    return problems


FRAME = re.compile(r'File "[^"]*/packages/[^"]*/src/([^"]+)", line (\d+), in (\S+)')


def kind_of(seen):
    """What a finding has in common with others: the problem, the last place in our sources, the kind of exception."""
    lines = seen.said.strip().splitlines()
    frames = FRAME.findall(seen.said)
    place = f"{frames[-1][0]}: {frames[-1][2]}" if frames else ""
    last = lines[-1] if lines else ""
    reason = last.split(":")[0][:60] if frames else re.sub(r"\d+|/\S+|'[^']*'", "_", last)[:80]
    return seen.problem, place, reason


def report(kind, seen, shown):
    """Prints a finding; the first of its like with what the command said."""
    shown.setdefault(kind_of(seen), []).append(seen.number)
    if len(shown[kind_of(seen)]) == 1:
        print(f"{kind} {seen.number}: {seen.problem}\n  {seen.command}\n{seen.said[-1200:]}", flush=True)


def summarise(kind, shown):
    """Prints how often each kind of finding came, and where."""
    for (problem, place, reason), numbers in sorted(shown.items(), key=lambda item: -len(item[1])):
        print(f"{kind}: {len(numbers):5} x {problem} | {place} | {reason} | cases {numbers[:5]}")


def campaign(kind, options, folder, kept):
    """Runs the cases of a kind; its line of the summary and the number of findings."""
    place = kept / "samples"  # beside the findings, whose commands name them
    samples.make(place, needed(kind, options.packages))
    samples.warm_up(place)
    make, begin = maker(kind, options.layout), time.monotonic()
    numbers = range(options.count) if options.only is None else range(options.only, options.only + 1)
    statuses, shown = collections.Counter(), {}
    findings, slowest, largest = 0, 0.0, 0
    for seen in Campaign(kind, make, options.seed, place, folder / "work", kept).run(numbers):
        statuses.update(seen.statuses)
        slowest, largest = max(slowest, seen.seconds), max(largest, seen.memory)
        if seen.problem:
            findings += 1
            report(kind, seen, shown)
    for number in range(0, options.processes):
        case_folder = folder / "process"
        case_folder.mkdir()
        case = make(rng_of(kind, options.seed, options.count + number), case_folder, place)
        for problem in run_in_process_of_its_own(case, case_folder):
            findings += 1
            print(f"{kind}, in a process of its own: {problem}", flush=True)
        case_folder.rename(folder / f"process-{kind}-{number}")
    summarise(kind, shown)
    counts = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
    minutes = (time.monotonic() - begin) / 60
    name = " ".join(filter(None, (kind, options.layout)))
    print(
        f"{name}: {len(numbers)} cases, seed {options.seed}: status {counts}; slowest {slowest:.1f} s, "
        f"most memory {largest >> 20} MB, {minutes:.1f} min; {findings} findings",
        flush=True,
    )
    return findings


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS), help="default: all")
    parser.add_argument(
        "--layout", default="", help="only this layout of text, predictions or folder, such as didemo"
    )
    parser.add_argument("--count", type=int, default=10_000, help="cases of each kind (default 10000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="only this case, to see it again")
    parser.add_argument(
        "--processes", type=int, default=0, help="so many more cases of each kind in processes of their own"
    )
    parser.add_argument(
        "--packages",
        nargs="+",
        choices=PACKAGES,
        default=list(PACKAGES),
        help="whose runs are damaged (default: all)",
    )
    parser.add_argument("--keep", type=Path, help="folder for the files of findings (default: a new one)")
    options = parser.parse_args()
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    kept = options.keep or Path(tempfile.mkdtemp(prefix="fuzz-findings-"))
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        findings = sum(campaign(kind, options, Path(name), kept) for kind in options.kind)
    if findings:
        print(f"files of the findings: {kept}")
    elif options.keep is None:
        shutil.rmtree(kept)
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
