"""Chance and the constant windows."""

import json

import numpy as np
import pytest

from vmr_common import evaluation as protocols
from vmr_common.errors import UserError
from vmr_common.evaluation import baselines
from vmr_common.types import Prediction, Query, rank_scores


def query(number, moments, duration=10.0, video="v"):
    return Query(
        id=str(number), video=video, text="a dog runs", duration=duration, moments=moments, glance=3.0
    )


def predictions(queries, bias):
    windows = bias.windows_of([one.duration for one in queries])
    return [
        Prediction(query=one.id, video=one.video, moments=moments, scores=rank_scores(len(moments)))
        for one, moments in zip(queries, windows, strict=True)
    ]


def test_chance_is_seeded_and_stays_in_the_video():
    durations = 5.0 + np.arange(50)
    first, again, other = (baselines.chance(durations, k=3, seed=seed) for seed in (0, 0, 1))
    assert first.shape == (50, 3, 2)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first[..., 0] <= first[..., 1]).all()
    assert (first >= 0).all()
    assert (first.max(axis=(1, 2)) <= durations).all()


@pytest.mark.parametrize(
    "name", ["strict", "proposal-map", "point", "viga", "ego4d-nlq", "mad", "qvhighlights", "glance"]
)
def test_rows_of_the_baselines_are_those_of_their_predictions(name):
    queries = [query(n, [[n % 7, 7], [n % 3, 9]][: 1 + n % 2]) for n in range(30)]
    bias, rules = baselines.ConstantWindowBaseline.fit(queries), protocols.protocol(name)
    rows = dict(baselines.baseline_scores(rules, queries, bias, split="here"))
    assert list(rows) == ["chance", "bias"]
    assert rows["bias"] == rules.score(queries, predictions(queries, bias), split="here")


def test_the_first_constant_window_answers_most_training_queries():
    queries = [query(n, [[2, 4]]) for n in range(7)] + [query(10 + n, [[6, 10]]) for n in range(3)]
    bias = baselines.ConstantWindowBaseline.fit(queries, k=2)
    np.testing.assert_allclose(bias.windows, [[0.2, 0.4], [0.6, 1.0]])
    assert bias.num_queries == 10
    values = dict(baselines.baseline_scores(protocols.protocol("strict"), queries, bias))["bias"].values
    assert (values["R@1,IoU@0.5"], values["R@5,IoU@0.5"]) == (0.7, 1.0)


def test_the_constant_windows_scale_with_the_duration_and_differ_from_each_other():
    bias = baselines.ConstantWindowBaseline.fit([query(0, [[0, 5]])], k=5)
    assert len(np.unique(bias.windows, axis=0)) == 5
    short, long = bias.windows_of([20.0, 40.0])
    np.testing.assert_allclose(short * 2, long)
    np.testing.assert_allclose(short[0], [0.0, 10.0])


def test_training_targets_are_cut_to_the_video_and_any_of_several_counts():
    assert (
        baselines.ConstantWindowBaseline.fit([query(0, [[5, 30]])], k=1).describe()
        == "50 to 100 % of the video"
    )
    several = [query(n, [[n, n + 1], [8, 10]]) for n in range(5)]
    assert baselines.ConstantWindowBaseline.fit(several, k=1).describe() == "80 to 100 % of the video"


def test_a_query_without_target_is_left_out_and_none_at_all_is_an_error():
    assert baselines.ConstantWindowBaseline.fit([query(0, [[0, 5]]), query(1, [])]).num_queries == 1
    with pytest.raises(UserError, match="found none"):
        baselines.ConstantWindowBaseline.fit([query(1, [])])


def test_the_constant_window_of_real_annotations(shared_data):
    parts = json.loads((shared_data / "features" / "charades_clip_b32_1fps_splits.json").read_text())
    rows = json.loads((shared_data / "charades_sta" / "point_rgn" / "glance_test_charades.json").read_text())

    def part(name):
        chosen = set(parts[name])
        return [
            query(n, [[start, min(end, duration)]], duration, video)
            for n, (video, duration, (start, end), _, _) in enumerate(rows)
            if video in chosen
        ]

    bias = baselines.ConstantWindowBaseline.fit(part("dev_train"))
    assert bias.describe() == "0 to 35 % of the video"
    test = part("dev_test")
    values = dict(baselines.baseline_scores(protocols.protocol("strict"), test, bias))["bias"].values
    reached = [round(values[f"R@1,IoU@{threshold}"], 3) for threshold in (0.3, 0.5, 0.7)]
    assert (reached, round(values["R@1,mIoU"], 3)) == ([0.471, 0.321, 0.177], 0.314)
