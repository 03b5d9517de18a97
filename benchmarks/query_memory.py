"""Memory per annotated query: while a file is read, afterwards, and of the commands that describe and score it.

    uv run python benchmarks/query_memory.py                       # 200,000 queries, a few minutes
    uv run python benchmarks/query_memory.py --queries 2000000

Sentences are of 6 to 14 words, 20 to a video, one moment each; predictions have five windows. Every row is a
process of its own: bytes of its resident memory above those of the same with 1,000 queries, per query. Results go to
``benchmarks/results/query-memory-<processor>.csv``.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from recording import measured_here, write_rows

from vmr_common.splits.load import custom_split

SENTENCE = "person opens the door and walks into a kitchen then picks up cup from table while looking at"
PER_VIDEO, WINDOWS, SMALL = 20, 5, 1_000
READ = ("canonical", "charades-sta", "activitynet", "qvhighlights")
COLUMNS = ("what", "queries", "peak_bytes_per_query", "held_bytes_per_query")


def drawn(count: int) -> Iterator[tuple[str, str, list[float], str]]:
    """Id, video, moment and sentence of each query."""
    rng, words = random.Random(0), SENTENCE.split()
    for number in range(count):
        start = round(rng.uniform(0, 100), 2)
        sentence = " ".join(rng.choices(words, k=rng.randint(6, 14)))
        moment = [start, round(start + rng.uniform(1, 40), 2)]
        yield f"q{number}", f"v_{number // PER_VIDEO:06d}", moment, sentence


def write(folder: Path, count: int) -> None:
    """The same queries in several formats, and predictions for them."""
    videos: dict[str, dict[str, object]] = {}
    with (
        (folder / "canonical").open("w") as canonical,
        (folder / "qvhighlights").open("w") as highlights,
        (folder / "charades-sta").open("w") as text,
        (folder / "predictions").open("w") as predictions,
    ):
        for name, video, moment, sentence in drawn(count):
            row = {"video_id": video, "duration": 150.0, "query": sentence, "windows": [moment]}
            canonical.write(json.dumps({"query_id": name, **row}) + "\n")
            row = {"vid": video, "duration": 150, "query": sentence, "relevant_windows": [moment]}
            highlights.write(json.dumps({"qid": name, **row}) + "\n")
            text.write(f"{video} {moment[0]} {moment[1]}##{sentence}\n")
            windows = [[time + n for time in moment] + [1 - n / WINDOWS] for n in range(WINDOWS)]
            row = {"vid": video, "query": sentence, "pred_relevant_windows": windows}
            predictions.write(json.dumps({"qid": name, **row}) + "\n")
            entry = videos.setdefault(video, {"duration": 150.0, "timestamps": [], "sentences": []})
            entry["timestamps"].append(moment)  # type: ignore[attr-defined]
            entry["sentences"].append(sentence)  # type: ignore[attr-defined]
    (folder / "activitynet").write_text(json.dumps(videos))
    (folder / "durations.csv").write_text("id,length\n" + "".join(f"{video},150.5\n" for video in videos))


def resident(kind: str) -> int:
    """Bytes of this process that are resident now (``VmRSS``) or were at its largest (``VmHWM``); Linux alone says."""
    # not ru_maxrss, which begins with what the parent had
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines[kind].split()[0])


def work(what: str, folder: Path) -> None:
    """One measurement, in this process; prints its largest and its last resident bytes."""
    split = None
    if what in READ:
        split = custom_split(folder / what, format=what, durations=folder / "durations.csv")
    else:
        from vmr_common.cli import data, score

        files = ["--annotations", str(folder / "canonical")]
        if what == "vmr-data info":
            data.main(["info", *files])
        else:
            score.main([str(folder / "predictions"), *files])
    count = len(split.queries) if split else 0  # they are held until here
    print(json.dumps({"most": resident("VmHWM"), "held": resident("VmRSS"), "queries": count}))


def alone(what: str, folder: Path) -> dict[str, int]:
    """What `work` prints in a process of its own."""
    command = [sys.executable, __file__, "--work", what, "--folder", str(folder)]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    found: dict[str, int] = json.loads(lines[-1])
    return found


def main() -> None:
    """Measures every kind at both sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=200_000)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.folder)
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        small, large = Path(name) / "small", Path(name) / "large"
        for folder, count in ((small, SMALL), (large, options.queries)):
            folder.mkdir()
            write(folder, count)
        for what in (*READ, "vmr-data info", "vmr-score"):
            few, many = alone(what, small), alone(what, large)
            more = options.queries - SMALL
            row = {
                "what": what,
                "queries": options.queries,
                "peak_bytes_per_query": round((many["most"] - few["most"]) / more),
                "held_bytes_per_query": round((many["held"] - few["held"]) / more) if what in READ else "",
            }
            print(row, flush=True)
            rows.append(row)
    write_rows(measured_here("query-memory"), rows, COLUMNS)


if __name__ == "__main__":
    main()
