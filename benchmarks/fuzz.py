"""Thousands of damaged annotation and prediction files, given to the commands as a user would.

    uv run python benchmarks/fuzz.py                    # 10,000 files, some minutes
    uv run python benchmarks/fuzz.py --files 500 --seed 7

Each file is a small valid one of a published layout in which bytes were replaced, cut, repeated or removed, or (in
JSON) values exchanged for odd ones; some are gzipped, a few are damaged after that. ``vmr-data check`` and
``vmr-data convert`` read the annotations, ``vmr-score`` the predictions. All that may happen is status 0, or status 2
with one line on stderr. A traceback, another status, a warning, or a file that takes more than ten seconds of
processor time (or five minutes) is a failure: the file is kept, its name printed, and the status is 1.
"""

import argparse
import collections
import contextlib
import gzip
import io
import json
import random
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from vmr_common.cli import data, score
from vmr_common.records import encode_id

SECONDS_ALLOWED, MINUTES_ALLOWED = 10, 5  # of processor time, of the clock
CLIP = {"clip_uid": "c", "video_start_sec": 0, "video_end_sec": 480.0}
ASKED = [
    {"query": "where?", "clip_start_sec": 1.5, "clip_end_sec": 3},
    {"query": "who?", "clip_start_sec": 2},
]
SPAN = {"timestamps": [[1, 2], [3, 4.5]], "sentences": ["a b", " c"]}
QUERIES = [("a_0", 0, 4), ("a_1", 10, 25.5), ("7", 3, 4)]
CANONICAL = [
    {"query_id": name, "video_id": "v", "duration": 30.0, "query": "q w", "windows": [[start, end]]}
    for name, start, end in QUERIES
]
SUBMISSION = [
    {"qid": encode_id(name), "query": "q w", "vid": "v", "pred_relevant_windows": [[0, 5, 0.9], [1, 30, 0.1]]}
    for name, _, _ in QUERIES
]
ENTRIES = [
    {"clip_uid": "v", "annotation_uid": "a", "query_idx": n, "predicted_times": [[0, 5], [3, 4.5]]}
    for n in (0, 1)
]


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def document(value):
    return json.dumps(value).encode()


