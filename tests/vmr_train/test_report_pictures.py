"""Own frames and videos in a report: read as foreign files, only what is shown, and found where they lie."""

from __future__ import annotations

import dataclasses

import pytest
from PIL import Image

from report_toy import Page, full_report, run_command
from vmr_common import Query, UserError
from vmr_common.timeline import clip_centres
from vmr_common.types import write_predictions
from vmr_train.report import save_report, write_report
from vmr_train.report.pictures import OwnFrames, picture_folder, video_addresses
from vmr_train.report.strips import thumbnails


def pictures(folder, names, size=(20, 10)):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", size, (number * 10, 0, 0)).save(folder / name)


def test_times_come_from_names_or_are_evenly_spread(tmp_path):
    pictures(tmp_path / "a", ["10.00.png", "0.50.png", "2.25.png"])
    assert picture_folder(tmp_path / "a").times(20.0).tolist() == [0.5, 2.25, 10.0]
    pictures(tmp_path / "b", ["f10.png", "f9.png", "f100.png", "f8.png"])
    found = picture_folder(tmp_path / "b")
    assert [path.stem for path in found.paths] == ["f8", "f9", "f10", "f100"]
    assert found.times(8.0).tolist() == [1, 3, 5, 7]


def test_only_the_pictures_that_are_shown_are_read(tmp_path):
    pictures(tmp_path / "v", [f"{n:04d}.png" for n in range(300)])
    shown = {0, *(round(place) for place in clip_centres(8, 300.0) - 0.5)}
    for row in {*range(300)} - shown:
        (tmp_path / "v" / f"{row:04d}.png").write_bytes(b"damaged")
    frames = OwnFrames(tmp_path, {"v": 300.0})("v")
    assert len(thumbnails(*frames, end=300.0)) == 8
    (tmp_path / "v" / "0018.png").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"0018\.png: a picture that cannot be read"):
        thumbnails(*frames, end=300.0)


def test_large_pictures_become_small_jpegs(tmp_path):
    pictures(tmp_path / "v", [f"{n}.png" for n in range(12)], size=(640, 360))
    strip = thumbnails(*OwnFrames(tmp_path, {"v": 12.0})("v"), end=12.0)
    assert len(strip) == 8
    assert all(image.startswith("data:image/jpeg;base64,") and len(image) < 8000 for image in strip)


@pytest.mark.parametrize("name", ["../v", "/etc", "a/../../v", "", "v\0"])
def test_no_video_id_leads_out_of_the_folder(tmp_path, name):
    pictures(tmp_path / "v", ["0.png"])
    (tmp_path / "inner").mkdir()
    assert OwnFrames(tmp_path / "inner", {name: 1.0})(name) is None
    (tmp_path / "v.mp4").touch()
    with pytest.raises(UserError, match="holds nothing for any of the 0 videos"):
        video_addresses(tmp_path / "inner", [name], tmp_path / "page.html")


def test_a_video_is_a_relative_address_with_the_moment(tmp_path):
    (tmp_path / "my videos").mkdir()
    (tmp_path / "my videos" / "a#b.webm").touch()
    query = Query(id="q", video="a#b", text="t", duration=10.0, moments=[[2, 4.5]])
    page = tmp_path / "runs" / "report.html"
    page.parent.mkdir()
    found = video_addresses(tmp_path / "my videos", ["a#b", "other"], page)
    assert found == {"a#b": "../my%20videos/a%23b.webm"}
    report = full_report(queries=[query], predictions=[], bias=None, curves={}, tables=[], videos=found)
    write_report(page, report)
    text = page.read_text(encoding="utf-8")
    assert 'href="../my%20videos/a%23b.webm#t=2.00,4.50"' in text
    policy = next(attrs["content"] for _, attrs in Page(text).tags if "http-equiv" in attrs)
    assert "media-src 'self' file:;" in policy
    assert "media-src" not in write_and_read(page, dataclasses.replace(report, videos={}))


def write_and_read(page, report):
    write_report(page, report)
    return page.read_text(encoding="utf-8")


@pytest.mark.e2e
def test_the_command_takes_own_frames_and_videos(tmp_path):
    report = full_report(frames=None)
    run = tmp_path / "run"
    run.mkdir()
    save_report(run, report)
    write_predictions(run / "predictions.jsonl", report.predictions)
    pictures(tmp_path / "frames" / "video_0", [f"{n}.png" for n in range(10)])
    (tmp_path / "frames" / "video_0.mp4").touch()
    arguments = (run, "--out", tmp_path / "page.html", "--queries", "60")
    done = run_command(*arguments, "--frames", tmp_path / "frames", "--videos", tmp_path / "frames")
    assert done.returncode == 0, done.stderr
    found = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert found.count("div", **{"class": "strip"}) == 3  # queries of that video
    assert sum(address.startswith("frames/video_0.mp4#t=") for address in found.values("href")) == 6
    (tmp_path / "empty").mkdir()
    for option in ("--frames", "--videos"):
        done = run_command(*arguments, option, tmp_path / "empty")
        assert done.returncode == 2
        assert "holds nothing for any of the 20 videos that the page shows" in done.stderr
        assert run_command(*arguments, option, tmp_path / "absent").returncode == 2
