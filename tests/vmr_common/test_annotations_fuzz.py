"""Damaged annotation files of every format: queries or one clean error, never anything else."""

import json
import random

import pytest

from vmr_common.annotations import read_annotations, read_canonical, write_canonical
from vmr_common.errors import UserError

VIDEO = {"timestamps": [[1, 2], [3, 4]], "sentences": ["a b", " c"]}
CLIP = {"clip_uid": "c", "video_start_sec": 0, "video_end_sec": 480.0}
QUERY = {"query": "where?", "clip_start_sec": 1.5, "clip_end_sec": 3}
LINE = {"query_id": "a_1", "duration": 9.0, "query": "q"}
SALIENT = {"relevant_windows": [[0, 2]], "relevant_clip_ids": [0], "saliency_scores": [[1, 2, 3]]}
SEEDS = {
    "glance-list": json.dumps(
        [["AB", 30.0, [4.0, 11.0], "opens.", 6.5], ["AB", 30.0, [12, 20], "sits.", 13]]
    ),
    "charades-sta": "AB 1.0 2.5##a b.\nAB 3 4##c d.\n",
    "viga": "AB 1.0 2.5##2##a b.\nAB 3 4##3##c d.\n",
    "tacos": json.dumps({"s.avi": {**VIDEO, "num_frames": 90, "fps": 29.4, "glance": [1, 3]}}),
    "activitynet": json.dumps({"v": {**VIDEO, "duration": 55.1}}),
    "qvhighlights": json.dumps({"qid": 1, "query": "q", "duration": 150, "vid": "x_0.0_150.0", **SALIENT}),
    "ego4d-nlq": json.dumps(
        {
            "videos": [
                {"clips": [{**CLIP, "annotations": [{"annotation_uid": "a", "language_queries": [QUERY]}]}]}
            ]
        }
    ),
    "mad": json.dumps({"1": {"movie": "m", "sentence": "x", "timestamps": [1, 2], "movie_duration": 7000.5}}),
    "canonical": json.dumps({**LINE, "video_id": "v", "windows": [[1, 2]], "point": 1.5}) + "\n",
    "cone": json.dumps({**LINE, "clip_id": "c", "timestamps": [1, 2]}) + "\n",
}
PIECES = [
    *(b"null", b"NaN", b"1e999", b"-1", b'""', b"[]", b"{}", b"true", b"\xff", b"\0", b"9" * 5000, b"[" * 50),
    *(b'"', b",", b"##", b" ", b"\n", b"\\ud800", b"-Infinity", b":", b"\xef\xbb\xbf", b""),
]


def mutate(rng, text):
    data = bytearray(text)
    for _ in range(rng.randint(1, 3)):
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


@pytest.mark.parametrize("name", SEEDS)
def test_damage_gives_queries_or_one_clean_error(tmp_path, name):
    rng, messages = random.Random(name), []
    path, canonical = tmp_path / "damaged", tmp_path / "canonical.jsonl"
    for _ in range(80):
        path.write_bytes(mutate(rng, SEEDS[name].encode()))
        for form in (name, "auto"):
            try:
                found = read_annotations(path, form, durations={"AB": 30.0}, policy="as-annotated")
                write_canonical(canonical, found.queries)
                assert len(read_canonical(canonical, policy="as-annotated").queries) == found.report.kept
            except UserError as error:
                messages.append(str(error))
    assert messages
    assert all("\n" not in message and len(message) < 800 for message in messages)
