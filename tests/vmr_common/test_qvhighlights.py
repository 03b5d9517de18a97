"""The QVHighlights protocol on hand-made cases."""

import math
from dataclasses import replace

import numpy as np
import pytest

from vmr_common import evaluation as protocols
from vmr_common.errors import UserError
from vmr_common.evaluation.baselines import baseline_scores
from vmr_common.types import Prediction, Query

PROTOCOL = protocols.protocol("qvhighlights")


def query(identifier="a", moments=((0, 8),), duration=20.0, labels=None):
    clips = None if labels is None else np.array(sorted(labels), dtype=np.int64)
    rows = None if labels is None else np.array([labels[clip] for clip in sorted(labels)], dtype=float)
    return Query(
        id=identifier,
        video="v",
        text="x",
        duration=duration,
        moments=list(moments),
        saliency=rows,
        saliency_clips=clips,
    )


def prediction(identifier="a", windows=((0, 8),), scores=None, saliency=None):
    scores = np.linspace(1, 0.1, len(windows)) if scores is None else scores
    saliency = None if saliency is None else np.array(saliency, dtype=float)
    return Prediction(query=identifier, video="v", moments=list(windows), scores=scores, saliency=saliency)


def values(queries, predictions):
    return PROTOCOL.score(queries, predictions).values


def test_recall_trusts_the_order_and_precision_the_score():
    found = values([query()], [prediction(windows=[(10, 20), (0, 8)], scores=[0.1, 0.9])])
    assert found["R@1,IoU@0.5"] == 0.0
    assert found["mAP,IoU@0.5"] == 1.0


def test_each_target_is_claimed_once():
    queries = [query(moments=[(0, 8), (12, 20)])]
    found = values(queries, [prediction(windows=[(0, 8), (0, 8), (12, 20)])])
    assert found["mAP,IoU@0.5"] == pytest.approx((1 + 2 / 3) / 2, abs=1e-4)
    assert found["R@1,IoU@0.95"] == 1.0


def test_a_target_of_one_length_makes_other_windows_wrong():
    queries = [query(moments=[(0, 8), (20, 40)], duration=60.0), query("b", moments=[(0, 50)], duration=60.0)]
    found = values(queries, [prediction(windows=[(20, 40), (0, 8)]), prediction("b", windows=[(0, 50)])])
    assert found["short mAP,mean"] == 0.5
    assert found["middle mAP,mean"] == 1.0
    assert found["long mAP,mean"] == 1.0
    assert found["short R@1,IoU@0.5"] == 0.0
    assert found["middle R@1,IoU@0.5"] == 1.0


def test_a_length_without_targets_has_no_value():
    found = values([query()], [prediction()])
    assert "short mAP,mean" in found
    assert "long mAP,mean" not in found
    assert all(math.isfinite(value) for value in found.values())


def test_lengths_are_open_below_and_closed_above():
    found = values([query(moments=[(0, 10)])], [prediction(windows=[(0, 10)])])
    assert "short mAP,mean" in found
    assert "middle mAP,mean" not in found


def test_only_ten_windows_count():
    windows = [(10, 20)] * 10 + [(0, 8)]
    assert values([query()], [prediction(windows=windows)])["mAP,IoU@0.5"] == 0.0
    assert values([query()], [prediction(windows=windows[1:])])["mAP,IoU@0.5"] == 0.1


def test_missing_and_empty_predictions_are_misses_and_counted():
    queries = [query(), query("b"), query("c")]
    scores = PROTOCOL.score(queries, [prediction(), prediction("b", windows=[])])
    assert scores.num_missing == 2
    assert scores.values["R@1,IoU@0.5"] == scores.values["mAP,mean"] == 0.3333


def test_figures_are_rounded_to_hundredths_of_a_percent():
    queries = [query(str(n)) for n in range(3)]
    found = values(queries, [prediction("0"), prediction("1", [(9, 20)]), prediction("2", [(9, 20)])])
    assert found["R@1,IoU@0.5"] == 0.3333


