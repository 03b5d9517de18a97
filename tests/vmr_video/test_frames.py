"""Frames of videos: which ones, and their bits against the ffmpeg program."""

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from videos import pictures, write_video
from vmr_common.errors import UserError
from vmr_video.frames import FrameReader, frames
from vmr_video.media import opened, probe
from vmr_video.recipe import FrameRecipe
from vmr_video.sampling import Sampler, frame_count, rate_of
from vmr_video.scaling import scaled_size

pytestmark = pytest.mark.e2e  # real decoders, engines or processes

FAST_VP9 = {"cpu-used": "8", "deadline": "realtime"}
UNEVEN = np.cumsum(np.random.default_rng(1).integers(20, 400, 30)).tolist()


def whole(path: Path, recipe: FrameRecipe, chunk: int = 32) -> np.ndarray:
    return np.concatenate(list(frames(path, recipe, chunk=chunk)))


def of_program(path: Path, recipe: FrameRecipe) -> np.ndarray:
    """The frames that the ffmpeg program makes by the chain of filters of the field's extractors."""
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("the ffmpeg program is not installed")
    info = probe(path)
    width, height = scaled_size(info.width, info.height, recipe)
    chain = [f"fps={recipe.fps}:round={'near' if recipe.sampling == 'middle' else 'up'}:start_time=0"]
    if recipe.resize != "none":
        chain.append(f"scale={width}:{height}:flags={recipe.filter}")
    if recipe.crop:
        size = recipe.size
        chain.append(f"crop={size}:{size}:{int((width - size) / 2.0)}:{int((height - size) / 2.0)}")
        width = height = size
    arguments = ["-v", "error", "-i", str(path), "-vf", ",".join(chain)]
    done = subprocess.run(
        [program, *arguments, "-pix_fmt", "rgb24", "-f", "rawvideo", "-"], capture_output=True, check=True
    )
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


@pytest.mark.parametrize("sampling", ["middle", "start"])
@pytest.mark.parametrize("name", ["univtg_demo_charades", "v_GGSY1Qvo990"])
def test_real_clips_give_the_bits_of_the_program(shared_data, name, sampling):
    path = shared_data / "video" / f"{name}.mp4"
    for fps in (0.5, 1, 2, 5):
        recipe = FrameRecipe(fps=fps, sampling=sampling)
        found = whole(path, recipe)
        assert len(found) == frame_count(probe(path).duration, recipe)
        assert np.array_equal(found, of_program(path, recipe)), fps


@pytest.mark.parametrize(
    ("name", "fps", "rows"), [("univtg_demo_charades.mp4", 0.5, 15), ("v_GGSY1Qvo990.mp4", 5, 90)]
)
def test_real_clips_give_as_many_rows_as_their_published_features(shared_data, name, fps, rows):
    assert len(whole(shared_data / "video" / name, FrameRecipe(fps=fps))) == rows


KINDS = {
    "plain.mp4": {},
    "b-frames.mp4": {"options": {"bf": "3", "b-pyramid": "normal", "crf": "20"}},
    "b-frames.avi": {"options": {"bf": "2"}},
    "uneven.mp4": {"times": UNEVEN, "base": Fraction(1, 1000), "rate": 1000, "options": {"bf": "0"}},
    "uneven.mkv": {"times": UNEVEN, "base": Fraction(1, 1000), "rate": 1000},
    "hevc.mp4": {"codec": "libx265"},
    "10-bit.mkv": {"codec": "libx265", "pixels": "yuv420p10le"},
    "vp9-odd.webm": {"frames": pictures(20, 63, 47), "codec": "libvpx-vp9", "options": FAST_VP9},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "12"}, "pixels": "yuv420p"},
    "no-chroma-loss.mkv": {"frames": pictures(20, 63, 47), "pixels": "yuv444p"},
    "rgb.mkv": {"codec": "ffv1", "pixels": "bgr0"},
    "jpegs.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "late.mp4": {"sound": 4, "late": 0.7},
    "turned.mp4": {"rotation": 90},
    "back.mp4": {"rotation": -90},
    "over.mp4": {"rotation": 180},
    "tall.mp4": {"frames": pictures(20, 34, 90)},
    "full-range.mp4": {"change": lambda s: (setattr(s, "colorspace", 1), setattr(s, "color_range", 2))},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_the_bits_of_the_program(tmp_path, name):
    path = write_video(tmp_path / name, **({"frames": pictures(30)} | KINDS[name]))
    for recipe in (
        FrameRecipe(fps=2, size=32),
        FrameRecipe(fps=7, size=32, sampling="start", filter="bilinear"),
        FrameRecipe(fps=25, resize="none", crop=False),
    ):
        assert np.array_equal(whole(path, recipe), of_program(path, recipe)), recipe


