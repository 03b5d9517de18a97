"""Annotations of the published layouts, tables beside them, and predictions."""

from __future__ import annotations

import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from fuzzing.case import Call, Case
from fuzzing.damage import damaged_bytes, exchanged
from vmr_common.types import encode_id

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
PROTOCOLS = ("strict", "proposal-map", "point", "qvhighlights", "ego4d-nlq", "glance", "tvsum")
POINTED = [{**row, "point": 2.5, "windows": []} for row in CANONICAL]
LABELLED = [
    {
        "qid": name,
        "vid": "v",
        "duration": 30,
        "query": "q w",
        "relevant_windows": None,
        "label": [[1, 3]] * 15,
    }
    for name, _, _ in QUERIES
]


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def document(value: Any) -> bytes:
    return json.dumps(value).encode()


def archive(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


MODEL = {"video": "v", "duration": 9, "sentence": "q w", "timestamp": [1, 2]}
ANNOTATIONS = {
    "charades-sta": b"AB 1.0 2.5##a b.\nAB 3 4##c d.\n",
    "viga": b"AB 1.0 2.5##2##a b.\nAB 3 4##3##c d.\n",
    "glance-list": document([["AB", 30.0, [4.0, 11.0], "opens.", 6.5], ["AB", 30.0, [12, 20], "sits."]]),
    "tacos": document({"s.avi": {**SPAN, "num_frames": 90, "fps": 29.4, "glance": [1, 3]}}),
    "activitynet": document({"v": {**SPAN, "duration": 55.1}, "w": {**SPAN, "duration": 9}}),
    "timelens": document({"v": {"duration": 55.1, "spans": [[1, 2], [3, 4.5]], "queries": ["a b", "c"]}}),
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
    "objects": document(
        [
            {
                "qid": "a",
                "vid_name": "v",
                "duration": 9,
                "desc": "q",
                "ts": [1, 2],
                "glance": 1.5,
                "label": [[1], [0]],
            }
        ]
    ),
    "table": b'video,sentence,start,end,length,moments\nv,"a, b",0:01,2.5,9,"[1, 2.5]"\nv,c,,,9,\n',
    "spreadsheet": b"\xef\xbb\xbfVideo ID;Query;Start Time;End Time;Duration\r\nv;a b;1,5;2;9\r\n;;;;\r\n",
    "columns": document({key: {"0": value, "1": value} for key, value in MODEL.items()}),
    "split columns": document({"columns": [*MODEL], "index": [0], "data": [[*MODEL.values()]]}),
    "by video": document({"v": {"duration": 9, "query": "q", "span": [1, 2]}}),
    "by id": document({"7": MODEL}),
    "detection": document(
        {
            "database": {
                "v": {"duration": 9, "subset": "x", "annotations": [{"segment": [1, 2], "label": "q"}]}
            }
        }
    ),
    "didemo": document(
        [{"annotation_id": 1, "video": "v", "description": "q", "times": [[0, 1], [2, 2]], "num_segments": 6}]
    ),
    "hirest": document({"q": {"v": {"relevant": True, "clip": True, "v_duration": 9, "bounds": [1, 2]}}}),
    "durations.csv": b"id,length\nAB,30.0\n",
    "durations.json": document({"AB": 30.0}),
    "videos.json": document({"train": ["v"], "test": ["w", "v"]}),
    "words.txt": b"q 0.5 1e-3 -2\nw 1 2 3\n, 0 0 1\n",
}
PREDICTIONS = {
    "ours.jsonl": lines(*SUBMISSION),
    "highlights.jsonl": lines(*({**row, "pred_saliency_scores": [0.5] * 15} for row in SUBMISSION)),
    "ego4d.json": document({"version": "1.0", "challenge": "ego4d_nlq_challenge", "results": ENTRIES}),
    "answers.json": document(
        {"a_0": [[0, 5]], "a_1": "from 0 to 5.5 s", "7": {"timestamp": [3, 4], "vid": "v.mp4"}}
    ),
    "answers.jsonl": lines(*({"id": name, "answer": "00:01 - 00:05"} for name, _, _ in QUERIES)),
    "samples.jsonl": lines(
        {"doc_id": 0, "doc": {"video": "v.mp4", "caption": "q w."}, "filtered_resps": ["1.5 to 3 s"]},
        {"doc_id": 1, "submission": {"v.mp4>>>q w>>>[1, 2]": "0 - 4"}, "resps": [["0 - 4"]]},
    ),
    "named.json": document(
        [
            {"query_id": name, "video_id": "v.mp4", "windows": [{"start": 0, "end": 5, "score": 1}]}
            for name, _, _ in QUERIES
        ]
    ),
    "written.jsonl": lines(
        *({"qid": encode_id(name), "timestamps": [["0", "5.5"], ["1", "2"]]} for name, _, _ in QUERIES)
    ),
    "clips.jsonl": lines(
        *({"qid": encode_id(name), "pred_saliency_scores": [0.5, 1, 0]} for name, _, _ in QUERIES)
    ),
    "one.json": document({"question_id": "a_0", "spans": {"begin": 0, "finish": 5}}),
    "arrays.npz": archive(moments=np.tile([0.0, 5.0], (3, 2, 1)), scores=np.ones((3, 2))),
    "named.npz": archive(
        pred_cs=np.tile([0, 500], (3, 2, 1)), ids=np.array([name for name, _, _ in QUERIES])
    ),
}


CORPUS_WINDOWS = [["v", 0, 5, 0.9], ["w", 1, 30, 0.1], ["v", 2, 3, 0]]
CORPUS = {
    "corpus.jsonl": lines(
        *(
            {
                **{"qid": encode_id(name), "query": "q w", "pred_corpus_windows": CORPUS_WINDOWS},
                "pred_corpus_videos": ["v", "w"],
            }
            for name, _, _ in QUERIES
        )
    ),
    "tvr.json": document(
        {"video2idx": {"v": 0, "w": 1}}
        | {
            task: [
                {"desc_id": encode_id(name), "desc": "q w", "predictions": [[0, 0, 5, 0.9], [1, 1, 30, 0.1]]}
                for name, _, _ in QUERIES
            ]
            for task in ("VCMR", "VR")
        }
    ),
    "graded.jsonl": lines(
        *({"qid": encode_id(name), "relevant": [["v", 0, 4], ["w", 3, 4.5]]} for name, _, _ in QUERIES)
    ),
    "videos.txt": b"v\nw\n",
    "videos.json": document(["v", "w"]),
    "seconds.json": document({"v": 30.0, "w": 60}),
}
"""Of a corpus: predictions, graded truth, ids of its videos."""


def damaged_json(rng: random.Random, content: bytes) -> bytes:
    rows = [json.loads(line) for line in content.splitlines()]
    number = rng.randrange(len(rows))
    rows[number] = exchanged(rng, rows[number])
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def damaged(rng: random.Random, content: bytes) -> bytes:
    if content[:1] in b"{[" and rng.random() < 0.5:
        return damaged_json(rng, content)
    return damaged_bytes(rng, content)


def written(rng: random.Random, folder: Path, name: str, content: bytes) -> Path:
    """Writes the damaged file, sometimes gzipped, and returns its path."""
    content = damaged(rng, content)
    if not name.endswith(".npz") and rng.random() < 0.1:
        name, content = f"{name}.gz", gzip.compress(content)
        if rng.random() < 0.3:
            content = damaged_bytes(rng, content)
    path = folder / name
    path.write_bytes(content)
    return path


def make_predictions(rng: random.Random, folder: Path, samples: Path | None = None, layout: str = "") -> Case:
    """A damaged file of predictions, and how it is scored and exported."""
    name = layout or rng.choice(list(PREDICTIONS))
    path = written(rng, folder, name, PREDICTIONS[name])
    rules = rng.choice(PROTOCOLS)
    truth = folder / "truth.jsonl"
    truth.write_bytes(lines(*{"glance": POINTED, "tvsum": LABELLED}.get(rules, CANONICAL)))
    arguments: list[object] = [path, "--annotations", truth, "--json", "--protocol", rules]
    arguments += rng.choice([[], ["--ignore-unknown"], ["--no-baselines"], ["--thresholds", "0.3,0.9"]])
    if rng.random() < 0.3:
        arguments += [rng.choice(["--export-qvhighlights", "--export-ego4d"]), folder / "export"]
        arguments += rng.choice([[], ["--fill-missing"]])
    return Case([Call("vmr-score", arguments, warns=True)])


def make_corpus(rng: random.Random, folder: Path, samples: Path | None = None, layout: str = "") -> Case:
    """A damaged file of a corpus beside the whole ones, and how predictions over it are scored."""
    for name, content in CORPUS.items():
        (folder / f"whole-{name}").write_bytes(content)
    (folder / "truth.jsonl").write_bytes(lines(*CANONICAL))
    name = layout or rng.choice(list(CORPUS))
    path = written(rng, folder, name, CORPUS[name])
    whole = folder / rng.choice(["whole-corpus.jsonl", "whole-tvr.json"])
    graded = name.startswith("graded")
    videos = name.startswith(("videos", "seconds"))
    arguments: list[object] = [whole if graded or videos else path, "--json"]
    arguments += ["--annotations", folder / "truth.jsonl", "--protocol", rng.choice(["vcmr", "vcmr-didemo"])]
    if graded or rng.random() < 0.5:
        arguments += ["--graded", path if graded else folder / "whole-graded.jsonl"]
    arguments += ["--corpus", path if videos else folder / "whole-seconds.json"]
    return Case([Call("vmr-score", arguments + rng.choice([[], ["--ignore-unknown"]]), warns=True)])


def make(rng: random.Random, folder: Path, samples: Path | None = None, layout: str = "") -> Case:
    """A damaged file of annotations beside the whole ones, and the command line that reads it."""
    whole = {
        name: folder / f"whole-{name}"
        for name in ("canonical", "charades-sta", "durations.csv", "ours.jsonl")
    }
    for name, path in whole.items():
        path.write_bytes((ANNOTATIONS | PREDICTIONS)[name])
    name = layout or rng.choice(list(ANNOTATIONS))
    path = written(rng, folder, name, ANNOTATIONS[name])
    if name.startswith("durations"):
        options: list[object] = ["--annotations", whole["charades-sta"], "--durations", path]
    elif name == "words.txt":
        options = [
            "--annotations",
            whole["canonical"],
            "--word-vectors",
            path,
            *rng.choice(([], ["--token-dim", 3])),
        ]
        return Case([Call("rgnet-data", ["check", *options, "--data-root", "/"], warns=True)])
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
        return Case([Call("vmr-score", [whole["ours.jsonl"], *options, "--ignore-unknown"], warns=True)])
    command: list[object] = rng.choice(
        [["check"], ["info"], ["convert", "--out", folder / "converted.jsonl"]]
    )
    return Case([Call("vmr-data", [*command, *options, "--data-root", "/"], warns=True)])