def test_highlights_by_any_annotator_and_by_the_mean_over_annotators():
    queries = [query(labels={2: [4, 0, 0], 3: [2, 2, 2]}, duration=10.0)]
    found = values(queries, [prediction(saliency=[0, 0, 1, 0.5, 0])])
    assert found["HL-VeryGood,Hit@1"] == 1.0
    assert found["HL-VeryGood,mAP"] == 0.3333  # one annotator right, two without any such clip
    assert found["HL-Fair,mAP"] == pytest.approx((1 + 0.5 + 0.5) / 3, abs=1e-4)


def test_score_lists_are_cut_or_padded_to_the_clips():
    labels = {0: [4], 4: [4]}
    short = values([query(labels=labels, duration=10.0)], [prediction(saliency=[1.0])])
    assert short["HL-Fair,Hit@1"] == 1.0
    assert short["HL-Fair,mAP"] == pytest.approx((1 + 2 / 5) / 2, abs=1e-4)
    # past the last clip: cut for the precision, and no hit if it is the best
    longer = values([query(labels=labels, duration=10.0)], [prediction(saliency=[2, 0, 0, 0, 1, 9])])
    assert longer["HL-Fair,Hit@1"] == 0.0
    assert longer["HL-Fair,mAP"] == 1.0


def test_highlights_are_left_out_without_scores_or_labels_and_missed_where_some_lack():
    labels = {0: [4]}
    assert not any(key.startswith("HL") for key in values([query(labels=labels)], [prediction()]))
    assert not any(key.startswith("HL") for key in values([query()], [prediction(saliency=[1.0])]))
    queries = [query(labels=labels), query("b", labels=labels)]
    found = values(queries, [prediction(saliency=[1.0]), prediction("b")])
    assert found["HL-Fair,Hit@1"] == found["HL-Fair,mAP"] == 0.5


def test_highlight_scores_without_any_window_are_judged_alone():
    queries = [query(labels={0: [4]}), query("b", labels={1: [4]})]
    scores = PROTOCOL.score(queries, [prediction(windows=[], saliency=[1.0])])
    assert {key.partition("-")[0] for key in scores.values} == {"HL"}
    assert (scores.values["HL-Fair,Hit@1"], scores.num_missing) == (0.5, 1)
    assert set(PROTOCOL.per_query(queries, [prediction(windows=[], saliency=[1.0])])) == set(scores.values)
    one_window = values(queries, [prediction(windows=[], saliency=[1.0]), prediction("b")])
    assert one_window["R@1,IoU@0.5"] == 0.5


def test_further_thresholds_do_not_change_the_mean():
    queries = [query(moments=[(0, 8)]), query("b", moments=[(0, 8)])]
    predictions = [prediction(windows=[(0, 9)]), prediction("b", windows=[(0, 20)])]
    more = replace(PROTOCOL, thresholds=(0.3, 0.6)).score(queries, predictions)
    assert more.values["mAP,mean"] == values(queries, predictions)["mAP,mean"]
    assert more.values["R@1,IoU@0.3"] == 1.0
    shown = [key for key in more.shown if key.startswith("R@1")]
    assert shown == ["R@1,IoU@0.3", "R@1,IoU@0.5", "R@1,IoU@0.6", "R@1,IoU@0.7"]


def labelled(name, labels):
    rows = np.array(labels, dtype=float)
    return Query(
        id=name, video="v", text="x", duration=20.0, saliency=rows, saliency_clips=np.arange(len(rows))
    )