def test_lossless_pictures_come_back_as_they_were(tmp_path):
    drawn = pictures(20, 24, 16)
    path = write_video(tmp_path / "exact.mkv", drawn, codec="ffv1", pixels="bgr0")
    recipe = FrameRecipe(fps=10, resize="none", crop=False)
    assert np.array_equal(whole(path, recipe, chunk=7), drawn)
    assert [len(part) for part in frames(path, recipe, chunk=7)] == [7, 7, 6]
    # frame k of `middle` is the last picture before (k + 1/2) / F, and that of `start` the one at k / F
    assert np.array_equal(whole(path, FrameRecipe(fps=2, resize="none", crop=False)), drawn[[2, 7, 12, 17]])
    first = FrameRecipe(fps=2, resize="none", crop=False, sampling="start")
    assert np.array_equal(whole(path, first), drawn[[0, 5, 10, 15]])


@pytest.mark.parametrize("ending", ["mp4", "ts", "mkv"])
def test_pictures_that_nobody_wants_are_not_decoded(tmp_path, monkeypatch, ending):
    path = write_video(
        tmp_path / f"a.{ending}",
        pictures(60),
        rate=30,
        options={"bf": "3", "b-pyramid": "normal", "crf": "25"},
    )

    def read(recipe):
        steps = []
        with opened(path) as video:
            taken = np.concatenate(list(FrameReader(video, recipe, 32, step=lambda: steps.append(1))))
        return taken, len(steps)

    for recipe in (FrameRecipe(fps=2, size=32), FrameRecipe(fps=7, size=32, sampling="start")):
        fewer, steps = read(recipe)
        with monkeypatch.context() as patch:
            patch.setattr("vmr_video.pictures._SKIPPING", frozenset())
            every, all_steps = read(recipe)
        assert np.array_equal(fewer, every)
        assert all_steps == 60
        assert steps < 50


def test_a_late_stream_repeats_its_first_picture_from_the_start_on(tmp_path):
    path = write_video(tmp_path / "late.mp4", pictures(20), sound=3, late=1.0)
    info = probe(path)
    assert info.start == pytest.approx(1.0)
    assert info.duration == pytest.approx(3.0)
    found = whole(path, FrameRecipe(fps=5, size=32))
    assert len(found) == 15
    assert all(np.array_equal(found[0], frame) for frame in found[1:6])
    assert not np.array_equal(found[0], found[7])


def test_rotation_is_told_and_applied(tmp_path):
    path = write_video(tmp_path / "turned.mp4", pictures(3, 64, 48), rotation=90)
    info = probe(path)
    assert (info.width, info.height, info.rotation) == (48, 64, 90)
    assert whole(path, FrameRecipe(fps=10, resize="none", crop=False)).shape == (3, 64, 48, 3)


