"""Answers: what lies in a video, files of moments, markers for editors."""

import csv
import dataclasses
import logging
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from PIL import Image

from videos import pictures, write_video
from vmr_common.errors import UserError
from vmr_video.answers import Answer, cut_moments, export
from vmr_video.answers.numbering import TimeCode
from vmr_video.answers.reading import exact_rate
from vmr_video.answers.strip import grab
from vmr_video.media import VideoInfo, probe

pytestmark = pytest.mark.e2e  # real decoders, engines or processes

NTSC = Fraction(30_000, 1001)


def info(fps: float = 25.0, duration: float = 600.0, path: str = "movie.mp4") -> VideoInfo:
    return VideoInfo(
        path=Path(path), duration=duration, start=0.0, width=64, height=48, fps=fps, codec="h264"
    )


def answer(video: VideoInfo, *moments: tuple[float, float], **more) -> Answer:
    scores = 1 / (1 + np.arange(len(moments)))
    return Answer(**{"video": video, "text": "a ball rolls", "moments": moments, "scores": scores} | more)


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    """Five seconds, white from second 2 on, with a tone that ends at 2.048; a key frame each second."""
    frames = pictures(125) // 3
    frames[50:] = 255
    options = {"g": "25", "sc_threshold": "0", "preset": "veryfast", "crf": "18"}
    path = write_video(
        tmp_path_factory.mktemp("movie") / "movie.mp4", frames, rate=25, options=options, sound=2.0
    )
    return probe(path)


def watched(path: Path) -> tuple[int, float, float]:
    """Number of pictures, when they turn white, and when the sound ends."""
    with av.open(str(path)) as file:
        shown = [(frame.time, frame.to_ndarray(format="gray").mean()) for frame in file.decode(video=0)]
    with av.open(str(path)) as file:
        heard = [
            frame.time + (np.flatnonzero(loud)[-1] + 1) / frame.sample_rate
            for frame in file.decode(audio=0)
            if (loud := np.abs(frame.to_ndarray()[0]) > 0.3).any()
        ]
    assert shown[0][0] == pytest.approx(0, abs=0.01)
    return len(shown), next(time for time, light in shown if light > 250), max(heard)


def test_moments_lie_in_the_video():
    found = answer(info(duration=10.0), (-2, 3), (8, 14), (12, 15), (4, 4), (5, 6)).within(5)
    assert [(rank, start, end) for rank, start, end, _ in found] == [(1, 0, 3), (2, 8, 10), (5, 5, 6)]
    with pytest.raises(ValueError, match="finite"):
        answer(info(), (0, np.nan))


def test_an_exact_cut_begins_and_ends_at_the_moment(movie, tmp_path):
    (path,) = cut_moments(tmp_path, [answer(movie, (1.2, 3.4))], exact=True)
    with pytest.raises(UserError, match="stopped before second"):
        cut_moments(tmp_path / "none", [answer(movie, (1.2, 3.4))], exact=True, stop=lambda: True)
    assert path.name == "movie-1-1.20-3.40.mp4"
    count, white, quiet = watched(path)
    assert count == 55
    assert white == pytest.approx(0.8, abs=0.001)
    assert quiet == pytest.approx(0.848, abs=0.005)


