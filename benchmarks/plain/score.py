"""`vmr-score` beside plain programs, both as whole processes on the same files (see `scoring_program`).

The files are random, of the sizes of the published test lists, and ours is called as users call it: with the baselines
chosen on a training list, which the programs do not have. The published programs import more than numpy, which no plain
form can stand for. Both sides run from compiled modules, as after a first run.
"""

import functools
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from plain import Pair

WORDS = [
    "a",
    "person",
    "opens",
    "the",
    "door",
    "takes",
    "some",
    "books",
    "from",
    "shelf",
    "and",
    "then",
    "sits",
    "down",
    "on",
    "near",
    "window",
]


@functools.cache
def folder():
    """A folder of files that is deleted when this process ends."""
    return tempfile.TemporaryDirectory()


def written(name, lines):
    path = Path(folder().name) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines))
    return str(path)


def sentence(draw):
    return " ".join(draw.choices(WORDS, k=draw.randint(5, 14)))


def moment(draw, duration, most=1.0):
    start = draw.uniform(0, 0.9 * duration)
    return [round(start, 2), round(min(start + draw.uniform(0.02, most) * duration, duration), 2)]


def windows(draw, target, duration, count):
    """Windows around a target, best first and ever further from it, with scores."""
    rows = []
    for rank in range(count):
        spread = duration * (0.05 + 0.3 * rank / count)
        ends = sorted(draw.gauss(time, spread) for time in target)
        rows.append([*(round(end, 4) for end in ends), round(1 - (rank + draw.random()) / count, 4)])
    return rows


def prediction(draw, name, text, video, rows, **more):
    return json.dumps({"qid": name, "query": text, "vid": video, "pred_relevant_windows": rows, **more})


def output(command):
    # users start neither side from sources that were never compiled
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(Path(folder().name) / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def pair(protocol, files, options):
    """`vmr-score` on the last of the files, and the plain program on all of them."""
    last = {}
    script = str(Path(__file__).with_name("scoring_program.py"))
    main = "import sys; from vmr_common.cli.score import main; sys.exit(main())"
    command = [sys.executable, "-c", main, files[-1], "--data-root", folder().name, *options, "--json"]

    def ours():
        last["ours"] = output(command)["results"][0]["systems"][0]["values"]

    def plain():
        last["plain"] = output([sys.executable, script, protocol, *files])

    def difference():
        assert last["ours"].keys() == last["plain"].keys()
        most = max(abs(last["ours"][key] - value) for key, value in last["plain"].items())
        return most / max(last["plain"].values())

    return Pair(ours, plain, difference)


def proposal_map():
    """The test list of Charades-STA, ten windows of each query."""
    draw = random.Random(0)
    files = []
    for part, queries, videos, rows in (("train", 12_408, 5_338, 7_985), ("test", 3_720, 1_334, 1_863)):
        lengths = {f"{part[:2].upper()}{row:03X}": round(draw.uniform(10, 40), 2) for row in range(rows)}
        table = [f"{video},S,{' '.join([sentence(draw)] * 6)},{length}" for video, length in lengths.items()]
        used = draw.choices(list(lengths)[:videos], k=queries)
        moments = [moment(draw, lengths[video], 0.6) for video in used]
        lines = [f"{v} {m[0]} {m[1]}##{sentence(draw)}." for v, m in zip(used, moments, strict=True)]
        files = [
            written(f"charades_sta/charades_sta_{part}.txt", lines),
            written(f"charades_sta/Charades_v1_{part}.csv", ["id,subject,script,length", *table]),
        ]
    numbers, rows = dict.fromkeys(used, -1), []
    for video, target in zip(used, moments, strict=True):
        numbers[video] += 1
        name, length = f"{video}_{numbers[video]}", lengths[video]
        rows.append(prediction(draw, name, sentence(draw), video, windows(draw, target, length, 10)))
    return pair("proposal-map", [*files, written("map.jsonl", rows)], ["--split", "charades-sta/test"])


def qvhighlights():
    """The validation list of QVHighlights: ten windows and 75 clip scores of each query."""
    draw = random.Random(1)
    for part, queries in (("train", 7_218), ("val", 1_550)):
        rows, predictions = [], []
        for number in range(queries):
            text, video = sentence(draw), f"v{number // 3}_0.0_150.0"
            first, last = sorted(draw.sample(range(0, 76), 2))
            middle = draw.randint(first, last)
            ends = (
                [[first, middle], [middle, last]]
                if first < middle < last and draw.random() < 0.3
                else [[first, last]]
            )
            targets = [[2 * start, 2 * end] for start, end in ends]
            clips = list(range(first, last))
            scores = [[draw.randint(0, 4) for _ in range(3)] for _ in clips]
            rows.append(
                {
                    "qid": number, "query": text, "duration": 150, "vid": video, "relevant_clip_ids": clips,
                    "saliency_scores": scores, "relevant_windows": targets,
                }
            )  # fmt: skip
            if part == "val":
                found = windows(draw, targets[0], 150, 10)
                saliency = [round(draw.gauss(first <= clip < last, 1), 4) for clip in range(75)]
                predictions.append(
                    prediction(draw, number, text, video, found, pred_saliency_scores=saliency)
                )
        annotations = written(f"qvhighlights/highlight_{part}_release.jsonl", map(json.dumps, rows))
    files = [annotations, written("qvhighlights.jsonl", predictions)]
    return pair("qvhighlights", files, ["--split", "qvhighlights/val"])


def mad(queries=4_001):
    """So many queries of films, a hundred windows of each; there is no training list beside them."""
    draw = random.Random(2)
    rows, predictions = {}, []
    for number in range(queries):
        duration = 6_000.0
        target = moment(draw, duration, 0.1)
        text, film = sentence(draw), f"film{number // 500}"
        rows[str(number)] = {
            "movie": film, "sentence": text, "timestamps": target, "ext_timestamps": target,
            "movie_duration": duration,
        }  # fmt: skip
        predictions.append(prediction(draw, number, text, film, windows(draw, target, duration, 100)))
    annotations = written("mad/MAD_test.json", [json.dumps(rows)])
    return pair("mad", [annotations, written("mad.jsonl", predictions)], ["--split", "mad/test"])