def test_size_may_change_in_the_middle(tmp_path):
    path = tmp_path / "two.h264"
    with path.open("wb") as file:
        for width, height in ((64, 48), (48, 96)):
            part = write_video(tmp_path / "part.h264", pictures(10, width, height), rate=25)
            file.write(part.read_bytes())
    for recipe in (FrameRecipe(fps=25, size=32), FrameRecipe(fps=25, resize="none", crop=False)):
        found = whole(path, recipe)
        assert found.shape[0] == 20
        assert found.shape[1:] == ((32, 32, 3) if recipe.crop else (48, 64, 3))


def test_a_file_that_is_cut_off_says_where_it_ends(tmp_path):
    whole_file = write_video(tmp_path / "whole.mkv", pictures(80)).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole_file[: len(whole_file) // 2])
    with pytest.raises(UserError, match=r"cut\.mkv: ends at second [2-5]\.\d of 8\.0: cut off or damaged"):
        whole(cut, FrameRecipe(fps=2, size=32))


def test_damaged_packets_in_the_middle_are_left_out_and_counted(tmp_path, caplog):
    path = write_video(tmp_path / "a.mkv", pictures(40), options={"g": "5", "crf": "18"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    path.write_bytes(data)
    found = whole(path, FrameRecipe(fps=10, size=32))
    assert 38 <= len(found) <= 40
    (line,) = caplog.messages
    assert "damaged packet" in line


def test_times_that_are_damaged_do_not_fill_the_disk(tmp_path):
    path = write_video(
        tmp_path / "a.mkv", pictures(4), times=[0, 100, 200, 200_000_000], base=Fraction(1, 1000), rate=1000
    )
    with pytest.raises(
        UserError, match=r"a\.mkv: nothing from second 0\.2 to second 200000: its times are damaged"
    ):
        whole(path, FrameRecipe(fps=1000, size=32))


def test_the_length_that_the_last_picture_claims_does_not_fill_the_disk(tmp_path):
    path = write_video(tmp_path / "a.mp4", pictures(1))
    data = bytearray(path.read_bytes())
    place = data.index(b"stts") + 16  # how long pictures last, after their number
    data[place : place + 4] = b"\x7f\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(
        UserError, match=r"a\.mp4: its last picture ends at second \d+: its times are damaged"
    ):
        whole(path, FrameRecipe(fps=1, size=32))


def test_a_video_too_short_for_one_frame_says_so(tmp_path):
    path = write_video(tmp_path / "one.mp4", pictures(1))
    with pytest.raises(UserError, match=r"one\.mp4: lasts 0\.1 s, too short for one frame at 1 a second"):
        whole(path, FrameRecipe(fps=1))
    assert len(whole(path, FrameRecipe(fps=1, sampling="start"))) == 1


def test_pictures_too_small_for_the_cut_are_refused(tmp_path):
    path = write_video(tmp_path / "small.mp4", pictures(3, 32, 32))
    with pytest.raises(UserError, match=r"small\.mp4: pictures of 32 x 32 pixels, too small"):
        whole(path, FrameRecipe(fps=10, resize="none", size=64))


@pytest.mark.parametrize("fps", [0, -1, float("nan"), 1e9])
def test_absurd_rates_are_refused(tmp_path, fps):
    path = write_video(tmp_path / "a.mp4", pictures(2))
    with pytest.raises(UserError, match="fps: found"):
        whole(path, FrameRecipe(fps=fps))


def test_rates_are_exact_ratios():
    assert rate_of(FrameRecipe(fps=30_000 / 1001)) == Fraction(30_000, 1001)
    assert rate_of(FrameRecipe(fps=29.97)) == Fraction(2997, 100)


def test_sampler_takes_the_last_picture_and_drops_those_that_come_too_late():
    sampler = Sampler[str](Fraction(1, 10), "start")  # 10 units a frame
    times = {"a": -20, "b": 3, "c": 10, "d": 11, "e": 9, "f": 42}
    taken = [pair for name, time in times.items() for pair in sampler.add(time, name)] + [*sampler.end(50)]
    assert taken == [("a", 1), ("c", 1), ("e", 3), ("f", 0)][:3]
