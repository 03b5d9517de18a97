"""What is drawn of the attention over objects."""

import contextlib
import dataclasses
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from leorn.boxes import draw_boxes
from leorn.explain import View, moment_picture, read_frames, where_seen
from leorn.object_features.shapes_objects import object_frames, patch_boxes
from vmr_common.errors import UserError
from vmr_common.types import Query
from vmr_train.report.strips import thumbnails

QUERY = Query(id="0", video="v", text="", duration=8.0)
TIMES = (np.arange(16) + 0.5) / 2


def view(*, pixels: bool = False) -> View:
    """Eight frames of one second; the second object of frame 5 matters most."""
    weights = np.full((8, 2), 0.1, np.float32)
    weights[5, 1] = 0.9
    boxes = np.zeros((8, 2, 4), np.float32)
    boxes[:, 0], boxes[:, 1] = (0.0, 0.0, 0.25, 0.25), (0.5, 0.5, 1.0, 1.0)
    scale = 20 if pixels else 1
    return View(weights, 1 - weights.sum(axis=1), boxes * scale, np.arange(8) + 0.5, pixels)


def rgb(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("pixels", [False, True])
def test_the_frames_of_the_moment_show_the_most_attended_object_clearest(pixels):
    black = np.zeros((16, 20, 20, 3), np.uint8)
    png, line = moment_picture(view(pixels=pixels), np.array([4.0, 7.0]), black, TIMES)
    assert "3 of 3 frames of 4.0 to 7.0 s" in line
    assert "47% is on objects, 53% on the sentinel" in line
    picture = rgb(png)
    wide = picture.shape[0] + 4  # square frames with a white gap between them
    frames = [picture[:, n * wide : n * wide + picture.shape[0]] for n in range(3)]
    brightness = [int(frame.max()) for frame in frames]
    assert brightness[1] == 255
    assert max(brightness[0], brightness[2]) < 128
    middle = frames[1].shape[0] // 2
    assert frames[1][:middle, : frames[1].shape[1] // 2].max() < 128  # the other object of the same frame
    assert frames[1][middle:].max() == 255


def test_the_report_draws_on_the_film_strip_of_a_query():
    black = np.zeros((16, 20, 20, 3), np.uint8)
    plain = thumbnails(black, TIMES, end=8.0)
    seen: list[float] = []

    def draw(frames: np.ndarray, times: np.ndarray) -> np.ndarray:
        seen.extend(times.tolist())
        return frames + np.uint8(255)

    drawn = thumbnails(black, TIMES, end=8.0, draw=draw)
    assert len(drawn) == len(plain) == len(seen)
    assert seen == sorted(seen)
    assert not set(drawn) & set(plain)


def test_a_frame_is_drawn_at_the_time_its_objects_were_seen():
    late = dataclasses.replace(view(), times=np.arange(8) + 0.8)
    pictures = np.repeat(np.arange(16, dtype=np.uint8) * 10, 20 * 20 * 3).reshape(16, 20, 20, 3)
    png, _ = moment_picture(late, np.array([5.5, 6.0]), pictures, TIMES)
    picture = rgb(png)
    assert (picture[-10, 10] == 110).all()  # the picture of 5.75 s, not that of 5.25 s
    assert late.at(np.array([5.2, 5.4])).tolist() == [4, 5]


def test_a_moment_shorter_than_a_frame_shows_the_frame_it_lies_in():
    black = np.zeros((16, 20, 20, 3), np.uint8)
    _, line = moment_picture(view(), np.array([5.1, 5.2]), black, TIMES)
    assert line.startswith("1 of 1 frames")


def test_frames_are_spread_evenly_over_the_video(tmp_path):
    np.save(tmp_path / "v.npy", np.zeros((4, 2, 2, 3), np.uint8))
    pictures, times = read_frames(tmp_path, QUERY)
    assert pictures.shape == (4, 2, 2, 3)
    assert times.tolist() == [1, 3, 5, 7]


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("w.npy", np.zeros((4, 2, 2, 3), np.uint8), "no frames of video 'v'"),
        ("v.npy", np.zeros((4, 2, 2, 3), np.float32), "uint8"),
        ("v.npy", np.array([None]), "not an array of frames"),
    ],
)
def test_frames_that_are_not_there_or_none_are_refused(tmp_path, name, array, message):
    np.save(tmp_path / name, array)
    with pytest.raises(UserError, match=message):
        read_frames(tmp_path, QUERY)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80\x04N.", b"\x93NUMPY", b"PK\x05\x06" + bytes(18)],
    ids=["empty", "pickle", "cut", "zip"],
)
def test_a_file_that_is_no_array_of_frames_is_one_error(tmp_path, data):
    (tmp_path / "v.npy").write_bytes(data)
    with pytest.raises(UserError, match=r"v\.npy: not an array of frames"):
        read_frames(tmp_path, QUERY)


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "v").mkdir()
    with pytest.raises(UserError, match="holds no picture"):
        read_frames(tmp_path, QUERY)