def test_a_copy_begins_at_a_key_frame_and_says_so(movie, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        (path,) = cut_moments(tmp_path, [answer(movie, (1.2, 3.4))])
    assert "begins at the key frame at 0:01.0, 0.2 s earlier" in caplog.text
    count, white, quiet = watched(path)
    assert 60 <= count <= 63  # to 3.4 s, and pictures that those need
    assert white == pytest.approx(1.0, abs=0.001)
    assert quiet == pytest.approx(1.036, abs=0.017)  # 1.048 until PyAV 18, 1.024 from PyAV 19 on


def test_nothing_is_overwritten(movie, tmp_path):
    moments = answer(movie, (1.0, 2.0), (3.0, 4.0))
    first = cut_moments(tmp_path / "cuts", [moments, moments], k=2)
    assert [path.name for path in first] == ["movie-1-1.00-2.00.mp4", "movie-2-3.00-4.00.mp4"]
    assert cut_moments(tmp_path / "cuts", [moments], k=2) == first
    first[0].write_text("someone's notes")
    again = cut_moments(tmp_path / "cuts", [moments])
    assert again[0].name == "movie-1-1.00-2.00-2.mp4"
    assert first[0].read_text() == "someone's notes"
    assert len(list((tmp_path / "cuts").iterdir())) == 3


def test_names_of_cuts_say_the_sentence_where_there_are_several(movie, tmp_path):
    one = answer(movie, (1.0, 2.0), (3.0, 4.0))
    found = cut_moments(tmp_path, [one, dataclasses.replace(one, text="another"), one], k=2)
    assert [path.name for path in found] == [
        f"movie-{number}-{times}.mp4" for number in (1, 2) for times in ("1-1.00-2.00", "2-3.00-4.00")
    ]


def test_rotation_and_foreign_codecs_are_kept(tmp_path):
    turned = probe(write_video(tmp_path / "turned.mp4", pictures(30), rotation=-90))
    copied = cut_moments(tmp_path / "copied", [answer(turned, (0, 2))])
    encoded = cut_moments(tmp_path / "encoded", [answer(turned, (0, 2))], exact=True)
    assert {(probe(path).width, probe(path).height) for path in (*copied, *encoded)} == {(48, 64)}
    lossless = probe(write_video(tmp_path / "kept.mkv", pictures(30), codec="ffv1", pixels="bgr0"))
    (path,) = cut_moments(tmp_path, [answer(lossless, (1, 2))])
    assert path.suffix == ".mkv"
    assert probe(path).codec == "ffv1"


@pytest.mark.parametrize("name", ["broadcast.ts", "old.avi"])
def test_cuts_begin_in_time_in_files_without_an_index_or_with_coarse_times(tmp_path, name):
    frames = pictures(150) // 3
    frames[100:] = 255
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    options = {"g": "30"} | ({} if codec == "mpeg4" else {"sc_threshold": "0", "preset": "veryfast"})
    video = probe(write_video(tmp_path / name, frames, rate=25, codec=codec, options=options, sound=4.096))
    start = 3.3 + video.duration - 6.0  # these containers shift all times
    copied, exact = (
        cut_moments(tmp_path, [answer(video, (start, start + 1.7))], exact=exact)[0]
        for exact in (False, True)
    )
    assert watched(exact)[1:] == pytest.approx((0.7, 0.796), abs=0.025)
    assert watched(copied)[1:] == pytest.approx((1.6, 1.696), abs=0.045)  # from the key frame at 2.4


def test_pictures_show_what_the_video_shows(movie):
    found = grab(movie.path, [0.1, 1.9, 2.0, 9.0])
    light = [np.asarray(Image.open(BytesIO(found[time]))).mean() for time in sorted(found)]
    assert max(light[:2]) < 150
    assert min(light[2:]) > 250


@pytest.mark.parametrize("options", [{"g": "50"}, {"g": "1000"}])
def test_pictures_far_apart_are_found_by_jumps(tmp_path, options):
    """With key frames every ten seconds, and with none but the first."""
    frames = np.zeros((300, 48, 64, 3), np.uint8) + np.uint8(np.arange(300) % 230)[:, None, None, None]
    path = write_video(tmp_path / "long.mp4", frames, rate=5, options=options | {"preset": "ultrafast"})
    times = [55.1, 3.0, 40.2, 40.9, 20.5]
    found = grab(path, times)
    light = {time: np.asarray(Image.open(BytesIO(found[time]))).mean() for time in times}
    assert light == {time: pytest.approx(int(time * 5 + 0.01) % 230, abs=4) for time in times}


@pytest.mark.parametrize("fps", [23.976, 24, 25, 29.97, 30, 59.94, 14.985, 0.2])
def test_editors_read_back_the_same_frames(tmp_path, fps):
    """Every moment, and every event of a list or a project, has the frames that the seconds say."""
    rate = exact_rate(fps)
    drawn = np.random.default_rng(0)
    frames = [sorted(pair) for pair in drawn.choice(int(600 * rate), (20, 2), replace=False).tolist()]
    moments = [[start / float(rate), end / float(rate)] for start, end in frames]
    found = [answer(info(float(rate)), *moments, text='a "ball" <rolls>\n& \x07\ud800')]
    for kind in ("edl", "fcpxml", "csv"):
        export(tmp_path / f"moments.{kind}", found, kind)

    lines = [line for line in (tmp_path / "moments.edl").read_text().splitlines() if "  AX  " in line]
    code = TimeCode(rate, fps in (29.97, 59.94))
    assert ("FCM: DROP" in (tmp_path / "moments.edl").read_text()) == code.drop
    read = [[code.number(text) for text in line.split()[-4:]] for line in lines]
    assert [row[:2] for row in read] == frames
    assert [row[3] - row[2] for row in read] == [end - start for start, end in frames]
    assert [row[2] for row in read[1:]] == [row[3] for row in read[:-1]]

    root = ElementTree.parse(tmp_path / "moments.fcpxml").getroot()

    def number(element: ElementTree.Element, name: str) -> int:
        count = Fraction(element.attrib[name].removesuffix("s")) * rate
        assert count.denominator == 1
        return int(count)

    for path in (".//keyword", ".//spine/asset-clip"):
        spans = [(number(one, "start"), number(one, "duration")) for one in root.findall(path)]
        assert [[start, start + length] for start, length in spans] == frames
    ids = {one.attrib["id"] for one in root.find("resources")}
    assert {one.attrib["ref"] for one in root.iter("asset-clip")} <= ids

    with (tmp_path / "moments.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [[int(row["start_frame"]), int(row["end_frame"])] for row in rows] == frames
    assert rows[0]["query"] == 'a "ball" <rolls> & \\u0007\\ud800'


ALLOWED = {  # of the elements that are written: children and attributes in the document type of version 1.9
    "fcpxml": ("resources library", "version"),
    "resources": ("format asset", ""),
    "format": ("", "id frameDuration width height"),
    "asset": ("media-rep", "id name start duration hasVideo format hasAudio audioSources"),
    "media-rep": ("", "kind src"),
    "library": ("event", ""),
    "event": ("asset-clip project", "name"),
    "project": ("sequence", "name"),
    "sequence": ("spine", "format duration tcStart tcFormat"),
    "spine": ("asset-clip", ""),
    "asset-clip": ("marker keyword", "ref name offset start duration format tcFormat"),
    "marker": ("", "start duration value note"),
    "keyword": ("", "start duration value note"),
}


def test_final_cut_reads_every_element(movie, tmp_path):
    other = answer(info(29.97, path="other.mov"), (3, 4))
    export(tmp_path / "a.fcpxml", [answer(movie, (1, 2), (2, 4)), other], "fcpxml")
    root = ElementTree.parse(tmp_path / "a.fcpxml").getroot()
    for element in root.iter():
        children, attributes = ALLOWED[element.tag]
        assert {child.tag for child in element} <= set(children.split())
        assert set(element.attrib) <= set(attributes.split())
    assert root.find(".//media-rep").attrib["src"] == movie.path.as_uri()
    lengths = [
        Fraction(one.attrib["duration"].removesuffix("s")) for one in root.findall(".//spine/asset-clip")
    ]
    places = [Fraction(one.attrib["offset"].removesuffix("s")) for one in root.findall(".//spine/asset-clip")]
    assert places == [sum(lengths[:n]) for n in range(3)]
    assert all((25 * time).denominator == 1 for time in (*places, *lengths))  # frames of the sequence


@pytest.mark.parametrize("fps", [Fraction(30_000, 1001), Fraction(60_000, 1001)])
def test_drop_frame_numbers_keep_up_with_the_clock(fps):
    code = TimeCode(fps, True)
    for frame in (*range(40_000), *range(10**6, 10**6 + 20_000)):
        assert code.number(code.of(frame)) == frame
    hour = round(3600 * fps)
    assert abs(code.number("01:00:00;00") - hour) <= 1


def test_a_camera_s_time_code_is_kept(tmp_path):
    path = write_video(
        tmp_path / "camera.mov",
        pictures(50),
        rate=25,
        change=lambda stream: stream.metadata.update(timecode="10:00:00:00"),
    )
    export(tmp_path / "a.edl", [answer(probe(path), (1, 1.4))], "edl")
    assert "10:00:01:00 10:00:01:10 00:00:00:00 00:00:00:10" in (tmp_path / "a.edl").read_text()


def test_one_list_has_one_rate(tmp_path):
    answers = [answer(info(25.0), (1, 2)), answer(info(30.0, path="other.mp4"), (1, 2))]
    with pytest.raises(UserError, match="found 25 and 30 frames per second"):
        export(tmp_path / "a.edl", answers, "edl")
    export(tmp_path / "a.fcpxml", answers, "fcpxml")
    with pytest.raises(UserError, match="no moment"):
        export(tmp_path / "a.csv", [answer(info(), (700, 800))], "csv")


def test_no_text_is_a_formula(tmp_path):
    told = [answer(info(path="=a.mp4"), (1.0, 3.0), text=text) for text in ("=1+1", "@a", "a - b")]
    export(tmp_path / "a.csv", told, "csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["query"] for row in rows] == ["'=1+1", "'@a", "a - b"]
    assert rows[0]["video"] == "'=a.mp4"


@pytest.mark.parametrize("exact", [True, False])
def test_a_broadcast_with_one_key_frame_is_cut(tmp_path, exact):
    path = write_video(tmp_path / "a.ts", pictures(40))
    (made,) = cut_moments(tmp_path / "cuts", [answer(probe(path), (2.0, 3.0))], exact=exact)
    assert probe(made).duration == pytest.approx(1.0 if exact else 3.0, abs=0.31)


def test_a_full_disk_is_not_the_video_s_fault(movie, tmp_path, monkeypatch):
    def full(*arguments):
        raise av.error.FFmpegError(28, "No space left on device")

    monkeypatch.setattr("vmr_video.answers.cut._copy_packets", full)
    with pytest.raises(UserError, match=r"^cannot write .*cuts: No space left on device$"):
        cut_moments(tmp_path / "cuts", [answer(movie, (1.0, 2.0))])
