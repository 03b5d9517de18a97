"""Shared proposals are suppressed as sorted lists are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmr_common import metrics
from vmr_train import map_proposals


@settings(max_examples=60)
@given(st.integers(1, 5), st.data(), st.sampled_from([0.0, 0.4, 0.5]), st.integers(1, 6))
def test_shared_proposals_are_suppressed_as_sorted_lists_are(size, data, threshold, limit):
    _, windows = map_proposals.map_proposals(size)
    count = len(windows)
    # distinct scores: of equal ones both take the first, but a sorted list must be stable for that
    order = [data.draw(st.permutations(range(count))) for _ in range(3)]
    scores = np.array(order, dtype=np.float64) / count
    kept, best = map_proposals.top_proposals(scores, windows, threshold, limit=limit)
    repeated = np.broadcast_to(windows, (3, count, 2))
    expected = metrics.nms(repeated, threshold, limit=limit, scores=scores)
    np.testing.assert_array_equal(kept, expected)
    assert (np.isneginf(best) == (kept < 0)).all()
    assert (best[:, 1:] <= best[:, :-1]).all()


def test_masked_proposals_are_never_chosen_and_scores_stay_untouched():
    scores = np.array([[-np.inf, 0.5, -np.inf], [-np.inf] * 3])
    before = scores.copy()
    kept, best = map_proposals.top_proposals(scores, [[0, 1], [5, 6], [9, 10]], 0.5, limit=2)
    assert kept.tolist() == [[1, -1], [-1, -1]]
    assert best[0, 0] == 0.5
    np.testing.assert_array_equal(scores, before)


def test_proposals_are_read_from_maps():
    rng = np.random.default_rng(0)
    maps = rng.random((300, 6, 6))
    cells, windows = map_proposals.map_proposals(6)
    cells, windows = cells[::2], windows[::2]  # a masked map
    kept, best = map_proposals.top_proposals(maps, windows, 0.4, limit=3, cells=cells)
    flat, flat_best = map_proposals.top_proposals(maps[:, cells[:, 0], cells[:, 1]], windows, 0.4, limit=3)
    np.testing.assert_array_equal(kept, flat)
    np.testing.assert_array_equal(best, flat_best)


def test_shapes_of_proposals_must_fit():
    with pytest.raises(ValueError, match=r"\(1, 3\).*\(2, 2\)"):
        map_proposals.top_proposals(np.zeros((1, 3)), np.zeros((2, 2)), 0.5)
    with pytest.raises(ValueError, match="outside"):
        map_proposals.top_proposals(np.zeros((1, 2, 2)), [[0, 1]], 0.5, cells=[[1, 2]])
    assert map_proposals.top_proposals(np.zeros((2, 0)), np.zeros((0, 2)), 0.5)[0].shape == (2, 0)
