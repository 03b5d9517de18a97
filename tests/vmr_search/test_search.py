"""A sentence finds the moments of a corpus, best first."""

import numpy as np
import pytest

from search_toy import MemoryIndex, WordRetriever, corpus
from vmr_common.errors import UserError
from vmr_common.metrics import nms
from vmr_search import Filter, FoundVideo, Search


@pytest.fixture
def search():
    return Search(corpus(), WordRetriever())


def test_the_best_moment_of_the_corpus_comes_first(search):
    found = search("red circle spins", k=3)
    assert (found[0].video, found[0].start, found[0].end) == ("street", 2.0, 4.0)
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    assert found.videos == 3
    assert set(found.seconds) == {"sentence", "retrieve"}


@pytest.mark.parametrize(
    ("where", "least_score", "expected"),
    [
        ({"videos": frozenset({"kitchen"})}, None, {("kitchen", 0.0)}),
        ({"after": 2.5}, None, {("street", 2.0)}),
        ({"before": 1.0}, None, {("kitchen", 0.0)}),
        ({"longest": 1.0}, None, set()),
        ({}, 1.9, set()),
    ],
)
def test_filters_say_which_moments_are_looked_at(search, where, least_score, expected):
    found = search("red circle", k=1, where=Filter(**where), least_score=least_score)
    assert {(hit.video, hit.start) for hit in found} == expected or (not expected and not found)


def test_so_many_moments_of_one_video_at_the_most(search):
    every, one_each = search("red circle spins", k=9), search("red circle spins", k=9, per_video=1)
    best = {hit.video: hit for hit in reversed(every)}
    assert len(every) > len(one_each) == len(best)
    assert list(one_each) == sorted(best.values(), key=lambda hit: -hit.score)


@pytest.mark.parametrize(
    ("text", "settings", "named"),
    [
        ("", {}, "empty"),
        ("red " * 400, {}, "letters"),
        ("red", {"k": 0}, "k: found 0"),
        ("red", {"per_video": 0}, "per_video: found 0"),
        ("red", {"nms": 2}, "nms"),
        ("unknown", {}, "no word"),
    ],
)
def test_what_cannot_be_searched_for_is_named(search, text, settings, named):
    with pytest.raises(UserError, match=named):
        search(text, **settings)


@pytest.mark.parametrize("k", [1, 7, 40, 1000])
def test_the_best_hits_are_those_of_all_windows_suppressed(k):
    drawn = np.random.default_rng(k)
    found = []
    for number in range(6):
        windows = np.sort(drawn.integers(0, 40, (80, 2)), axis=1).astype(float)
        scores = drawn.integers(0, 60, 80).astype(np.float32)  # many are equal
        found.append(FoundVideo(f"{number}", 40.0, windows, scores))
    every = [(video, row) for video in found for row in nms(video.windows, 0.5, limit=k, scores=video.scores)]
    every.sort(key=lambda one: -one[0].scores[one[1]])
    engine = MemoryIndex()
    engine.search = lambda *_, **__: [found]
    made = Search(engine, WordRetriever())("red", k)
    expected = [(video.video, *video.windows[row], video.scores[row]) for video, row in every[:k]]
    assert [(hit.video, hit.start, hit.end, hit.score) for hit in made] == expected


@pytest.mark.parametrize("wrong", [{"after": -1.0}, {"after": 5.0, "before": 1.0}, {"shortest": np.nan}])
def test_an_impossible_filter_is_named(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Filter(**wrong)
