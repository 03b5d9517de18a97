"""Times that lie outside their videos are named by record, and training data that mostly do so are refused."""

import json
from pathlib import Path

import pytest

from vmr_common.errors import UserError
from vmr_common.splits.load import Split, custom_split
from vmr_common.splits.outside import outside_of, require_mostly_inside, seem_fractions


def split_of(folder: Path, factor: float, outside: int) -> Split:
    """Three queries of which the first ones have times that are `factor` too large."""
    rows = []
    for number in range(3):
        by = factor if number < outside else 1
        moment = [10.0 * by, 20.0 * by]
        row = {"query_id": f"q{number}", "video_id": f"v{number}", "duration": 40.0, "query": "a dog runs"}
        rows.append({**row, "windows": [moment], "point": 12.0 * by})
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return custom_split(path)


def test_a_moment_outside_its_video_is_named_by_record_and_query(tmp_path: Path) -> None:
    found = outside_of(split_of(tmp_path, 1000, outside=1))
    assert [str(one) for one in found] == [
        f"{tmp_path}/mine.jsonl:1: query 'q0': the moment 10000 to 20000 s lies wholly outside the video of 40 s"
    ]
    assert not outside_of(split_of(tmp_path, 1, outside=0))


def test_a_time_point_outside_its_video_is_found_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    row = {"video_id": "v", "duration": 40.0, "query": "a dog runs", "windows": [], "point": 41}
    path.write_text(json.dumps(row))
    assert "the time point 41 s" in str(outside_of(custom_split(path))[0])


@pytest.mark.parametrize(
    ("factor", "unit"), [(25, "frame numbers"), (1000, "milliseconds"), (1e6, "microseconds"), (4e7, "")]
)
def test_training_data_mostly_outside_are_refused_with_the_unit_that_would_fit(
    tmp_path: Path, factor: float, unit: str
) -> None:
    require_mostly_inside(split_of(tmp_path, factor, outside=1))
    with pytest.raises(UserError, match="2 of 3 queries of mine") as raised:
        require_mostly_inside(split_of(tmp_path, factor, outside=2))
    assert (unit or "videos; for example") in str(raised.value)


def test_times_that_are_fractions_of_their_videos_are_found(tmp_path: Path) -> None:
    split = split_of(tmp_path, 1 / 40, outside=3)
    assert "fractions of the video" in seem_fractions(split)
    with pytest.raises(UserError, match=r"all times of mine\.jsonl lie in the first second"):
        require_mostly_inside(split)
    assert not seem_fractions(split_of(tmp_path, 1 / 40, outside=2))


def test_two_durations_of_a_video_are_counted(tmp_path: Path) -> None:
    rows = [
        {"video": "v", "duration": length, "query": "a dog", "windows": [[1, 2]]} for length in (9, 9.5, 12)
    ]
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    counts = custom_split(tmp_path / "mine.json").report.counts
    assert counts["another duration of the video than in an earlier query"] == 1
