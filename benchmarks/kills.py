"""Kills everything that writes, at random instants, and goes on with the same command until it is done.

    uv run python benchmarks/kills.py                        # 30 kills of each writer, about an hour on two cores
    uv run python benchmarks/kills.py --writer rgn-train index-add --kills 5 --seed 3

A writer is ended by SIGKILL (a training now and then by SIGTERM or SIGHUP, which it answers by saving), its command is
given again (a training with --resume), and what it leaves at the end is compared bit by bit with what it left where
nobody disturbed it: weights and optimiser, rows of the metrics, the index, the converted file. Files of somebody else
are put beside its files after the first kill; none may change, and no temporary file may stay. Prints a table; the
status is 1 if anything was lost.

Writers run in forks of this process, which has imported everything: so the kills fall into their work.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import h5py
import numpy as np
from fuzzing import samples
from fuzzing.case import PACKAGES, entry_point
from safetensors import safe_open

from leorn.object_features.shapes_file import ensure_objects
from vmr_common.features.manifest import Manifest
from vmr_common.features.store import write_features
from vmr_shapes import ensure

EPOCHS = 3
FOREIGN = b"of somebody else"
TIMES = ("seconds", "date")  # keys of rows that differ from run to run
AGAIN = 0.3  # how often the command that goes on is killed as well


@dataclass
class Place:
    """Where one trial works.

    Attributes:
        folder: Its own.
        samples: Valid files that all trials share and only read.
    """

    folder: Path
    samples: Path


@dataclass(frozen=True)
class Writer:
    """Something that writes.

    Attributes:
        start: Writes from the beginning; its status.
        go_on: Likewise, after it was killed.
        prepare: What must be there before.
        content: What was written, as text to compare by.
        beside: Where files of somebody else are put, below the trial's folder.
        signals: What ends it.
    """

    start: Callable[[Place], int]
    content: Callable[[Place], dict[str, str]]
    beside: tuple[str, ...]
    go_on: Callable[[Place], int] | None = None
    prepare: Callable[[Place], None] = lambda place: None
    signals: tuple[signal.Signals, ...] = (signal.SIGKILL,)


def command(program, *arguments):
    return entry_point(program)([str(argument) for argument in arguments])


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- training ----------------------------------------------------------------------------------------------


def train(package):
    def arguments(place):
        config = place.samples / f"cfg/{package}.yaml"
        where = ["--data-root", place.samples / "data", "--runs", place.folder / "runs"]
        return ["--cfg", config, *where, "--train.epochs", EPOCHS]

    def start(place):
        return command(f"{package}-train", *arguments(place))

    def go_on(place):
        # a run that was killed before it had a folder begins anew
        if not run_folder(place).is_dir():
            return start(place)
        return command(f"{package}-train", *arguments(place), "--resume")

    def run_folder(place):
        return place.folder / f"runs/{package}/tiny"

    def content(place):
        run = run_folder(place)
        found = {}
        for role in ("last", "best"):
            with safe_open(run / f"checkpoints/{role}.safetensors", framework="np") as file:
                for name in file.keys():  # noqa: SIM118 - not a dict
                    found[f"{role} {name}"] = hashlib.sha256(file.get_tensor(name).tobytes()).hexdigest()
        rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        for number, row in enumerate(rows):
            found[f"row {number}"] = json.dumps(
                {key: value for key, value in row.items() if key not in TIMES}
            )
        for name in ("predictions.jsonl", "results.json"):
            found[name] = digest(run / name)
        return found

    base = f"runs/{package}/tiny"
    return Writer(
        start=start,
        go_on=go_on,
        content=content,
        beside=(f"{base}/notes.txt", f"{base}/checkpoints/mine.bin", f"{base}/checkpoints/.mine.partial"),
        signals=(signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP),
    )


# --- the index ---------------------------------------------------------------------------------------------


def index_content(place):
    folder = place.folder / "index"
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.name: digest(path) for path in files if path.read_bytes() != FOREIGN}


INDEX_BESIDE = ("index/notes.txt", "index/scan/mine.bin", "index/.mine.partial")


def index_build(place):
    run, data = place.samples / "runs/cfmr/tiny", place.samples / "data"
    options = ("--features", place.samples / "many.h5", "--durations", place.samples / "durations.json")
    return command(
        *("cfmr-index", "--checkpoint", run, "--data-root", data, "--out", place.folder / "index"),
        *(*options, "--shard-videos", 5),
    )


def index_add(place, *more):
    options = ("--features", place.samples / "many.h5", "--durations", place.samples / "durations.json")
    return command(
        "cfmr-index", "--out", place.folder / "index", "--add", *options, "--shard-videos", 3, *more
    )


def index_replace(place):
    return index_add(place, "--replace")


def index_compact(place):
    return command("cfmr-index", "--out", place.folder / "index", "--compact", "--shard-videos", 16)


def small_index(place):
    shutil.copytree(place.samples / "index", place.folder / "index")


def large_index(place):
    shutil.copytree(place.samples / "large-index", place.folder / "index")


# --- files -------------------------------------------------------------------------------------------------


def convert(program, option, source, *more):
    """A conversion of many values, which goes on after its finished parts."""

    def start(place):
        out = place.folder / "out.h5"
        return command(program, "convert", option, place.samples / source, "--out", out, *more)

    return Writer(
        start=start,
        content=lambda place: {"out.h5": digest(place.folder / "out.h5")},
        beside=("notes.txt", ".mine.partial", ".out.h5.partsmine", ".out.h5.mine.partial"),
    )


def concat(place):
    split = ("--annotations", place.samples / "many.jsonl", "--stride-s", 0.5, "--per-stream", 8)
    return command(
        "rgnet-data",
        "concat",
        "--features",
        place.samples / "many.h5",
        *split,
        "--out",
        place.folder / "long",
    )


def extract(place):
    """Features that are written as they are made, as an extractor does."""

    def items():
        numbers = np.random.default_rng(0)
        for number in range(60):
            time.sleep(0.005)
            yield f"v{number}", numbers.random((50, 16)).astype(np.float32)

    write_features(place.folder / "features.h5", items(), Manifest(extractor="none", stride_s=0.5))
    return 0


def shapes(place):
    ensure(place.folder / "shapes", samples.SPEC, verify=True)
    return 0


def shapes_before(place):
    shutil.copytree(place.samples / "data/shapes", place.folder / "shapes")


def shapes_objects(place):
    ensure_objects(place.folder / "shapes", samples.SPEC, verify=True)
    return 0


def folder_content(name):
    def content(place):
        files = sorted(path for path in (place.folder / name).rglob("*") if path.is_file())
        kept = [path for path in files if path.read_bytes() != FOREIGN]
        return {str(path.relative_to(place.folder)): digest(path) for path in kept}

    return content


SHAPES_BESIDE = ("notes.txt", ".mine.partial", ".shapes.mine.partial/x")
WRITERS = {
    **{f"{package}-train": train(package) for package in PACKAGES},
    "index-build": Writer(start=index_build, content=index_content, beside=INDEX_BESIDE),
    "index-add": Writer(start=index_add, content=index_content, beside=INDEX_BESIDE, prepare=small_index),
    "index-replace": Writer(
        start=index_replace, content=index_content, beside=INDEX_BESIDE, prepare=large_index
    ),
    "index-compact": Writer(
        start=index_compact, content=index_content, beside=INDEX_BESIDE, prepare=large_index
    ),
    "convert-features": convert("vmr-data", "--features", "many.h5"),
    "convert-queries": convert("rgnet-data", "--query-features", "queries.h5"),
    "convert-objects": convert("leorn-objects", "--objects", "objects.h5", "--frames", 6),
    "concat": Writer(
        start=concat,
        content=folder_content("long"),
        beside=("long/notes.txt", "long/.mine.partial"),
    ),
    "write-features": Writer(
        start=extract,
        content=lambda place: {"file": digest(place.folder / "features.h5")},
        beside=("notes.txt",),
    ),
    "shapes": Writer(start=shapes, content=folder_content("shapes"), beside=SHAPES_BESIDE),
    "shapes-objects": Writer(
        start=shapes_objects, content=folder_content("shapes"), beside=SHAPES_BESIDE, prepare=shapes_before
    ),
}


def make_samples(folder):
    """The valid files that all trials share."""
    samples.make(folder, ["cfmr"])
    samples.warm_up(folder)
    numbers = np.random.default_rng(0)
    videos = [f"v{number:03d}" for number in range(140)]
    items = ((video, numbers.random((12, 16)).astype(np.float32)) for video in videos)
    write_features(folder / "many.h5", items, Manifest(stride_s=0.5))
    (folder / "durations.json").write_text(json.dumps(dict.fromkeys(videos, 6.0)))
    row = {"duration": 6.0, "query": "the red circle spins", "windows": [[1, 2]]}
    rows = [{"query_id": f"{video}_0", "video_id": video, **row} for video in videos]
    (folder / "many.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    with h5py.File(folder / "queries.h5", "w") as file:
        for number in range(5000):
            file[f"q{number}/token_features"] = np.full((2, 3), number, np.float32)
    with h5py.File(folder / "objects.h5", "w") as file:
        for number in range(140):
            file[f"v{number:03d}"] = numbers.random((12, 3, 9)).astype(np.float32)
    place = Place(folder, folder)
    shutil.copytree(folder / "index", folder / "index-before")
    if index_add(place):
        raise RuntimeError("the index of the samples cannot be made")
    (folder / "index").rename(folder / "large-index")
    (folder / "index-before").rename(folder / "index")


# --- killing -----------------------------------------------------------------------------------------------


@dataclass
class Trial:
    """What came of one writer that was killed at least once."""

    ended: list[str] = field(default_factory=list)
    problem: str = ""


def forked(action, place, log):
    """Starts an action in a fork; its process."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        with log.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        status = action(place)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def ended_within(process, seconds):
    """How a process ended: its status, the number of its signal below 0, or None where it still runs."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.001)


def partials(folder, beside):
    """Temporary files and folders that were left."""
    known = {folder / name for name in beside} | {(folder / name).parent for name in beside}
    left = [*folder.rglob(".*.partial"), *folder.rglob(".*.parts")]
    return [path for path in left if path not in known]


def attempt(writer, place, rng, length, log):
    """One writer, killed once or more, finished, and judged."""
    trial = Trial()
    planted = []
    action = writer.start
    writer.prepare(place)
    while True:
        process = forked(action, place, log)
        disturbed = not trial.ended or rng.random() < AGAIN
        status = ended_within(process, rng.uniform(0, length) if disturbed else 600)
        if status is None:
            number = rng.choice(writer.signals) if disturbed else signal.SIGKILL
            os.kill(process, number)
            status = ended_within(process, 120)
            trial.ended.append(number.name)
            if status is None:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
            if status == 0:
                trial.ended[-1] = "done"  # a moment too late
                break
            if status not in (-number, 130):
                trial.problem = f"{number.name} ended it with status {status}"
                return trial
        elif status == 0:
            trial.ended.append("done")
            break
        else:
            trial.problem = f"status {status}"
            return trial
        for name in writer.beside if not planted else ():
            path = place.folder / name
            if path.parent.exists() or path.parent.name.startswith("."):
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(FOREIGN)
                planted.append(path)
        action = writer.go_on or writer.start
    lost = [path for path in planted if not path.is_file() or path.read_bytes() != FOREIGN]
    if lost:
        trial.problem = f"a file of somebody else is gone or changed: {lost[0].relative_to(place.folder)}"
    elif left := partials(place.folder, writer.beside):
        trial.problem = f"a temporary file stays: {left[0].relative_to(place.folder)}"
    return trial


def difference(found, expected):
    """What is not as in the undisturbed run, in words."""
    for key in sorted(found.keys() | expected.keys()):
        if found.get(key) != expected.get(key):
            return f"{key} differs" if key in found and key in expected else f"{key} is there only once"
    return ""


def campaign(name, writer, options, folder, shared):
    """Kills of one writer; its row of the table and the number of trials that lost something."""
    rng = random.Random(f"{name} {options.seed}")
    counts = dict.fromkeys(("SIGKILL", "SIGTERM", "SIGHUP", "not in time", "equal", "lost"), 0)
    place = Place(folder / f"{name}-whole", shared)
    place.folder.mkdir()
    writer.prepare(place)
    begin = time.monotonic()
    status = ended_within(forked(writer.start, place, folder / f"{name}.log"), 900)
    length = time.monotonic() - begin
    if status != 0:
        raise RuntimeError(f"{name} fails undisturbed:\n{(folder / f'{name}.log').read_text()[-3000:]}")
    expected = writer.content(place)
    number = 0
    while (
        sum(counts[key] for key in ("SIGKILL", "SIGTERM", "SIGHUP")) < options.kills
        and number < 9 * options.kills
    ):
        number += 1
        place = Place(folder / f"{name}-{number}", shared)
        place.folder.mkdir()
        log = folder / f"{name}-{number}.log"
        trial = attempt(writer, place, rng, length, log)
        for word in trial.ended:
            counts[word] = counts.get(word, 0) + 1
        counts["not in time"] += trial.ended == ["done"]
        problem = trial.problem
        with contextlib.suppress(OSError, ValueError, KeyError):
            problem = problem or difference(writer.content(place), expected)
        counts["lost" if problem else "equal"] += 1
        if problem:
            said = log.read_text(errors="replace")[-1500:] if log.exists() else ""
            print(
                f"{name}, trial {number} ({', '.join(trial.ended)}): {problem}\n  {place.folder}\n{said}",
                flush=True,
            )
        else:
            shutil.rmtree(place.folder)
    counts.pop("done", None)
    return counts, length


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--writer", nargs="+", choices=WRITERS, default=list(WRITERS), help="default: all")
    parser.add_argument("--kills", type=int, default=30, help="of each writer (default 30)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    shared = folder / "samples"
    make_samples(shared)
    rows = {}
    for name in options.writer:
        begin = time.monotonic()
        counts, length = campaign(name, WRITERS[name], options, folder, shared)
        rows[name] = counts
        said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        minutes = (time.monotonic() - begin) / 60
        print(f"{name:<17} {said} (undisturbed {length:.1f} s, {minutes:.1f} min)", flush=True)
    print(f"\n{'writer':<17} {'kills':>6} {'equal':>6} {'lost':>5}")
    for name, counts in rows.items():
        kills = sum(counts[key] for key in ("SIGKILL", "SIGTERM", "SIGHUP"))
        print(f"{name:<17} {kills:>6} {counts['equal']:>6} {counts['lost']:>5}")
    lost = sum(counts["lost"] for counts in rows.values())
    if lost:
        print(f"files of what was lost: {folder}")
    else:
        shutil.rmtree(folder)
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
