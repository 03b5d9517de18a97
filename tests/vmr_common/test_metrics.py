"""Overlap, suppression and recall: properties and edge cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vmr_common import metrics
from vmr_common.metrics import overlap

TIMES = st.floats(-1000, 1000, allow_nan=False).map(lambda value: round(value, 3))
WINDOWS = arrays(np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=TIMES).map(
    lambda pairs: np.sort(pairs, axis=1)
)
FORMS = st.sampled_from([{"union": "hull"}, {"union": "true"}, {"union": "hull", "eps": 1e-10}])


@given(WINDOWS, WINDOWS, FORMS)
def test_overlap_is_symmetric_and_between_0_and_1(a, b, form):
    overlap = metrics.iou(a[:, None], b[None], **form)
    np.testing.assert_array_equal(overlap, metrics.iou(b[None], a[:, None], **form))
    finite = overlap[~np.isnan(overlap)]
    assert ((finite >= 0) & (finite <= 1 + 1e-12)).all()


@given(WINDOWS, st.floats(0.01, 100), st.floats(-100, 100))
def test_overlap_does_not_depend_on_unit_or_origin(windows, scale, shift):
    windows = windows[windows[:, 1] - windows[:, 0] > 0.01]
    a, b = windows[:, None], windows[None]
    for union in ("hull", "true"):
        moved = metrics.iou(a * scale + shift, b * scale + shift, union)
        np.testing.assert_allclose(moved, metrics.iou(a, b, union), atol=1e-6)


@given(WINDOWS)
def test_hull_and_true_union_agree_wherever_either_is_defined(windows):
    hull = metrics.iou(windows[:, None], windows[None], "hull")
    true = metrics.iou(windows[:, None], windows[None], "true")
    defined = ~np.isnan(hull) & ~np.isnan(true)
    np.testing.assert_allclose(hull[defined], true[defined], atol=1e-9)


@given(WINDOWS)
def test_overlap_of_a_window_with_itself_is_1_unless_empty(windows):
    lengths = windows[:, 1] - windows[:, 0]
    overlap = metrics.iou(windows, windows, empty=-1.0)
    np.testing.assert_array_equal(overlap, np.where(lengths > 0, 1.0, -1.0))


@pytest.mark.parametrize("union", ["hull", "true"])
def test_touching_windows_and_reversed_windows_do_not_overlap(union):
    target = [0.0, 10.0]
    for window in ([10.0, 20.0], [8.0, 2.0], [12.0, 8.0], [-5.0, 0.0]):
        assert float(metrics.iou(window, target, union)) == 0.0


def test_overlap_keeps_the_precision_of_its_input():
    single = np.array([0.1, 0.2], dtype=np.float32), np.array([0.1, 0.3], dtype=np.float32)
    assert metrics.iou(*single).dtype == np.float32
    assert metrics.iou(single[0], single[1].astype(np.float64)).dtype == np.float64
    assert metrics.iou([1, 2], [1, 3]).dtype == np.float64
    # this very pair is at the threshold in one precision and below it in the other
    assert not metrics.hits(metrics.iou(*single), 0.5)
    assert metrics.hits(metrics.iou([0.1, 0.2], [0.1, 0.3]), 0.5)


def test_eps_needs_the_hull():
    with pytest.raises(ValueError, match="hull"):
        metrics.iou([0, 1], [0, 1], "true", 1e-10)


def test_a_threshold_is_reached_or_exceeded():
    overlaps = np.array([0.3, 0.5, 0.7, np.nan])
    for threshold in (0.3, 0.5, 0.7):
        reached = metrics.hits(overlaps, threshold)
        exceeded = metrics.hits(overlaps, threshold, ">")
        assert (reached & ~exceeded).sum() == 1
        assert not reached[3]
    single = overlaps.astype(np.float32)
    assert [bool(metrics.hits(single, t)[i]) for i, t in enumerate((0.3, 0.5, 0.7))] == [True] * 3


def plain_nms(windows, threshold, limit):
    kept = []
    for rank, (start, end) in enumerate(windows):
        if len(kept) == limit:
            break
        stays = True
        for other in kept:
            shared = max(0.0, min(end, windows[other][1]) - max(start, windows[other][0]))
            whole = (end - start) + (windows[other][1] - windows[other][0]) - shared
            stays = stays and whole != 0 and shared / whole <= threshold
        if stays:
            kept.append(rank)
    return kept


@settings(max_examples=60)
@given(
    arrays(
        np.float64, st.tuples(st.integers(1, 6), st.integers(1, 8), st.just(2)), elements=st.integers(0, 9)
    ),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.integers(1, 9),
)
def test_suppression_equals_the_plain_loop(windows, threshold, limit):
    windows = np.sort(windows, axis=-1)
    kept = metrics.nms(windows, threshold, limit=limit)
    assert kept.shape == (len(windows), min(limit, windows.shape[1]))
    for row, survivors in zip(windows, kept, strict=True):
        assert survivors[survivors >= 0].tolist() == plain_nms(row.tolist(), threshold, limit)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 30)), min_size=1, max_size=10),
    st.randoms(),
)
def test_suppression_by_score_does_not_depend_on_the_given_order_or_the_unit(raw, random):
    windows = np.array([[start, start + length] for start, length in raw], dtype=np.float64)
    scores = np.arange(len(raw), dtype=np.float64)  # no ties
    order = list(range(len(raw)))
    random.shuffle(order)
    kept = metrics.nms(windows, 0.5, scores=scores)
    shuffled = metrics.nms(windows[order], 0.5, scores=scores[order])
    assert [order[rank] for rank in shuffled] == kept.tolist()
    assert metrics.nms(windows * 4.0, 0.5, scores=scores).tolist() == kept.tolist()


def test_suppression_leaves_padding_out_and_takes_ties_in_the_given_order():
    windows = np.array([[[0, 10], [20, 30], [40, 50]], [[0, 10], [20, 30], [40, 50]]], dtype=float)
    kept = metrics.nms(windows, 0.5, scores=[[1, 1, 2], [1, 2, 9]], counts=[3, 2])
    assert kept.tolist() == [[2, 0, 1], [1, 0, -1]]
    assert metrics.nms(np.zeros((3, 0, 2)), 0.5).shape == (3, 0)
    assert metrics.nms(np.zeros((0, 4, 2)), 0.5).shape == (0, 4)
    assert metrics.nms(windows, 0.5, counts=[0, 0]).tolist() == [[-1, -1, -1]] * 2


def test_two_empty_windows_suppress_each_other_only_where_their_overlap_is_not_a_number():
    windows = [[4.0, 4.0], [4.0, 4.0], [6.0, 6.0]]
    assert metrics.nms(windows, 0.5).tolist() == [0]
    assert metrics.nms(windows, 0.5, union="hull", empty=0.0).tolist() == [0, 1, 2]


def test_an_overlap_equal_to_the_suppression_threshold_is_kept():
    assert metrics.nms([[0, 10], [0, 5]], 0.5).tolist() == [0, 1]
    assert metrics.nms([[0, 10], [0, 5]], 0.49).tolist() == [0]


def test_suppression_in_chunks_equals_suppression_at_once(monkeypatch):
    windows = np.sort(np.random.default_rng(0).random((50, 20, 2)), axis=-1)
    whole = metrics.nms(windows, 0.4, limit=7)
    monkeypatch.setattr(overlap, "_CHUNK", 60)
    np.testing.assert_array_equal(metrics.nms(windows, 0.4, limit=7), whole)


def test_suppression_rejects_other_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\)"):
        metrics.nms(np.zeros((2, 3, 4)), 0.5)
    with pytest.raises(ValueError, match="limit"):
        metrics.nms([[0, 1]], 0.5, limit=0)


def test_best_among_the_first_n_with_fewer_windows_than_n():
    best = metrics.best_at([[0.1, 0.9, 0.3], [0.4, 0.2, 0.5]], [1, 2, 5])
    assert best.tolist() == [[0.1, 0.9, 0.9], [0.4, 0.4, 0.5]]
    assert metrics.best_at(np.zeros((2, 0)), [1, 5]).tolist() == [[0.0, 0.0]] * 2
    for ranks in ([0, 1], [5, 1], [1, 1]):
        with pytest.raises(ValueError, match="increase"):
            metrics.best_at([[0.1]], ranks)
