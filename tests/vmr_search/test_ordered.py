"""A moment after or before another one is found by both, and by their order."""

import numpy as np
import pytest

from search_toy import WordRetriever, corpus
from vmr_search import Filter, Search
from vmr_search.ordered import in_order, reading_of


@pytest.fixture
def search():
    return Search(corpus(), WordRetriever())


def first(found):
    return (found[0].video, found[0].start)


def test_of_two_moments_that_fit_the_one_in_order_is_found(search):
    # in "street" a dog is there from 0 and from 6 s, and the red circle spins from 2 s
    after, before = search("the dog after the red circle spins"), search("dog before red circle spins")
    assert (first(after), first(before)) == (("street", 6.0), ("street", 0.0))
    assert after.note == 'searched as "the dog" after "the red circle spins"'
    assert first(search("after the red circle spins, the dog")) == first(after)


def test_a_window_with_nothing_on_its_right_side_is_not_found(search):
    assert first(search("dog door after red circle")) == ("kitchen", 4.0)
    before = search("dog door before red circle", k=99)  # it is the last window of "kitchen"
    assert ("kitchen", 4.0) not in {(hit.video, hit.start) for hit in before}


def test_scores_are_means_of_both_parts_and_filters_are_of_the_main_part(search):
    whole = {
        (hit.video, hit.start): hit.score for text in ("dog", "red circle spins") for hit in search(text, 99)
    }
    found = search("dog after red circle spins", where=Filter(after=6.5))
    assert first(found) == ("street", 6.0)
    best = np.mean([search("dog", 99, where=Filter(after=6.5))[0].score, whole["street", 2.0]])
    assert found[0].score == pytest.approx(best)
    assert not search("dog after red circle spins", where=Filter(videos=frozenset({"garden"}), before=0.5))


def test_a_video_that_is_far_down_for_one_part_is_scored_for_both(search, monkeypatch):
    vectors = WordRetriever().sentences(["dog", "red circle spins"])
    monkeypatch.setattr("vmr_search.ordered.CANDIDATES", 1)
    monkeypatch.setattr("vmr_search.ordered._PER_VIDEO", 1)
    few = in_order(search.engine, *vectors, "after", 1, Filter())
    assert few[0].video == "street"


@pytest.mark.parametrize(
    "text",
    ["dog before", "after dog", "dog before door after red", "dog", "dogs aftermath", "after that dog"],
)
def test_other_sentences_are_searched_as_a_whole(text):
    assert reading_of(text) is None


def test_so_are_sentences_of_which_a_part_is_not_known_and_where_it_is_asked_for(search):
    assert not search("dog after breakfast").note
    plain = Search(search.engine, search.retriever, ordered=False)("dog after red circle spins")
    assert not plain.note
    assert first(plain) != ("street", 6.0)
