"""``vmr-search eval``: figures of a toy corpus that are known beforehand, its options, what it leaves out."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from search_toy import CAPTIONS, WordRetriever, corpus, videos
from vmr_common.evaluation.corpus_files import read_corpus, read_corpus_predictions
from vmr_common.types import Query
from vmr_search import Search, evaluating
from vmr_search.cli.main import main
from vmr_search.folder import create
from vmr_search.grounding import Grounded

QUERIES = [
    ("1", "kitchen", "red circle", [0, 2]),
    ("2", "street", "green dog", [6, 8]),
    ("3", "street", "blue door", [4, 6]),
    ("4", "kitchen", "unknown", [0, 2]),
    ("5", "elsewhere", "red square", [0, 2]),
]


def query(name, video, text, moment):
    return Query(id=name, video=video, text=text, duration=8.0, moments=[moment])


class LastVideoFirst:
    """A second stage that is sure of the last window of every video, most of the last video."""

    weight = 0.5
    method = SimpleNamespace(package="toy")

    def __init__(self):
        self.asked = []

    def ground(self, text, found):
        self.asked.append(len(found))
        return [
            Grounded(np.array([[one.duration - 2, one.duration]]), np.array([float(number)]), None)
            for number, one in enumerate(found)
        ]

    def fuse(self, text, found, grounded):
        return [one.scores for one in grounded]


def test_answers_are_those_of_the_search_itself():
    grounder = LastVideoFirst()
    search = Search(corpus(), WordRetriever(), grounder=grounder)
    asked = [query(*one) for one in QUERIES]
    found = evaluating.answers_of(search, asked, [1, 3])
    assert found.unsearchable == {"4": "the model knows no word of it"}
    assert grounder.asked == [3] * 4  # once a query, of the most videos
    for number, answers in found.grounded.items():
        for one, answer in zip([asked[0], asked[1], asked[2], asked[4]], answers, strict=True):
            hits = search(one.text, 100, videos=number)
            assert answer.query == one.id
            assert answer.videos == tuple(hit.video for hit in hits)
            assert answer.moments.tolist() == [[hit.start, hit.end] for hit in hits]
            assert len(answer.video_ranking()) == 3
    alone = Search(corpus(), WordRetriever())("red circle", 100)
    assert found.retrieved[0].videos == tuple(hit.video for hit in alone)


def test_what_an_approximate_search_misses_is_counted():
    class OfOneVideo:
        """Finds nothing but the kitchen unless it is to be exact."""

        def __init__(self):
            self.whole = corpus()

        def __len__(self):
            return len(self.whole)

        def search(self, queries, n, where=None, *, exact=False):
            found = self.whole.search(queries, n)
            return found if exact else [[one for one in each if one.video == "kitchen"] for each in found]

    asked = [query(*one) for one in QUERIES[:3]]
    shares = evaluating.against_exact(Search(OfOneVideo(), WordRetriever()), asked)
    assert shares["videos"] == pytest.approx(1 / 3)
    assert 0.2 < shares["moments"] < 0.5
    exact = evaluating.against_exact(Search(corpus(), WordRetriever()), asked)
    assert exact == {"videos": 1.0, "moments": 1.0}


@pytest.fixture
def run(tmp_path, answer, monkeypatch):
    """Runs ``vmr-search eval`` on an index of the toy corpus and its queries."""
    with create(tmp_path / "index", WordRetriever()) as index:
        index.engine.add(videos(CAPTIONS))
    monkeypatch.setattr("vmr_search.folder.open_retriever", lambda *given: WordRetriever())
    monkeypatch.setattr("vmr_search.method_grounder.open_grounder", lambda *given, **more: LastVideoFirst())
    rows = [
        {"query_id": name, "video_id": video, "query": text, "duration": 8.0, "windows": [span]}
        for name, video, text, span in QUERIES
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    truth = [{"qid": row["query_id"], "relevant": [["street", 6, 8]]} for row in rows]
    (tmp_path / "graded.jsonl").write_text("".join(json.dumps(row) + "\n" for row in truth))
    monkeypatch.chdir(tmp_path)
    return lambda *options: answer(main, "eval", *options)


def test_features_that_are_not_there_are_named(run):
    status, _, err = run("index", "--annotations", "q.jsonl", "--ground", "run", "--features", "missing.h5")
    assert (status, err.count("\n"), "missing.h5" in err) == (2, 1, True)


def test_the_table_has_both_truths_and_says_what_is_left_out(run):
    status, out, err = run(
        "index", "--annotations", "q.jsonl", "--graded", "graded.jsonl", "--out", "found.jsonl", "--against-exact",
        "--times",
    )  # fmt: skip
    assert status == 0, err
    assert "3 videos" in out
    assert "4 queries (and 1 without a target, left out), 1 without prediction" in out
    assert "1 query of videos that are not in index: left out by the annotated moment" in out
    assert "1 query missed: the model knows no word of it (first: 4)" in out
    first = [line.split()[1] for line in out.splitlines() if line.startswith("words ")]
    assert first == ["75.00", "75.00"]
    assert {"words, graded", "chance", "chance, graded"} <= {line[:14].strip() for line in out.splitlines()}
    assert "scan: 100.00 % of the exact first ten videos, 100.00 %" in out
    assert "processor p50" in out
    assert [one.query for one in read_corpus_predictions("found.jsonl")[0]] == ["1", "2", "3", "5"]
    assert set(read_corpus("found.videos.json")) == set(CAPTIONS)


def test_a_curve_over_the_videos_that_a_method_looks_into(run):
    status, out, err = run(
        "index", "--annotations", "q.jsonl", "--ground", "x", "--curve", "1", "3", "--json"
    )
    assert status == 0, err
    report = json.loads(out)
    assert [system["system"] for system in report["systems"]] == ["words", "words + toy", "chance"]
    assert [point["videos"] for point in report["curve"]] == [1, 3]
    assert all(point["processor p50"] > 0 for point in report["curve"])
    status, out, _ = run("index", "--annotations", "q.jsonl", "--ground", "x", "--curve", "1", "3")
    assert "videos looked into: 20, weight 0.5" in out
    assert "videos  R@1,0.5" in out


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("index",), "either --split NAME or --annotations FILE"),
        (("index", "--annotations", "q.jsonl", "--curve", "1"), "--curve is for --ground"),
        (("index", "--annotations", "q.jsonl", "--weight", "0.5"), "--weight is for --ground"),
        (("nothing", "--annotations", "q.jsonl"), "not an index"),
    ],
)
def test_what_does_not_go_together_is_named(run, options, named):
    status, _, err = run(*options)
    assert status == 2
    assert named in err


def test_a_data_set_that_knows_its_truth_is_asked(monkeypatch, tmp_path):
    def truth(folder, queries, videos):
        assert (folder, list(queries), list(videos)) == (tmp_path / "toys", ["1"], ["a"])
        return {"1": {"a": np.array([[0.0, 2.0]])}}

    point = SimpleNamespace(name="toys", load=lambda: truth)
    monkeypatch.setattr(evaluating, "entry_points", lambda group: [point])
    assert evaluating.known_truth("toys/test", tmp_path, ["1"], ["a"]) == {"1": [("a", 0.0, 2.0)]}
    assert evaluating.known_truth("others/test", tmp_path, ["1"], ["a"]) is None