def archive(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


ANNOTATIONS = {
    "charades-sta": b"AB 1.0 2.5##a b.\nAB 3 4##c d.\n",
    "viga": b"AB 1.0 2.5##2##a b.\nAB 3 4##3##c d.\n",
    "glance-list": document([["AB", 30.0, [4.0, 11.0], "opens.", 6.5], ["AB", 30.0, [12, 20], "sits."]]),
    "tacos": document({"s.avi": {**SPAN, "num_frames": 90, "fps": 29.4, "glance": [1, 3]}}),
    "activitynet": document({"v": {**SPAN, "duration": 55.1}, "w": {**SPAN, "duration": 9}}),
    "qvhighlights": lines(
        {
            **{"qid": 1, "query": "q", "duration": 150, "vid": "x_0.0_150.0", "relevant_windows": [[0, 2]]},
            **{"relevant_clip_ids": [0], "saliency_scores": [[1, 2, 3]]},
        }
    ),
    "ego4d-nlq": document(
        {
            "videos": [
                {"clips": [{**CLIP, "annotations": [{"annotation_uid": "a", "language_queries": ASKED}]}]}
            ]
        }
    ),
    "mad": document(
        {
            "1": {
                "movie": "m",
                "sentence": "x",
                "timestamps": [1, 2],
                "ext_timestamps": [1, 2],
                "movie_duration": 7e3,
            }
        }
    ),
    "canonical": lines(*CANONICAL),
    "cone": lines({"query_id": "a_1", "duration": 9.0, "query": "q", "clip_id": "c", "timestamps": [1, 2]}),
    "durations.csv": b"id,length\nAB,30.0\n",
    "durations.json": document({"AB": 30.0}),
    "videos.json": document({"train": ["v"], "test": ["w", "v"]}),
}
PREDICTIONS = {
    "ours.jsonl": lines(*SUBMISSION),
    "highlights.jsonl": lines(*({**row, "pred_saliency_scores": [0.5] * 15} for row in SUBMISSION)),
    "ego4d.json": document({"version": "1.0", "challenge": "ego4d_nlq_challenge", "results": ENTRIES}),
    "arrays.npz": archive(moments=np.tile([0.0, 5.0], (3, 2, 1)), scores=np.ones((3, 2))),
    "named.npz": archive(
        pred_cs=np.tile([0, 500], (3, 2, 1)), ids=np.array([name for name, _, _ in QUERIES])
    ),
}
PIECES = [
    *(
        b"null",
        b"NaN",
        b"1e999",
        b"-1",
        b'""',
        b"[]",
        b"{}",
        b"true",
        b"\xff",
        b"\0",
        b"9" * 5000,
        b"[" * 3000,
    ),
    *(
        b'"',
        b",",
        b"##",
        b" ",
        b"\n",
        b"\r\n",
        b"\\ud800",
        b"-Infinity",
        b":",
        b"\xef\xbb\xbf",
        b"\xe2\x80\xa8",
        b"",
    ),
]
ODD = [
    *(
        None,
        True,
        "",
        "x",
        "\ud800",
        -1,
        0,
        1e308,
        -1e308,
        10**400,
        5e-324,
        [],
        {},
        [[]],
        [None],
        [[1]],
        [[1, 2, 3, 4]],
    ),
    *(float("nan"), float("inf"), {"a": 1}, "1", [["a", "b"]], [[2, 1]], 2**63, "\n\n", ["\0"]),
]


def damaged_bytes(rng, content):
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        where, kind = rng.randrange(len(data) + 1), rng.random()
        if kind < 0.4:
            data[where : where + rng.randint(0, 5)] = rng.choice(PIECES)
        elif kind < 0.6 and data:
            data[where % len(data)] = rng.randrange(256)
        elif kind < 0.7:
            del data[where:]
        elif kind < 0.85:
            data[where:where] = data[: rng.randrange(len(data) + 1)][-100:]
        else:
            del data[where : where + rng.randint(1, 20)]
    return bytes(data)


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def exchanged(rng, value):
    """The value with one inner one exchanged, removed, or given twice."""
    path = rng.choice(list(places(value)))
    if not path:
        return rng.choice(ODD)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    kind = rng.random()
    if kind < 0.2:
        del holder[path[-1]]
    elif kind < 0.3 and isinstance(holder, list):
        holder.append(holder[path[-1]])
    else:
        holder[path[-1]] = rng.choice(ODD)
    return value


def damaged_json(rng, content):
    rows = [json.loads(line) for line in content.splitlines()]
    number = rng.randrange(len(rows))
    rows[number] = exchanged(rng, rows[number])
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def damaged(rng, content):
    if content[:1] in b"{[" and rng.random() < 0.5:
        return damaged_json(rng, content)
    return damaged_bytes(rng, content)


def written(rng, folder, name, content):
    """Writes the damaged file, sometimes gzipped, and returns its path."""
    content = damaged(rng, content)
    if not name.endswith(".npz") and rng.random() < 0.1:
        name, content = f"{name}.gz", gzip.compress(content)
        if rng.random() < 0.3:
            content = damaged_bytes(rng, content)
    path = folder / name
    path.write_bytes(content)
    return path


def commands(rng, folder):
    """One damaged file and the command line that reads it."""
    whole = {name: folder / f"whole-{name}" for name in (*ANNOTATIONS, *PREDICTIONS)}
    name = rng.choice([*ANNOTATIONS, *PREDICTIONS])
    if name in PREDICTIONS:
        path = written(rng, folder, name, PREDICTIONS[name])
        arguments = [path, "--annotations", whole["canonical"], "--json"]
        arguments += rng.choice([[], ["--ignore-unknown"], ["--no-baselines"]])
        arguments += [
            "--protocol",
            rng.choice(["strict", "proposal-map", "point", "qvhighlights", "ego4d-nlq"]),
        ]
        if rng.random() < 0.2:
            arguments += [rng.choice(["--export-qvhighlights", "--export-ego4d"]), folder / "export"]
        return path, score.main, arguments
    path = written(rng, folder, name, ANNOTATIONS[name])
    if name.startswith("durations"):
        options = ["--annotations", whole["charades-sta"], "--durations", path]
    elif name == "videos.json":
        options = ["--annotations", whole["canonical"], "--videos", path, "--videos-key", "train"]
    else:
        options = ["--annotations", path, "--durations", whole["durations.csv"]]
        options += [
            "--format",
            rng.choice(["auto", name]),
            "--policy",
            rng.choice(["checked", "as-annotated"]),
        ]
    if rng.random() < 0.2:
        return path, score.main, [whole["ours.jsonl"], *options, "--ignore-unknown"]
    command = rng.choice([["check"], ["info"], ["convert", "--out", folder / "converted.jsonl"]])
    return path, data.main, [*command, *options, "--data-root", "/"]


class TooSlow(BaseException):
    pass


def stop(*_):
    raise TooSlow


def run(main, arguments):
    """(status, stderr) of a command in this process, with an alarm against hangs."""
    out, err = io.StringIO(), io.StringIO()
    signal.setitimer(signal.ITIMER_PROF, SECONDS_ALLOWED)
    signal.alarm(60 * MINUTES_ALLOWED)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("error")
            status = main([str(argument) for argument in arguments])
    except TooSlow:
        return "too slow", err.getvalue()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    return status, err.getvalue()


def is_clean(status, message):
    if status == 0:
        return message == "" or "highlight scores were cut or padded" in message
    one_line = message.startswith("error: ") and message.count("\n") == 1 and len(message) < 1500
    return status == 2 and one_line


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=10_000, help="how many (default 10000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, stop)
    signal.signal(signal.SIGPROF, stop)
    rng, seen, slowest = random.Random(options.seed), collections.Counter(), 0.0
    kept = Path(tempfile.mkdtemp(prefix="fuzz-failures-"))
    failures = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for known, content in (ANNOTATIONS | PREDICTIONS).items():
            (folder / f"whole-{known}").write_bytes(content)
        for number in range(options.files):
            path, command, arguments = commands(rng, folder)
            begin = time.process_time()
            status, message = run(command, arguments)
            slowest = max(slowest, time.process_time() - begin)
            seen[status] += 1
            if not is_clean(status, message):
                failures += 1
                (kept / f"{number}-{path.name}").write_bytes(path.read_bytes())
                shown = " ".join(map(str, arguments)).replace(str(path), str(kept / f"{number}-{path.name}"))
                print(f"status {status}: {shown}\n{message[-3000:]}", flush=True)
            path.unlink()
    counts = ", ".join(f"{count} with status {status}" for status, count in sorted(seen.items(), key=str))
    print(
        f"{options.files} files, seed {options.seed}: {counts}; slowest {slowest:.2f} s; {failures} failures"
    )
    if not failures:
        kept.rmdir()
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