def test_clips_are_judged_by_labels_above_the_median_of_each_annotator():
    # annotators: 1 2 3 4 5 6 (median 3, the lower of the middle two), all alike (nothing above), 0 0 0 0 0 9
    queries = [
        labelled("a", [[n, 2, 9 * (n == 6)] for n in range(1, 7)]),
        labelled("b", [[1, 2, 3]] * 3),
        query("c"),
    ]
    predictions = [prediction("a", windows=[], saliency=[0, 0.1, 0.9, 0.8, 0.7, 0.6, 5])]
    scores = protocols.protocol("tvsum").score(queries, predictions)
    # ranked: clips 2, 3, 4, 5, 1 with labels 3 4 5 6 2, so right from rank 2 to 4
    first = sum((before + now) / 2 for before, now in ((0, 1 / 2), (1 / 2, 2 / 3), (2 / 3, 3 / 4))) / 3
    last = (0 + 1 / 4) / 2
    assert scores.values == pytest.approx({"top-5 mAP": (first + 0 + last) / 3 / 2})
    assert (scores.num_queries, scores.num_missing, scores.num_left_out) == (2, 1, 1)
    table = protocols.format_table(
        [("mine", scores), *baseline_scores(protocols.protocol("tvsum"), queries, None)]
    )
    assert "chance" in table.split("\n")[3]
    (value,) = (
        protocols.protocol("youtube-highlights")
        .score([labelled("a", [[0], [1], [-1], [1]])], [prediction("a", windows=[], saliency=[3, 2, 1])])
        .values.values()
    )
    assert value == pytest.approx(((0 + 1 / 2) / 2 + (1 / 3 + 1 / 2) / 2) / 2)


def test_the_protocol_suits_what_the_queries_have():
    several, one = labelled("a", [[1, 2]]), labelled("a", [[1]])
    names = [protocols.suiting("strict", [made]) for made in (several, one, query(), query(moments=[]))]
    assert names == ["tvsum", "youtube-highlights", "strict", "strict"]


def test_moments_are_not_asked_of_labels_of_clips():
    with pytest.raises(UserError, match=r"no moments, but labels of clips \(--protocol tvsum or youtube"):
        values([labelled("a", [[1]])], [])
    with pytest.raises(UserError, match="protocol tvsum: none of the 1 queries has labels of clips"):
        protocols.protocol("tvsum").score([query()], [])
    with pytest.raises(UserError, match="clip score of query 'a' is not finite"):
        protocols.protocol("tvsum").score(
            [labelled("a", [[1]])], [prediction(windows=[], saliency=[math.inf])]
        )


def test_queries_without_labels_do_not_count_for_highlights():
    queries = [query(labels={0: [4]}), query("b"), query("c", labels={})]
    predictions = [prediction(name, saliency=[1.0]) for name in "abc"]
    found = values(queries, predictions)
    assert found["HL-Fair,Hit@1"] == 0.5


def test_labels_past_the_last_clip_are_ignored():
    found = values([query(labels={0: [4], 9: [4]}, duration=6.0)], [prediction(saliency=[1, 0, 0])])
    assert found["HL-Fair,mAP"] == 1.0


def test_a_clip_score_that_is_not_finite_is_the_users_error():
    with pytest.raises(UserError, match="clip score of query 'a' is not finite"):
        values([query(labels={0: [4]})], [prediction(saliency=[math.nan])])


def test_per_query_values_average_to_the_scores():
    rng = np.random.default_rng(0)
    queries, predictions = [], []
    for n in range(30):
        cuts = np.sort(rng.choice(np.arange(0, 76), 6, replace=False)) * 2.0
        moments = cuts.reshape(3, 2)[: rng.integers(1, 4)].tolist()
        queries.append(
            query(str(n), moments, 150.0, {int(clip): [4, 2, 0] for clip in rng.choice(75, 5, False)})
        )
        windows = np.sort(rng.random((8, 2)) * 150)
        predictions.append(prediction(str(n), [*windows.tolist(), moments[0]], saliency=rng.random(75)))
    parts = PROTOCOL.per_query(queries, predictions)
    for key, value in values(queries, predictions).items():
        assert np.nanmean(parts[key]) == pytest.approx(value, abs=1e-4)


def test_a_table_shows_the_brief_figures():
    scores = PROTOCOL.score([query(labels={0: [4]})], [prediction(saliency=[1.0])])
    titles = protocols.format_table([("mine", scores)]).split("\n")[1]
    assert titles.split()[:4] == ["%", "R@1,0.5", "0.7", "mAP,0.5"]
    assert "0.95" not in titles
