"""Windows over long videos, and what is sampled from them for training."""

from types import SimpleNamespace

import numpy as np
import pytest

from rgnet import window_metrics
from rgnet.search.window_recall import window_recall
from rgnet.windows import moment_rows, sample_window, target_in, video_windows, windows_of_moment
from vmr_common.errors import UserError
from vmr_common.types import Query


@pytest.mark.parametrize("rows", [1, 2, 4, 5, 6, 9, 10, 11, 37, 36_000])
@pytest.mark.parametrize("window", [2, 5, 10, 90])
def test_every_row_lies_in_two_windows_and_no_window_is_empty_or_outside(rows, window):
    windows = video_windows(rows, window)
    assert (windows[:, 1] >= 1).all()
    assert (windows[:, 1] <= window).all()
    assert (windows[:, 0] >= 0).all()
    assert (windows.sum(1) <= rows).all()
    covered = np.zeros(rows + 1, dtype=int)
    np.add.at(covered, windows[:, 0], 1)
    np.add.at(covered, windows.sum(1), -1)
    assert (covered.cumsum()[:-1] >= 2).all()


def query(start: float, end: float) -> Query:
    return Query(id="q", video="v", text="a", duration=100.0, moments=[[start, end]], as_annotated=True)


def test_a_reversed_moment_is_turned_and_one_past_the_end_is_cut():
    assert moment_rows(query(30, 10), 200, 0.5) == (20.0, 60.0)
    assert moment_rows(query(90, 120), 200, 0.5) == (180.0, 200.0)


def test_a_moment_after_the_features_is_named():
    with pytest.raises(
        UserError, match=r"query 'q': its moment begins at 90.0 s, after the features of video 'v'"
    ):
        moment_rows(query(90, 95), 100, 0.5)


@pytest.mark.parametrize(("start", "end"), [(0, 0), (0, 3), (4.5, 5), (5, 5), (7, 33), (99, 100), (3.2, 3.3)])
def test_draws_hold_part_of_the_moment_and_negatives_hold_none(start, end):
    windows = video_windows(100, 10)
    for epoch in range(30):
        drawn = sample_window(start, end, 100, 10, 0, epoch, "q")
        first, length = drawn.window
        low, high = drawn.target.frames
        assert 0 <= low < high <= length
        assert low <= drawn.inside < high
        assert drawn.outside == 0 or not low <= drawn.outside < high
        assert first + low <= end
        assert first + high >= start
        beginning, rows = drawn.negative
        assert [beginning, rows] in windows.tolist()
        assert beginning >= end or beginning + rows <= start or start == end


def test_draws_depend_on_their_key_alone_and_change_with_the_epoch():
    drawn = [sample_window(20, 60, 500, 90, 3, epoch, "q") for epoch in range(20)]
    assert drawn == [sample_window(20, 60, 500, 90, 3, epoch, "q") for epoch in range(20)]
    assert len({(one.window, one.inside) for one in drawn}) > 5


def test_a_moment_that_fills_the_video_leaves_no_negative():
    assert sample_window(0, 12, 12, 10, "k").negative is None


def test_targets_of_all_windows_point_at_the_same_rows():
    windows, (start, end) = video_windows(100, 20), (33.0, 39.0)
    for number in windows_of_moment(start, end, 20).tolist():
        first, length = windows[number].tolist()
        centre, width = target_in(start, end, number, first, length, 20).span
        low, high = first + (centre - width / 2) * length, first + (centre + width / 2) * length
        assert low == pytest.approx(max(start, (number - 1) * 10))
        assert high == pytest.approx(min(end, (number + 1) * 10))


def test_window_recall_counts_queries_whose_moment_lies_in_one_of_the_first_windows():
    data = SimpleNamespace(window=4, stride=1.0)
    asked = [
        Query(id=name, video="v", text="", duration=10.0, moments=[moment] if moment else [])
        for name, moment in {
            "hit": (6.0, 7.0),
            "late": (6.0, 7.0),
            "open": None,
            "unseen": (1.0, 2.0),
        }.items()
    ]
    first, last = windows_of_moment(6.0, 7.0, 4)
    others = [number for number in range(5) if not first <= number <= last]
    orders = {
        "hit": np.array([first, *others, *range(first + 1, last + 1)]),
        "late": np.array([*others, *range(first, last + 1)]),
        "open": np.arange(5),
    }
    found = window_recall(orders, asked, data, [1, len(others), len(others) + 1, 5])
    assert found.found == {1: 0.5, len(others): 0.5, len(others) + 1: 1.0}, (
        "n = 5 is every window and says nothing"
    )
    assert (found.queries, found.windows) == (2, 5.0)
    assert found.chance == pytest.approx((last - first + 1) / 5)
    assert window_recall({}, asked, data, [1]) is None


def test_a_moment_is_held_by_the_windows_that_half_overlap():
    # 10 clips of 1 s per window, a new window every 5 s
    positive = window_metrics.positive_windows(
        [[0.0, 0.0], [5.0, 5.1], [12.0, 20.0]], clip_length=1.0, window_clips=10
    )
    assert positive.tolist() == [[0, 0], [1, 2], [2, 4]]
    odd = window_metrics.positive_windows([[4.0, 8.0]], clip_length=1.0, window_clips=9)
    assert odd.tolist() == [[1, 2]]


def test_padding_of_a_ranking_is_never_a_positive_window():
    assert window_metrics.window_recall([[-1, -1]], [[-2, 0]], [1, 2]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "options", [{"clip_length": 0, "window_clips": 9}, {"clip_length": 1, "window_clips": 1}]
)
def test_windows_need_a_length(options):
    with pytest.raises(ValueError, match="cannot slice"):
        window_metrics.positive_windows([[0, 1]], **options)
