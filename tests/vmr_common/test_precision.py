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


@settings(max_examples=60)
@given(st.integers(1, 5), st.data(), st.sampled_from([0.0, 0.4, 0.5]), st.integers(1, 6))
def test_shared_proposals_are_suppressed_as_sorted_lists_are(size, data, threshold, limit):
    _, windows = metrics.map_proposals(size)
    count = len(windows)
    # distinct scores: of equal ones both take the first, but a sorted list must be stable for that
    order = [data.draw(st.permutations(range(count))) for _ in range(3)]
    scores = np.array(order, dtype=np.float64) / count
    kept, best = metrics.top_proposals(scores, windows, threshold, limit=limit)
    repeated = np.broadcast_to(windows, (3, count, 2))
    expected = metrics.nms(repeated, threshold, limit=limit, scores=scores)
    np.testing.assert_array_equal(kept, expected)
    assert (np.isneginf(best) == (kept < 0)).all()
    assert (best[:, 1:] <= best[:, :-1]).all()


def test_masked_proposals_are_never_chosen_and_scores_stay_untouched():
    scores = np.array([[-np.inf, 0.5, -np.inf], [-np.inf] * 3])
    before = scores.copy()
    kept, best = metrics.top_proposals(scores, [[0, 1], [5, 6], [9, 10]], 0.5, limit=2)
    assert kept.tolist() == [[1, -1], [-1, -1]]
    assert best[0, 0] == 0.5
    np.testing.assert_array_equal(scores, before)


def test_proposals_are_read_from_maps():
    rng = np.random.default_rng(0)
    maps = rng.random((300, 6, 6))
    cells, windows = metrics.map_proposals(6)
    cells, windows = cells[::2], windows[::2]  # a masked map
    kept, best = metrics.top_proposals(maps, windows, 0.4, limit=3, cells=cells)
    flat, flat_best = metrics.top_proposals(maps[:, cells[:, 0], cells[:, 1]], windows, 0.4, limit=3)
    np.testing.assert_array_equal(kept, flat)
    np.testing.assert_array_equal(best, flat_best)


def test_shapes_of_proposals_must_fit():
    with pytest.raises(ValueError, match=r"\(1, 3\).*\(2, 2\)"):
        metrics.top_proposals(np.zeros((1, 3)), np.zeros((2, 2)), 0.5)
    with pytest.raises(ValueError, match="outside"):
        metrics.top_proposals(np.zeros((1, 2, 2)), [[0, 1]], 0.5, cells=[[1, 2]])
    assert metrics.top_proposals(np.zeros((2, 0)), np.zeros((0, 2)), 0.5)[0].shape == (2, 0)


def test_a_moment_is_held_by_the_windows_that_half_overlap():
    # 10 clips of 1 s per window, a new window every 5 s
    positive = metrics.positive_windows(
        [[0.0, 0.0], [5.0, 5.1], [12.0, 20.0]], clip_length=1.0, window_clips=10
    )
    assert positive.tolist() == [[0, 0], [1, 2], [2, 4]]
    odd = metrics.positive_windows([[4.0, 8.0]], clip_length=1.0, window_clips=9)
    assert odd.tolist() == [[1, 2]]


def test_padding_of_a_ranking_is_never_a_positive_window():
    assert metrics.window_recall([[-1, -1]], [[-2, 0]], [1, 2]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "options", [{"clip_length": 0, "window_clips": 9}, {"clip_length": 1, "window_clips": 1}]
)
def test_windows_need_a_length(options):
    with pytest.raises(ValueError, match="cannot slice"):
        metrics.positive_windows([[0, 1]], **options)
