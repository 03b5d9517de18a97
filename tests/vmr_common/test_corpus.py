"""Corpus retrieval: figures against a plain loop, files, ``vmr-score --protocol vcmr``."""

import json
import re

import numpy as np
import pytest

from vmr_common.cli.score import main
from vmr_common.errors import UserError
from vmr_common.evaluation.corpus import DEPTH, PROTOCOLS, RANKS, CorpusPrediction, annotated
from vmr_common.evaluation.corpus_files import (
    read_corpus,
    read_corpus_predictions,
    read_truth,
    write_corpus_predictions,
)
from vmr_common.types import Query

RULES = PROTOCOLS["vcmr"]
VIDEOS = [f"v{number}" for number in range(30)]


def drawn(seed, count=12, each=4):
    """Queries, answers of which some are right, and a truth of several moments in several videos."""
    rng = np.random.default_rng(seed)
    truth, queries, answers = {}, [], []
    for number in range(count):
        spans = np.sort(rng.random((each, 2)) * 20, axis=1)
        right = [(str(rng.choice(VIDEOS[:8])), *span) for span in spans.tolist()]
        truth[str(number)] = right
        queries.append(
            Query(id=str(number), video=right[0][0], text="a", duration=20.0, moments=[right[0][1:]])
        )
        moments = np.sort(rng.random((130, 2)) * 20, axis=1)
        videos = tuple(rng.choice(VIDEOS[:10], 130).tolist())
        answers.append(
            CorpusPrediction(query=str(number), videos=videos, moments=moments, scores=np.zeros(130))
        )
    return queries, answers[:-1], truth


def overlap(a, b):
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return shared / ((a[1] - a[0]) + (b[1] - b[0]) - shared)


def by_loop(queries, answers, truth):
    """The figures of the protocol, one moment after the other."""
    found = {answer.query: answer for answer in answers}
    sums = {}
    for query in queries:
        answer = found.get(query.id)
        rows = list(zip(answer.videos, answer.moments.tolist(), strict=True)) if answer else []
        values, right = {}, truth[query.id]
        for threshold in (0.3, 0.5, 0.7):
            hit = [
                any(v == w and overlap(span, (s, e)) >= threshold for w, s, e in right) for v, span in rows
            ]
            for n in RANKS:
                values[f"R@{n},IoU@{threshold:g}"] = float(any(hit[:n]))
        left, precision, first, hits = list(right), 0.0, np.inf, 0
        for rank, (video, span) in enumerate(rows[:DEPTH], 1):
            fits = [(overlap(span, one[1:]), one) for one in left if one[0] == video]
            best = max(fits, default=(0.0, None))
            if best[0] >= 0.5:
                left.remove(best[1])
                hits += 1
                precision += hits / rank
                first = min(first, rank)
        values["mAP"], values["median rank"] = precision / min(len(right), DEPTH), first
        shown, good = list(dict.fromkeys(video for video, _ in rows)), {video for video, *_ in right}
        for n in RANKS:
            values[f"video R@{n}"] = float(any(video in good for video in shown[:n]))
        places = [rank for rank, video in enumerate(shown, 1) if video in good]
        values["video mAP"] = sum(n / rank for n, rank in enumerate(places, 1)) / len(good)
        values["video median rank"] = places[0] if places else np.inf
        for key, value in values.items():
            sums.setdefault(key, []).append(value)
    return {key: np.median(all_) if key.endswith("rank") else np.mean(all_) for key, all_ in sums.items()}


@pytest.mark.parametrize("graded", [False, True])
def test_the_figures_are_those_of_a_plain_loop(graded):
    queries, answers, several = drawn(1)
    truth = several if graded else annotated(queries)
    scores = RULES.score(queries, answers, truth, VIDEOS)
    assert scores.values == pytest.approx(by_loop(queries, answers, truth))
    assert (scores.num_queries, scores.num_missing) == (12, 1)


def test_chance_is_what_random_lists_get():
    queries, _, truth = drawn(2, count=4)
    rng, rounds = np.random.default_rng(0), []
    for _ in range(250):
        answers = [
            CorpusPrediction(
                query=query.id,
                videos=tuple(rng.choice(VIDEOS, DEPTH).tolist()),
                moments=np.sort(rng.random((DEPTH, 2)) * 20, axis=1),
                scores=np.zeros(DEPTH),
                ranked_videos=tuple(rng.permutation(VIDEOS).tolist()),
            )
            for query in queries
        ]
        rounds.append(RULES.score(queries, answers, truth, VIDEOS).values)
    expected = RULES.chance(queries, truth, VIDEOS, dict.fromkeys(VIDEOS, 20.0)).values
    assert list(expected) == list(rounds[0])
    for key, value in expected.items():
        measured = [one[key] for one in rounds]
        if key.endswith("rank"):
            assert value == pytest.approx(np.median(measured), rel=0.35)
        else:
            assert value == pytest.approx(np.mean(measured), abs=0.05), key


def test_two_annotators_of_didemo_have_to_agree():
    query = Query(id="1", video="v0", text="a", duration=30.0, moments=[[0, 5], [0, 5], [10, 15], [20, 25]])
    for window, right in (([0, 5], 1.0), ([10, 15], 0.0)):
        found = CorpusPrediction(query="1", videos=("v0",), moments=[window], scores=[1.0])
        scores = PROTOCOLS["vcmr-didemo"].score([query], [found], annotated([query]), VIDEOS)
        assert scores.values["R@1,IoU@0.7"] == scores.values["mAP"] == right


