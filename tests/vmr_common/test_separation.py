"""AUROC and recall at few false alarms, by hand and against counting pairs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmr_common.metrics import auroc, recall_at_false_alarms, weighted_auroc

# few values, so that many are equal
SCORES = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=12)


def test_values_by_hand():
    assert auroc([3, 2], [1, 0]) == 1.0
    assert auroc([1, 0], [3, 2]) == 0.0
    assert auroc([1, 1, 1], [1]) == 0.5
    assert auroc([5, 2, 2], [2, 1]) == (2 + 1.5 + 1.5) / 6
    assert auroc([math.inf], [0]) == 1.0
    assert auroc([0], [-math.inf, 1]) == 0.5
    assert math.isnan(auroc([], [1]))


def test_recall_by_hand():
    negatives = [*range(20)]
    # of 20 one may pass: 19 passes, 18 must not
    assert recall_at_false_alarms([18, 19, 25, 3], negatives, 0.05) == 0.5
    assert recall_at_false_alarms([18, 19, 25, 3], negatives[:19], 0.05) == 0.5  # none may pass 18
    assert recall_at_false_alarms([5, 5], [5], 0.05) == 0.0  # what ties with a negative lets it pass
    assert recall_at_false_alarms([5, 5], [5], 1.0) == 1.0
    assert math.isnan(recall_at_false_alarms([], [1]))


def test_scores_must_be_numbers():
    with pytest.raises(ValueError, match="not-a-number"):
        auroc([math.nan], [1])


@given(SCORES, SCORES)
def test_auroc_counts_pairs(positives, negatives):
    pairs = [(p > n) + 0.5 * (p == n) for p in positives for n in negatives]
    assert auroc(positives, negatives) == pytest.approx(sum(pairs) / len(pairs))


@given(SCORES, SCORES, st.floats(0, 1))
def test_recall_is_the_best_of_all_thresholds(positives, negatives, rate):
    found = [
        np.mean([p >= threshold for p in positives])
        for threshold in [*positives, *negatives, math.inf]
        if sum(n >= threshold for n in negatives) <= rate * len(negatives) + 1e-9
    ]
    assert recall_at_false_alarms(positives, negatives, rate) == pytest.approx(max(found))


@given(SCORES, SCORES, st.data())
def test_weights_stand_for_repetitions(positives, negatives, data):
    counts = [
        data.draw(st.lists(st.integers(0, 3), min_size=len(side), max_size=len(side)))
        for side in (positives, negatives)
    ]
    repeated = [np.repeat(side, number) for side, number in zip((positives, negatives), counts, strict=True)]
    weights = [np.array([number], dtype=np.float64) for number in counts]
    (found,) = weighted_auroc(np.array(positives), np.array(negatives), *weights)
    assert found == pytest.approx(auroc(*repeated), nan_ok=True)
