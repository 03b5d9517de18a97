"""Which queries fail: groups that hold what they say, figures that add up, intervals that mean something."""

from __future__ import annotations

import numpy as np
import pytest

from vmr_common import Prediction, Query
from vmr_common.evaluation import protocol
from vmr_train.report import Report
from vmr_train.report.failures import failures
from vmr_train.report.intervals import estimates, protocol_estimates
from vmr_train.report.kinds import kinds_of
from vmr_train.report.page import render
from vmr_train.report.seen import Seen, seen_in_training
from vmr_train.report.svg import DASH


def query(name: str, text: str = "t", start: float = 0, end: float = 5, video: str = "v") -> Query:
    return Query(id=name, video=video, text=text, duration=10.0, moments=[[start, end]])


def hit(found: Query) -> Prediction:
    return Prediction(query=found.id, video=found.video, moments=found.moments, scores=[1.0])


def groups(queries: list[Query], title: str, seen: dict[str, Seen] | None = None) -> dict[str, list[int]]:
    (kind,) = (kind for kind in kinds_of(queries, seen or {}) if kind.title == title)
    return {group.label.replace(DASH, " to "): group.rows.tolist() for group in kind.groups}


def test_moments_are_grouped_by_length_and_place_and_empty_bins_are_left_out():
    spans = [(0, 0.9), (2, 4), (6, 9), (9, 10.5), (0, 10)]
    made = [query(str(row), start=start, end=end) for row, (start, end) in enumerate(spans)]
    # 20 % belongs to the bin above the edge
    assert groups(made, "Moment length") == {
        "0 to 10 %": [0], "10 to 20 %": [3], "20 to 30 %": [1], "30 to 50 %": [2], "50 to 100 %": [4],
    }  # fmt: skip
    assert list(groups(made, "Moment position")) == ["0 to 20 %", "20 to 40 %", "60 to 80 %", "80 to 100 %"]


def test_very_short_moments_are_grouped_by_fifths():
    made = [Query(id=f"{n}", video="v", text="t", duration=1000.0, moments=[[0, 1 + n]]) for n in range(50)]
    assert [len(rows) for rows in groups(made, "Moment length").values()] == [10] * 5


def test_sentences_are_grouped_by_words_of_time_and_length():
    texts = ["a dog runs", "after that, a dog sits", "a dog sits then runs before a cat", "the afterimage"]
    made = [query(str(row), text) for row, text in enumerate(texts)]
    assert groups(made, "Words of time") == {
        "none": [0, 3], "before": [2], "after": [1], "then, next, later": [2],
    }  # fmt: skip
    assert groups(made, "Sentence length") == {"up to 4": [0, 3], "5 to 7": [1], "8 to 10": [2]}


def test_what_training_knows_of_a_sentence():
    training = [query("x", "a dog runs"), query("y", "a cat sits"), query("z", "the dog barks")]
    made = [
        query("a", "the dog runs"),
        query("b", "A cat runs"),
        query("c", "a horse runs"),
        query("d", "of the"),
    ]
    seen = seen_in_training(made, training, held_out={"b"})
    assert seen == {
        "a": Seen(rarest=1, together=True, held_out=False),
        "b": Seen(rarest=1, together=False, held_out=True),
        "c": Seen(rarest=0, together=False, held_out=False),
    }
    assert groups(made, "Words seen together", seen) == {
        "every pair seen": [0],
        "a new pair": [1],
        "a new word": [2],
    }
    assert groups(made, "Held-out combinations", seen) == {"seen in training": [0, 2], "held out": [1]}
    assert groups(made, "Rarest word", seen) == {"0": [2], "1": [0, 1]}
    assert seen_in_training(made, training)["b"].held_out is None


def test_groups_of_one_kind_add_up_to_the_strict_protocol():
    rng = np.random.default_rng(0)
    made = [
        query(str(n), start=a, end=a + b, video=f"v{n // 4}")
        for n, (a, b) in enumerate(rng.uniform(0.1, 5, (200, 2)))
    ]
    guesses = [
        Prediction(query=q.id, video=q.video, moments=[q.moments[0] + rng.normal(0, 1)], scores=[1])
        for q in made[5:]
    ]
    whole = protocol("strict").score(made, guesses).values
    found = failures(made, guesses, guesses, {})
    assert found is not None
    assert found.whole == pytest.approx(whole["R@1,IoU@0.5"])
    for kind, rows in found.kinds:
        assert kind.title.startswith("Moment")
        for name, value in (("R@1,IoU@0.5", "recall"), ("R@1,mIoU", "mean")):
            total = sum(getattr(row, value).value * len(row.group.rows) for row in rows)
            assert total / 200 == pytest.approx(whole[name])
        assert all(row.recall.low <= row.recall.value <= row.recall.high for row in rows)
        assert all(row.bias == row.recall.value for row in rows)


def test_a_group_that_fails_is_named_and_a_small_one_is_not():
    texts = ["a dog runs"] * 60 + ["a dog runs after a cat"] * 40 + ["until a dog runs"] * 9
    made = [query(str(row), text, video=f"v{row}") for row, text in enumerate(texts)]
    found = failures(made, [hit(q) for q in made[:60]], None, {})
    assert found is not None
    assert {(title, row.group.label) for title, row in found.weak} == {
        ("Words of time", "after"), ("Sentence length", f"5{DASH}7"),
    }  # fmt: skip
    page = render(Report(title="t", queries=made, predictions=[hit(q) for q in made[:60]]))
    assert "<small>small</small>" in page
    assert "words of time: after" in page


def test_intervals_draw_whole_videos():
    rng = np.random.default_rng(0)
    values = {"x": rng.integers(0, 2, 400).astype(float)}
    alone = estimates(values, [str(n) for n in range(400)])["x"]
    assert alone.value == values["x"].mean()
    # 1.96 standard errors of a share
    error = 1.96 * np.sqrt(alone.value * (1 - alone.value) / 400)
    assert (alone.high - alone.value, alone.value - alone.low) == pytest.approx((error, error), rel=0.15)
    same = {"x": np.repeat(values["x"][:100], 4)}  # four queries of a video stand or fall together
    together = estimates(same, [str(n // 4) for n in range(400)])["x"]
    assert together.high - together.low == pytest.approx(2 * (alone.high - alone.low), rel=0.2)
    assert estimates(values, [str(n) for n in range(400)])["x"] == alone
    assert estimates(values, ["v"] * 400) == {}


def test_queries_that_all_miss_or_all_hit_still_have_an_interval():
    videos = [str(n // 2) for n in range(60)]
    found = estimates({"miss": np.zeros(60), "hit": np.ones(60)}, videos)
    assert found["miss"][:2] == (0, 0)
    assert 1 - found["miss"].high == pytest.approx(0.025 ** (1 / 30))
    assert found["hit"] == (1, 1 - found["miss"].high, 1)


def test_an_unknown_protocol_or_a_query_without_truth_has_no_interval():
    made = [query("a"), Query(id="b", video="w", text="t", duration=3.0)]
    assert protocol_estimates("mine", made[:1], []) == {}
    assert protocol_estimates("strict", made, []) == {}
