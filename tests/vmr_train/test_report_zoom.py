"""Reports of long videos: each timeline comes again, zoomed into the answer."""

import pytest

from vmr_common import Prediction, Query
from vmr_train.report import Report, Shown, write_report
from vmr_train.report.timelines import timeline, zoom

TRUTH = (1800.0, 1812.0)


def shown(first=(1795.0, 1810.0), duration=3600.0, moments=(TRUTH,)) -> Shown:
    query = Query(id="q", video="v", text="a door opens", duration=duration, moments=list(moments))
    guesses = None
    if first is not None:
        guesses = Prediction(query="q", video="v", moments=[first, (10.0, 20.0)], scores=[0.9, 0.5])
    return Shown(query=query, prediction=guesses, iou=0.5, group="best")


def test_the_zoom_holds_truth_and_a_near_first_prediction_with_room_around():
    part = zoom(shown())
    assert part.start < 1795.0
    assert part.end > 1812.0
    assert part.end - part.start == pytest.approx(4 * 17.0)


def test_a_far_first_prediction_does_not_widen_the_zoom():
    for first in ((100.0, 120.0), None):
        part = zoom(shown(first))
        assert part.end - part.start == pytest.approx(4 * 12.0)


@pytest.mark.parametrize("changes", [{"duration": 500.0, "moments": ((80.0, 95.0),)}, {"moments": ()}])
def test_short_videos_and_hidden_truths_are_not_zoomed(changes):
    assert zoom(shown(**changes)) is None


def test_the_zoomed_picture_has_clock_ticks_and_leaves_out_what_lies_beside_it():
    item = shown()
    whole, part = timeline("a", item, (), None), timeline("b", item, (), None, zoom(item))
    assert "30:00" in str(part)
    assert str(whole).count("guess g") == 2
    assert str(part).count("guess g") == 1


def test_a_page_shows_both_pictures_of_a_long_video(tmp_path):
    item = shown()
    write_report(tmp_path / "r.html", Report(title="t", queries=[item.query], predictions=[item.prediction]))
    page = (tmp_path / "r.html").read_text()
    assert page.count("zoomed in") == 1
    assert page.count("Timeline of query q") == 2