def png(width, height, data):
    """A picture of this size; its pixels are what `data` unpacks to."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize(
    "data",
    [b"", b"GIF89a", png(9, 9, b"none"), png(9900, 9900, zlib.compress(bytes(99))), png(1 << 30, 1, b"")],
)
def test_pictures_that_cannot_be_read_are_one_error(tmp_path, data):
    (tmp_path / "v").mkdir()
    path = tmp_path / "v/0.png"
    path.write_bytes(png(2, 2, zlib.compress(bytes(14))))
    assert read_frames(tmp_path, QUERY)[0].shape == (1, 2, 2, 3)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"0\.png") as caught:
        read_frames(tmp_path, QUERY)
    assert "\n" not in str(caught.value)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"0\.png: expected a regular file"):
        read_frames(tmp_path, QUERY)


def test_a_picture_starts_no_program_whatever_it_holds(tmp_path, monkeypatch):
    """Pillow hands PostScript to Ghostscript, by what a file holds and not by its name."""
    program, started = tmp_path / "bin/gs", tmp_path / "started"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    (tmp_path / "v").mkdir()
    (tmp_path / "v/0.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(UserError, match=r"0\.png: a picture that cannot be read"):
        read_frames(tmp_path, QUERY)
    assert not started.exists()
    with Image.open(tmp_path / "v/0.png") as picture, contextlib.suppress(OSError):
        picture.load()  # so it would be without a list of formats
    assert started.exists()


def test_boxes_are_drawn_where_the_picture_shows_the_thing_and_nowhere_else():
    frames = np.full((4, 40, 40, 3), 128, np.uint8)
    frames[0, 10:20, 10:20] = (250, 0, 0)  # seen in the first frame of its row alone, as a thing that blinks
    frames[2, 10:20, 10:20] = frames[3, 10:20, 14:24] = (250, 0, 0)  # moves
    boxes = object_frames(frames, 2).boxes
    assert (boxes[:, 0, 2] > 0).all()  # both rows have an object
    shown = where_seen(boxes, frames[[1, 2]])
    assert not shown[0].any()
    np.testing.assert_allclose(shown[1, 0], np.array([10, 10, 20, 20]) / 40)
    assert not shown[1, 1:].any()
    assert patch_boxes(frames[1]).shape == (0, 4)


def test_a_slot_without_an_object_draws_nothing():
    grey = np.full((20, 20, 3), 90, np.uint8)
    np.testing.assert_array_equal(draw_boxes(grey, np.zeros((1, 4)), [1.0]), grey)


def test_film_strips_are_taken_at_the_times_of_the_models_frames():
    black = np.zeros((16, 20, 20, 3), np.uint8)
    seen: list[float] = []

    def draw(frames: np.ndarray, times: np.ndarray) -> np.ndarray:
        seen.extend(times.tolist())
        return frames

    thumbnails(black, TIMES, end=8.0, draw=draw, known=np.array([1.25, 5.25]))
    assert set(seen) == {1.25, 5.25}
