"""What a video file does to the answers: predictions from rendered files against those from the stored features.

    uv run python benchmarks/video_files.py [PAPER ...] [--runs runs] [--data-root data] [--forms lossless 12 20]
        [--videos N] [--work FOLDER] [--out FILE]

Trained default runs of the papers are needed (``runs/<paper>/shapes``, of rgnet ``shapes-long``). The test videos are
written by ``vmr-shapes render`` without loss and as H.264 of some quality (crf 3 is its default), and all test queries
are asked as a user does: ``<paper>-predict --video-file FOLDER --queries test.jsonl``. `same` is the share of queries
whose first moment overlaps the one from the stored features by 0.9 or more (temporal IoU), `equal` that of those within
0.01 s.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from recording import measured_here, write_rows

from vmr_common.metrics import iou

PAPERS = ("rgn", "cfmr", "cdn", "leorn", "rgnet")
COLUMNS = (
    "paper",
    "form",
    "videos",
    "queries",
    "equal",
    "same",
    "mean_iou",
    "hits",
    "hits_stored",
    "seconds",
)
SAME, EQUAL_S, HIT = 0.9, 0.01, 0.5
Moments = dict[str, tuple[float, float]]


def data_of(paper: str) -> str:
    return "shapes-long" if paper == "rgnet" else "shapes"


def run(command: Sequence[object]) -> str:
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return done.stdout


def first_moments(output: str) -> Moments:
    """The best moment of every query, from JSON lines."""
    rows = [json.loads(line) for line in output.splitlines()]
    return {str(row["qid"]): tuple(row["pred_relevant_windows"][0][:2]) for row in rows}


def overlap(left: tuple[float, float], right: Sequence[float]) -> float:
    return float(iou(np.array([left]), np.array([right])).item())


def rendered(data: str, form: str, videos: Sequence[str], work: Path) -> Path:
    """The folder with the videos in one form."""
    folder = work / f"{data}-{form}"
    coded = ["--lossless"] if form == "lossless" else ["--crf", form]
    code = "import sys; from vmr_shapes.cli import main; sys.exit(main(sys.argv[1:]))"
    long = ["--long"] if data == "shapes-long" else []
    run(["-c", code, "render", "--out", folder, *coded, *long, "--videos", *videos])
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("papers", nargs="*", metavar="PAPER", help=f"of {', '.join(PAPERS)} (default: all)")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument(
        "--forms", nargs="+", default=["lossless", "3", "12", "23"], help="lossless, or a crf"
    )
    parser.add_argument("--videos", type=int, help="the first N test videos (default: all)")
    parser.add_argument("--work", type=Path, help="keep videos and features here (default: they are removed)")
    parser.add_argument("--out", type=Path, default=measured_here("video-files"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        rows = []
        for paper in options.papers or PAPERS:
            data = data_of(paper)
            queries = [json.loads(line) for line in (options.data_root / data / "test.jsonl").open()]
            videos = sorted({query["video_id"] for query in queries})[: options.videos]
            asked = work / f"{data}-{len(videos)}.jsonl"
            kept = [query for query in queries if query["video_id"] in videos]
            asked.write_text("".join(json.dumps(query) + "\n" for query in kept))
            truth = {str(query["query_id"]): query["windows"][0] for query in kept}
            predict = ["-m", paper, "predict", "--checkpoint", options.runs / paper / data]
            predict += ["--data-root", options.data_root, "--queries", asked.absolute(), "--json", "-k", 1]
            stored = first_moments(run(predict))
            for form in options.forms:
                folder = rendered(data, form, videos, work)
                started = time.perf_counter()
                found = first_moments(run([*predict, "--video-file", folder, "--cache", work / "cache"]))
                seconds = time.perf_counter() - started
                likeness = np.array([overlap(found[name], stored[name]) for name in stored])
                apart = np.array([np.abs(np.subtract(found[name], stored[name])).max() for name in stored])
                hits = [
                    np.mean([overlap(each[n], truth[n]) >= HIT for n in stored]) for each in (found, stored)
                ]
                shares = (np.mean(apart <= EQUAL_S), np.mean(likeness >= SAME), np.mean(likeness), *hits)
                figures = [f"{100 * share:.1f}" for share in shares]
                cells = (paper, form, len(videos), len(stored), *figures, f"{seconds:.0f}")
                rows.append(dict(zip(COLUMNS, map(str, cells), strict=True)))
                print(*rows[-1].values(), sep="\t", flush=True)
    write_rows(options.out, rows)


if __name__ == "__main__":
    main()
