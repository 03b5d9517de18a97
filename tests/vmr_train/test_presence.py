"""Sentences asked of other videos, how well evidence tells them apart, and the probability that is made of it."""

from collections import Counter

import numpy as np
import pytest

from vmr_common.types import Prediction, Query
from vmr_train.cli.presence import Elsewhere
from vmr_train.presence import (
    MOST_PAIRS,
    Calibration,
    draw_pairs,
    fit_logistic,
    presence_text,
    separation,
)


def queries(count: int, videos: int, sentences: int = 1000) -> list[Query]:
    return [
        Query(
            id=f"q{n}", video=f"v{n % videos}", text=f"Sentence {n % sentences}.", duration=10.0 + n % videos
        )
        for n in range(count)
    ]


def predictions(scores, videos: int, **more) -> list[Prediction]:
    return [
        Prediction(query=str(n), video=f"v{n % videos}", moments=[[0, 1]], scores=[score], **more)
        for n, score in enumerate(scores)
    ]


# pairs


def test_both_sides_hold_the_same_sentences_and_the_same_videos():
    asked = queries(120, 11)
    pairs = draw_pairs(asked)
    assert Counter(query.id for query in pairs.own) == Counter(query.id for query in pairs.other)
    assert Counter(query.video for query in pairs.own) == Counter(query.video for query in pairs.other)
    own = {query.id: query for query in pairs.own}
    for query in pairs.other:
        assert query.video != own[query.id].video
        assert query.duration == 10.0 + int(query.video[1:])
        assert not len(query.moments)
    videos = [query.video for query in pairs.other]
    assert videos == sorted(videos)


def test_no_sentence_comes_to_a_video_that_is_annotated_with_its_words():
    asked = queries(60, 12, 7)
    said = {(query.video, query.text.lower().rstrip(".")) for query in asked}
    other = draw_pairs(asked).other
    assert other
    assert not said & {(query.video, query.text.lower().rstrip(".")) for query in other}
    everywhere = [
        Query(id=f"e{n}", video=f"v{n}", text=text, duration=9.0)
        for n, text in enumerate(["the dog runs", "The dog runs!"])
    ]
    assert draw_pairs(everywhere).other == []
    alone = [Query(id=str(n), video="v", text=f"sentence {n}", duration=9.0) for n in range(3)]
    assert draw_pairs(alone).other == []
    assert draw_pairs([]).own == []


def test_the_draw_is_bounded_and_the_same_in_any_order():
    asked = queries(MOST_PAIRS + 100, 50)
    pairs, again = draw_pairs(asked), draw_pairs(asked[::-1])
    assert len(pairs.own) == MOST_PAIRS
    # recorded: another machine must draw the same
    assert [(query.id, query.video) for query in pairs.other[:3]] == [
        ("q41", "v0"),
        ("q127", "v0"),
        ("q165", "v0"),
    ]
    assert [(query.id, query.video) for query in pairs.other] == [(q.id, q.video) for q in again.other]


# figures


def test_figures_of_evidence_that_tells_and_of_evidence_that_does_not():
    rng = np.random.default_rng(0)
    own = predictions(rng.normal(1.5, 1, 200), 20)
    other = predictions(rng.normal(0, 1, 200), 20)
    found = separation(own, other)
    assert 0.8 < found.low < found.auroc < found.high < 0.95
    assert found.works
    assert "does not tell" not in found.text()
    nothing = separation(other, predictions(rng.normal(0, 1, 200), 20))
    assert nothing.low < 0.5 < nothing.high
    assert not nothing.works
    assert nothing.text().endswith("does not tell")


def test_evidence_is_the_methods_own_or_the_best_score():
    own, other = predictions([0.1, 0.2], 2, evidence=5.0), predictions([0.9, 0.9], 2, evidence=1.0)
    assert separation(own, other).auroc == 1.0
    assert separation(predictions([0.1], 1), predictions([0.9], 1)).auroc == 0.0
    without = [Prediction(query="0", video="v", moments=[], scores=[])]
    assert separation(predictions([-9.0], 1), without).auroc == 1.0
    assert separation(own, []) is None


def test_one_video_gives_no_interval_and_so_no_probability():
    found = separation(predictions([1.0, 2.0], 1), predictions([0.0, 0.5], 1))
    assert found.auroc == 1.0
    assert not found.works
    assert found.to_dict()["low"] is None


# probability


def test_the_logistic_curve_that_data_come_from_is_found():
    rng = np.random.default_rng(1)
    values = rng.uniform(-300, 300, 20000)
    shown = rng.random(len(values)) < 1 / (1 + np.exp(-(0.02 * values + 0.0)))
    slope, intercept = fit_logistic(values[shown], values[~shown])
    assert slope == pytest.approx(0.02, rel=0.05)
    assert intercept == pytest.approx(0.0, abs=0.06)


@pytest.mark.parametrize(
    ("positives", "negatives"),
    [
        (np.array([1e6, 1e6 + 1]), np.array([1e6 - 9, 1e6 - 8])),  # nothing overlaps
        (np.ones(3), np.ones(2)),  # nothing differs
        (np.array([0.0]), np.array([1e-9])),
    ],
)
def test_the_curve_is_finite_for_any_data(positives, negatives):
    slope, intercept = fit_logistic(positives, negatives)
    assert np.isfinite([slope, intercept]).all()


def test_probabilities_say_how_often_it_is_so():
    rng = np.random.default_rng(2)
    known = Calibration.fit(
        "val", predictions(rng.normal(2, 1, 2000), 40), predictions(rng.normal(0, 1, 1000), 40)
    )
    chances = known.applied(predictions([-2.0, 1.0, 4.0], 3))
    # halfway between two equal bells it is one half, though one side has twice as many
    assert [one.presence for one in chances] == pytest.approx([0.0025, 0.5, 0.9975], abs=0.02)
    assert Calibration.from_json(known.to_json()) == known
    assert [presence_text(one) for one in chances] == [
        "presence 0 %: probably no such moment",
        f"presence {chances[1].presence * 100:.0f} %: uncertain",
        "presence 100 %: probably there",
    ]


def test_evidence_that_does_not_tell_gives_no_probability():
    rng = np.random.default_rng(3)
    sides = (predictions(rng.normal(0, 1, 300), 20) for _ in range(2))
    (found,) = Calibration.fit("val", *sides).applied(predictions([9.0], 1))
    assert found.presence is None
    assert presence_text(found) == ""


# queries of a dataset in other videos


class Toy:
    def __init__(self, asked):
        self.queries = asked

    def __len__(self):
        return len(self.queries)

    def batch(self, indices, epoch):
        return [(self.queries[i].id, self.queries[i].video) for i in indices]


def test_a_dataset_elsewhere_leaves_the_dataset_as_it_is():
    asked = queries(40, 5)
    pairs = draw_pairs(asked)
    dataset = Toy(asked)
    moved = Elsewhere(dataset, pairs.other[:7])
    assert moved.batch(range(len(moved)), None) == [(q.id, q.video) for q in pairs.other[:7]]
    assert dataset.batch([3], None) == [(asked[3].id, asked[3].video)]
