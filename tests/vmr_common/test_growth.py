"""Work in proportion to what is read: counted calls at n and at 4n, at most five times as many."""

import contextlib
import json
import sys

import numpy as np
import pytest

from vmr_common.errors import UserError
from vmr_common.evaluation import prediction_files, protocol, submissions
from vmr_common.splits.formats import read_annotations
from vmr_common.splits.text_files import read_durations
from vmr_common.text.tokens import tokenize
from vmr_common.text.vectors import Vocabulary, WordVectors
from vmr_common.types import Prediction, Query
from vmr_train.content_words import content_scores

SMALL, LARGE = 60, 240


def calls(run):
    """How many functions, Python's and C's, a call enters."""
    count = 0

    def tally(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(tally)
    try:
        run()
    finally:
        sys.setprofile(before)
    return count


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def annotations(path, count, place):
    common = {"duration": 9, "query": "s"}
    rows = (
        {"query_id": n, "video_id": n * place, "windows": [[0, n * place]], **common} for n in range(count)
    )
    lines(path, rows)
    return lambda: read_annotations(path, policy="as-annotated")


def charades(path, count, place):
    path.write_text("".join(f"v{n * place} 1 2##a {n}\n" for n in range(count)))
    durations = {f"v{n}": 9.0 for n in range(count)}
    return lambda: read_annotations(path, durations=durations)


def document(path, count, place):
    of_one = 1 if place else count
    entry = {"duration": 9, "timestamps": [[1, 2]] * of_one, "sentences": [f"a {n}" for n in range(of_one)]}
    path.write_text(json.dumps({f"v{n}": entry for n in range(count if place else 1)}))
    return lambda: read_annotations(path)


def durations(path, count, place):
    path.write_text("id,length\n" + "".join(f"v{n},9\n" for n in range(count)))
    return lambda: read_durations(path)


def windows(path, count, place):
    of_one = [[n, n + 1, 0.5] for n in range(1 if place else count)]
    lines(path, ({"qid": n, "pred_relevant_windows": of_one} for n in range(count if place else 1)))
    return lambda: prediction_files.read_any(path)


def scoring(path, count, place):
    targets = [[1, 2]] * (1 if place else count)
    names = [str(n) for n in range(count if place else 1)]
    queries = [Query(id=name, video="v", text="", duration=9.0, moments=targets) for name in names]
    predictions = [Prediction(query=name, video="v", moments=[[1, 2]], scores=[1.0]) for name in names]
    return lambda: protocol("strict").score(queries, predictions)


def checking(path, count, place):
    queries = [Query(id=str(n), video="v", text="", duration=9.0) for n in range(count)]
    names = [str(n) if place else f"a{n}" for n in range(count)]
    predictions = [Prediction(query=name, video="v", moments=[[1, 2]], scores=[1.0]) for name in names]

    def write():
        with contextlib.suppress(UserError):  # all are unknown
            submissions.write_qvhighlights(path, predictions, queries)

    return write


def vectors(path, count, place):
    path.write_text("".join(f"w{n * place} 1 2 3\n" for n in range(count)))
    return lambda: WordVectors.read(path)


def vocabulary(path, count, place):
    known = WordVectors(tuple(f"w{n}" for n in range(count)), np.zeros((count, 2), np.float32))
    lists = [[f"w{n * place}"] for n in range(count)]
    return lambda: Vocabulary.build(lists, known)


def words(path, count, place):
    text = ("a. b! (c) don't 1,000... " if place else "a. ") * count
    return lambda: content_scores(tokenize(text))


KINDS = (annotations, charades, document, durations, windows, scoring, checking, vectors, vocabulary, words)


@pytest.mark.parametrize("place", [1, 0], ids=["apart", "together"])
@pytest.mark.parametrize("made", KINDS, ids=lambda made: made.__name__)
def test_four_times_as_much_is_at_most_five_times_the_work(tmp_path, made, place):
    runs = [made(tmp_path / str(count), count, place) for count in (SMALL, SMALL, LARGE)]
    runs[0]()  # pays for what is made once
    _, few, many = map(calls, runs)
    assert many <= 5 * few