@pytest.fixture
def files(tmp_path):
    """Annotations of two queries, predictions, a submission to TVR of the same, and graded truth."""
    annotations = [
        {"desc_id": 7, "vid_name": "v0", "desc": "a", "duration": 20.0, "ts": [0, 10]},
        {"desc_id": 8, "vid_name": "v1", "desc": "b", "duration": 20.0, "ts": [5, 10]},
    ]
    found = [
        CorpusPrediction(query="7", videos=("v1", "v0"), moments=[[0, 9], [0, 9]], scores=[2, 1], text="a"),
        CorpusPrediction(
            query="8", videos=("v1",), moments=[[5, 10]], scores=[1], ranked_videos=("v0", "v1")
        ),
    ]
    write_corpus_predictions(tmp_path / "mine.jsonl", found)
    numbers = {"v0": 3, "v1": 5}
    submission = {
        "video2idx": numbers,
        "VCMR": [
            {
                "desc_id": int(one.query),
                "desc": one.text,
                "predictions": [
                    [numbers[v], *span, s]
                    for v, span, s in zip(one.videos, one.moments.tolist(), one.scores.tolist(), strict=True)
                ],
            }
            for one in found
        ],
        "VR": [{"desc_id": 8, "desc": "b", "predictions": [[3, 0, 0, 2.0], [5, 0, 0, 1.0]]}],
    }  # fmt: skip
    (tmp_path / "tvr.json").write_text(json.dumps(submission))
    for name, rows in (
        ("truth.jsonl", annotations),
        ("graded.jsonl", [{"qid": 7, "relevant": [["v1", 0, 9]]}, {"qid": 8, "relevant": [["v1", 5, 10]]}]),
    ):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize("name", ["mine.jsonl", "tvr.json"])
def test_the_command_prints_both_truths_and_chance(files, answer, name):
    status, out, _ = answer(
        main, files / name, "--annotations", files / "truth.jsonl", "--protocol", "vcmr",
        "--graded", files / "graded.jsonl",
    )  # fmt: skip
    assert status == 0
    assert "IoU >= m in a right video, 2 videos" in out
    assert "2 queries, 0 without prediction" in out
    stem = name.split(".")[0]
    rows = {line[:14].strip(): line[14:].split() for line in out.splitlines() if line[:1].islower()}
    assert {stem, f"{stem}, graded", "chance", "chance, graded"} <= rows.keys()
    first = [line.split()[1] for line in out.splitlines() if line.startswith(f"{stem} ")]
    assert first == ["50.00", "0.00"]  # moment and video R@1: videos of the second are ranked by themselves


def test_json_and_a_corpus_of_ones_own(files, answer):
    (files / "corpus.json").write_text(json.dumps({"v0": 20, "v1": 20, "v2": 9.5}))
    options = ("--annotations", files / "truth.jsonl", "--protocol", "vcmr", "--json", "--no-baselines")
    status, out, _ = answer(main, files / "mine.jsonl", *options, "--corpus", files / "corpus.json")
    found = json.loads(out)
    assert (status, found["videos"], len(found["systems"])) == (0, 3, 1)
    assert read_corpus(files / "corpus.json")["v2"] == 9.5


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"qid": 7, "pred_corpus_windows": [["v0", 0, 9]]}', r"pred_corpus_windows\[0\] must be \[video"),
        ('{"qid": 7, "pred_relevant_windows": []}', "pred_corpus_windows"),
        ('{"video2idx": {"v0": 1, "v1": 1}, "VCMR": []}', "video2idx: 'v1' has number 1"),
        ('{"video2idx": {"v0": 1}, "VCMR": [{"desc_id": 7, "predictions": [[2, 0, 1, 1]]}]}', "number 2"),
        ('{"results": []}', "no corpus predictions"),
        ("", "holds no prediction"),
        ('{"qid": 9, "pred_corpus_windows": []}', "queries that the split does not have"),
        ('{"qid": 7, "pred_corpus_windows": [["v9", 0, 9, 1]]}', "'v9', which is none of the 2 videos"),
    ],
)
def test_what_cannot_be_read_is_named(files, answer, text, named):
    (files / "bad.jsonl").write_text(text)
    status, _, err = answer(
        main, files / "bad.jsonl", "--annotations", files / "truth.jsonl", "--protocol", "vcmr"
    )
    assert status == 2
    assert err.count("\n") == 1
    assert re.search(named, err), err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--protocol", "vcmr", "--protocol", "strict"), "give it alone"),
        (("--protocol", "vcmr", "--nms", "0.5"), "--nms: not with"),
        (("--graded", "x"), "--graded is for --protocol vcmr"),
        (("--protocol", "vcmr", "--graded", "half.jsonl"), "lacks 1 of the 2 queries"),
    ],
)
def test_options_that_do_not_go_together_are_named(files, answer, options, named, monkeypatch):
    monkeypatch.chdir(files)
    (files / "half.jsonl").write_text('{"qid": 7, "relevant": []}')
    status, _, err = answer(main, files / "mine.jsonl", "--annotations", files / "truth.jsonl", *options)
    assert status == 2
    assert named in err


def test_a_truth_names_each_query_once(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"qid": 1, "relevant": [["v", 0, 1]]}\n' * 2)
    with pytest.raises(UserError, match=r"t\.jsonl:2: query id '1' occurs twice"):
        read_truth(tmp_path / "t.jsonl")


def test_what_is_written_is_read_again(files):
    found, corpus = read_corpus_predictions(files / "tvr.json")
    assert corpus == ["v0", "v1"]
    assert found[1].ranked_videos == ("v0", "v1")
    write_corpus_predictions(files / "again.jsonl", found)
    again, _ = read_corpus_predictions(files / "again.jsonl")
    assert [(one.query, one.videos, one.ranked_videos) for one in again] == [
        (one.query, one.videos, one.ranked_videos) for one in found
    ]
