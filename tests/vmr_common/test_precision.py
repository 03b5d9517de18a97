"""Average precision, window recall and shared proposals against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vmr_common import metrics

THRESHOLDS = (0.5, 0.7)


def plain_match(overlaps, count, threshold):
    """Windows choose in order among the targets that are still free."""
    taken, correct = set(), []
    for row in overlaps:
        free = [g for g in range(count) if g not in taken and row[g] >= threshold]
        best = max(free, key=lambda g: (row[g], g), default=None)
        correct.append(best is not None)
        taken.add(best)
    return correct


def plain_average_precision(correct, count):
    """Area under the precision that is made monotone from the right."""
    precisions = [sum(correct[: n + 1]) / (n + 1) for n in range(len(correct))]
    return sum(max(precisions[n:]) for n, is_correct in enumerate(correct) if is_correct) / count


@settings(max_examples=80)
@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
        elements=st.sampled_from([0.0, 0.4, 0.5, 0.6, 0.7, 1.0]),
    ),
    st.data(),
)
def test_matching_and_average_precision_equal_the_plain_loop(overlaps, data):
    total, _, targets = overlaps.shape
    counts = data.draw(st.lists(st.integers(1, targets), min_size=total, max_size=total))
    correct = metrics.match(overlaps, counts, THRESHOLDS)
    precision = metrics.average_precision(correct, counts)
    for row in range(total):
        for column, threshold in enumerate(THRESHOLDS):
            expected = plain_match(overlaps[row], counts[row], threshold)
            assert correct[row, :, column].tolist() == expected
            assert precision[row, column] == pytest.approx(plain_average_precision(expected, counts[row]))


def test_a_query_without_targets_matches_nothing():
    assert not metrics.match(np.ones((1, 2, 1)), [0], THRESHOLDS).any()
    assert metrics.match(np.ones((0, 2, 0)), np.zeros(0, dtype=int), THRESHOLDS).shape == (0, 2, 2)


def plain_step_precision(scores, labels):
    """One point per distinct score; mean of the monotone precision where the recall rises."""
    points = []
    for score in sorted(set(scores), reverse=True):
        chosen = [label for value, label in zip(scores, labels, strict=True) if value >= score]
        points.append((sum(chosen), sum(chosen) / len(chosen)))
    steps = [
        max(precision for _, precision in points[n:])
        for n, (found, _) in enumerate(points)
        if found > (points[n - 1][0] if n else 0)
    ]
    return sum(steps) / len(steps) if steps else 0.0


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=12), st.integers(0, 3))
def test_highlight_precision_equals_the_plain_loop_with_ties_and_padding(clips, padding):
    scores = [float(score) for score, _ in clips]
    labels = [label for _, label in clips]
    padded = np.array([[*scores, *[-np.inf] * padding]])
    found = metrics.step_precision(padded, np.array([[[*labels, *[False] * padding]]]))
    assert found.tolist() == [[pytest.approx(plain_step_precision(scores, labels))]]


def test_highlight_precision_of_all_and_of_no_clips():
    labels = np.array([[[True, True], [False, False]]])
    assert metrics.step_precision([[0.1, 0.9]], labels).tolist() == [[1.0, 0.0]]
