"""Shapes as video files, and its features from them."""

import dataclasses

import av
import h5py
import numpy as np
import pytest

import vmr_shapes as shapes
from vmr_common.errors import UserError
from vmr_common.features.manifest import Manifest
from vmr_shapes import cli, video_features, video_files
from vmr_shapes.video_files import Form, chosen, write_videos
from vmr_video.alike import require_alike
from vmr_video.extractor import ExtractorOptions
from vmr_video.frames import frames
from vmr_video.media import probe

SPEC = shapes.ShapesSpec(train=2, val=1, test=2, duration=(16.0, 18.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return shapes.ensure(tmp_path_factory.mktemp("data") / "shapes", SPEC)


@pytest.fixture(scope="module")
def pixels(folder):
    return video_features.load(ExtractorOptions(weights=str(folder)))


def stored(folder, video):
    with h5py.File(folder / "features.h5") as file:
        return file[video][...]


def test_lossless_files_give_the_stored_features(folder, pixels, tmp_path):
    videos = chosen(SPEC, "test")
    for scale in (1, 3):
        paths = write_videos(tmp_path / str(scale), SPEC, videos, Form(lossless=True, scale=scale))
        for video, path in zip(videos, paths, strict=True):
            seen = np.concatenate(list(frames(path, pixels.recipe)))
            assert np.array_equal(seen, shapes.frames(folder, video)[0])
            assert np.array_equal(pixels(seen, 0, 0)["features"], stored(folder, video))


def test_rows_do_not_depend_on_the_blocks_in_which_they_are_made(folder, pixels):
    seen, _ = shapes.frames(folder, "test-0000")
    seen = seen[:-1]  # what is left after whole rows is context of the last one
    per_row, (before, after) = pixels.row_frames, pixels.context
    whole = pixels(seen, 0, len(seen) % per_row)["features"]
    parts, step = [], 5
    for row in range(0, len(whole), step):
        end = min(row + step, len(whole)) * per_row
        first, last = max(0, row * per_row - before), min(len(seen), end + after)
        parts.append(pixels(seen[first:last], row * per_row - first, last - end)["features"])
    assert np.array_equal(np.concatenate(parts), whole)
    assert len(whole) == len(seen) // per_row


def test_default_files_are_close_and_play_in_browsers(folder, pixels, tmp_path):
    (path,) = write_videos(tmp_path, SPEC, ["test-0000"], Form())
    info = probe(path)
    assert (path.name, info.codec, info.width, info.height) == ("test-0000.mp4", "h264", 448, 448)
    with av.open(str(path)) as file:
        assert file.streams.video[0].profile == "High"  # the one of exact colours is played by few
    head = path.read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")  # plays before all of it has come
    seen = np.concatenate(list(frames(path, pixels.recipe)))
    assert np.abs(seen.astype(int) - shapes.frames(folder, "test-0000")[0]).mean() < 0.001
    ours, exact = pixels(seen, 0, 0)["features"], stored(folder, "test-0000")
    assert np.linalg.norm(ours - exact) < 0.05 * np.linalg.norm(exact)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_any_scale_gives_a_file(tmp_path, scale):
    (path,) = write_videos(tmp_path, SPEC, ["val-0000"], Form(scale=scale, crf=30))
    assert probe(path).width == 56 * scale


def test_files_that_stand_stay_and_others_are_made_anew(tmp_path):
    form = Form(lossless=True, scale=1)
    first, second = write_videos(tmp_path, SPEC, ["test-0000", "test-0001"], form)
    before = {path: path.stat().st_ino for path in (first, second)}
    first.unlink()
    assert write_videos(tmp_path, SPEC, ["test-0000", "test-0001"], form) == [first, second]
    assert second.stat().st_ino == before[second]
    write_videos(tmp_path, dataclasses.replace(SPEC, seed=1), ["test-0001"], form)
    assert second.stat().st_ino != before[second]
    first.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"holds test-0000\.mkv, not written by vmr-shapes"):
        write_videos(tmp_path, SPEC, ["test-0000"], form)
    assert first.read_bytes() == b"mine"


def test_a_manifest_of_shapes_tells_how_to_make_more(folder, pixels):
    with h5py.File(folder / "features.h5") as file:
        made = Manifest.from_mapping(__import__("json").loads(file.attrs["manifest"]))
    like = video_features.KIND.like(made)
    assert like == ExtractorOptions(fps=4.0, sampling="middle", normalise=False)
    require_alike(made, pixels.manifest(), like)
    assert video_features.KIND.like(Manifest(extractor="CLIP ViT-B/32")) is None
    with pytest.raises(UserError, match=r"shapes-pixels: fps 1\.0, the features of .* were made with 4"):
        video_features.load(ExtractorOptions(weights=str(folder), fps=1.0))


def test_render_as_typed(answer, tmp_path, folder):
    words = ["render", "--out", tmp_path / "videos", "--lossless", "--scale", 1, "--folder", folder]
    assert answer(cli.main, *words, "--videos", "val-0000") == (0, f"1 video in {tmp_path / 'videos'}\n", "")
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["val-0000.mkv"]
    status, _, error = answer(cli.main, *words, "--videos", "val-0009")
    assert (status, error) == (2, "error: --videos: no video 'val-0009', there are train-0000 to test-0001\n")
    status, _, error = answer(cli.main, "render", "--out", tmp_path, "--crf", 99)
    assert (status, "--crf" in error) == (2, True)


def test_without_the_library_the_error_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(UserError, match=r'pip install "vmr-shapes\[video\]"'):
        video_files.write_videos(tmp_path, SPEC, ["test-0000"], Form())
