"""Files of features of many videos: resumed, added to, refused; the command as typed."""

import functools
import os
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors

import tiny_networks
from processes import own_progress_bars
from videos import pictures, write_video
from vmr_common import parts_folder as parts_module
from vmr_common.errors import UserError
from vmr_common.features.store import FeatureStore
from vmr_video.cli.extract import main
from vmr_video.extract import extract_file
from vmr_video.extractor import FEATURES, ExtractorKind, ExtractorOptions, kind_of
from vmr_video.parts import folder_of
from vmr_video.pipeline import Extracted, extract
from vmr_video.recipe import FrameRecipe
from vmr_video.stored import save

pytestmark = pytest.mark.e2e  # real decoders, engines or processes


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    return tiny_networks.clip(tmp_path_factory.mktemp("network") / "clip")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three videos, one of them in a folder of its own, and one that is none."""
    place = tmp_path_factory.mktemp("videos")
    (place / "more").mkdir()
    for name, count in (("b", 30), ("a", 45), ("more/c", 20)):
        write_video(place / f"{name}.mp4", pictures(count, seed=count))
    (place / "bad.mp4").write_bytes(b"no video at all")
    return place


@pytest.fixture
def run(answer, network):
    return functools.partial(answer, main, "--weights", network, "--device", "cpu", "--workers", 0)


def test_a_folder_becomes_a_file_and_a_bad_video_is_told_at_the_end(run, folder, tmp_path):
    status, said, error = run(folder, "--out", tmp_path / "features.h5", "--fps", 2, "--workers", 2)
    assert status == 2
    assert "bad.mp4" in said
    assert "rows of 3 videos; 1 of 4 videos failed" in error
    assert os.listdir(tmp_path) == ["features.h5"]  # nothing is left beside it
    with FeatureStore(tmp_path / "features.h5") as store:
        assert {video: store.length(video) for video in store.videos()} == {"a": 9, "b": 6, "c": 4}
        found = store.manifest
        assert (found.extractor, found.fps, found.stride_s, found.window_s) == ("clip-vit-b32", 2, 0.5, 0)
        assert (found.dim, found.dtype, found.normalised, found.sampling) == (16, "float32", False, "middle")
        missing = [name for name, value in vars(found).items() if value is None]
        assert not missing, "the manifest is complete"


def test_links_to_nothing_fail_alone(run, tmp_path):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a.mp4", pictures(10))
    (tmp_path / "videos" / "gone.mp4").symlink_to("nothing.mp4")
    (tmp_path / "videos" / "loop.mp4").symlink_to("loop.mp4")
    status, said, error = run(tmp_path / "videos", "--out", tmp_path / "features.h5")
    assert status == 2
    assert [line.split(": ")[1].rpartition("/")[2] for line in said.splitlines()] == ["gone.mp4", "loop.mp4"]
    assert "rows of 1 video; 2 of 3 videos failed" in error


def test_strict_stops_and_goes_on_from_there(run, folder, tmp_path, network):
    out = tmp_path / "features.h5"
    status, _, error = run(folder, "--out", out, "--strict")
    assert (status, "bad.mp4" in error, out.exists()) == (2, True, False)
    good = [folder / "a.mp4", folder / "b.mp4", folder / "more"]
    status, said, error = run(*good, "--out", out)
    assert (status, said) == (0, f"{out}: rows of 3 videos\n")
    whole = tmp_path / "whole.h5"
    assert run(*good, "--out", whole)[0] == 0
    status, said, error = run(folder, "--out", out)  # the bad one is tried again, for nothing
    assert (status, "bad.mp4" in said) == (2, True)
    assert "nothing new beside 3 videos that it holds; 1 of 4 videos failed" in error
    assert sorted(os.listdir(tmp_path)) == ["features.h5", "whole.h5"]
    assert whole.read_bytes() == out.read_bytes()


def test_an_earlier_file_is_added_to_if_it_was_made_alike(run, folder, tmp_path, monkeypatch):
    out, both = tmp_path / "features.h5", tmp_path / "both.h5"
    assert run(folder / "a.mp4", "--out", out, "--dtype", "float16")[0] == 0
    status, said, _ = run(folder / "a.mp4", folder / "b.mp4", "--out", out)
    assert (status, said) == (0, f"{out}: rows of 1 video, beside 1 that it held before\n")
    assert run(folder / "a.mp4", folder / "b.mp4", "--out", both, "--dtype", "float16")[0] == 0
    with h5py.File(out) as one, h5py.File(both) as other:
        for video in ("a", "b"):
            assert one[video].dtype == np.float16
            assert np.array_equal(one[video], other[video])
    with monkeypatch.context() as without:
        without.setattr("vmr_video.networks.transformer.load", None)  # no network is needed for nothing
        assert "nothing new beside 2 videos that it holds" in run(folder / "a.mp4", "--out", out)[1]
    assert "fps 1.0" in run(folder / "a.mp4", "--out", out, "--fps", 2)[2]
    for options, field in (
        (("--fps", 2), "fps 1.0"),
        (("--normalise",), "normalised False"),
        (("--dtype", "float32"), "float16"),
    ):
        status, _, error = run(folder / "more", "--out", out, *options)
        assert status == 2
        assert field in error
        assert "--overwrite" in error
    assert run(folder / "more", "--out", out, "--fps", 2, "--overwrite")[0] == 0
    with FeatureStore(out) as store:
        assert store.videos() == ["c"]


@pytest.mark.parametrize("foreign", ["folder", "link", "file"])
def test_what_is_not_ours_is_left_alone(run, folder, tmp_path, foreign):
    out = tmp_path / "features.h5"
    if foreign == "folder":
        folder_of(out).mkdir()
        (folder_of(out) / "thesis.txt").write_text("mine")
    elif foreign == "link":
        (tmp_path / "elsewhere").mkdir()
        folder_of(out).symlink_to(tmp_path / "elsewhere")
    else:
        out.write_text("a text")
    status, _, error = run(folder / "a.mp4", "--out", out)
    assert (status, error.count("\n")) == (2, 1)
    assert foreign != "folder" or (folder_of(out) / "thesis.txt").read_text() == "mine"
    assert foreign != "file" or out.read_text() == "a text"


def test_a_damaged_part_is_made_anew(run, folder, tmp_path, monkeypatch):
    out, whole = tmp_path / "features.h5", tmp_path / "whole.h5"
    good = [folder / "a.mp4", folder / "b.mp4"]
    assert run(*good, "--out", whole)[0] == 0
    monkeypatch.setattr(parts_module, "delete_own", lambda folder, own: None)
    assert run(*good, "--out", out)[0] == 0
    out.unlink()
    first, second = sorted(folder_of(out).glob("*.safetensors"))
    first.write_bytes(first.read_bytes()[:-3] + b"???")
    second.write_bytes(second.read_bytes()[:50])
    monkeypatch.undo()
    assert run(*good, "--out", out)[0] == 0
    assert out.read_bytes() == whole.read_bytes()


class Counting:
    """Rows of two frames each, which hold the numbers of the frames that they saw, context included."""

    row_frames = 2

    def __init__(self, context: tuple[int, int] | None) -> None:
        self.context = context
        self.recipe = FrameRecipe(fps=10, resize="none", crop=False)

    def __call__(self, frames, before, after):
        count = (len(frames) - before - after) // 2
        light = frames.mean((1, 2, 3))
        rows = [[light[before + 2 * k], before, after if k == count - 1 else -1] for k in range(count)]
        return {FEATURES: np.array(rows, np.float32)}

    def manifest(self):
        raise NotImplementedError


@pytest.mark.parametrize("context", [(0, 0), (3, 1), None])
@pytest.mark.parametrize("batch", [1, 5, 64])
def test_calls_are_the_same_however_frames_arrive(folder, context, batch):
    frames = 45
    (found,) = extract(Counting(context), [("a", folder / "a.mp4")], batch=batch, workers=0)
    assert isinstance(found, Extracted)
    rows = found.rows[FEATURES]
    assert len(rows) == frames // 2
    assert rows[0, 1] == 0  # nothing before the first row
    (other,) = extract(Counting(context), [("a", folder / "a.mp4")], batch=64, workers=0)
    assert np.array_equal(rows[:, 0], other.rows[FEATURES][:, 0])
    if context is not None and batch == 5 and context[0]:
        assert rows[3, 1] == context[0]


def test_videos_share_calls_where_they_may(network, folder):
    extractor = kind_of("clip-vit-b32").load(ExtractorOptions(weights=str(network), fps=5))
    sizes = []

    class Watched:
        recipe, row_frames, context, manifest = (
            extractor.recipe,
            extractor.row_frames,
            extractor.context,
            extractor.manifest,
        )

        def __call__(self, frames, before, after):
            sizes.append(len(frames))
            return extractor(frames, before, after)

    videos = [("a", folder / "a.mp4"), ("bad", folder / "bad.mp4"), ("b", folder / "b.mp4")]
    alone = {found.video: found for found in extract(extractor, videos, batch=8, workers=0)}
    mixed = {found.video: found for found in extract(Watched(), videos, batch=8, across=True, workers=0)}
    assert alone.keys() == mixed.keys() == {"a", "b", "bad"}
    for video in ("a", "b"):
        assert np.allclose(alone[video].rows[FEATURES], mixed[video].rows[FEATURES], atol=1e-5)
    assert sizes[:-1] == [8] * (len(sizes) - 1)  # only the last call is not full


def test_an_extractor_of_another_package_writes_its_own_file(folder, tmp_path, answer, monkeypatch):
    from vmr_common.features.manifest import Manifest
    from vmr_video import extractor as module

    written = {}

    class Other(Counting):
        def manifest(self):
            return Manifest(extractor="other")

    def write(path, items, manifest, dtype):
        written.update({video: sorted(rows) for video, rows in items})
        Path(path).write_text(f"{manifest.source} {dtype}")

    kind = ExtractorKind("other", "a test", lambda options: Other((0, 0)), lambda manifest: None, write)
    monkeypatch.setattr(module, "kinds", lambda: {"other": kind})
    out = tmp_path / "objects.h5"
    assert answer(main, folder / "a.mp4", "--extractor", "other", "--out", out, "--workers", 0)[0] == 0
    assert written == {"a": [FEATURES]}
    assert out.read_text() == f"{folder / 'a.mp4'} float32"
    status, _, error = answer(main, folder / "a.mp4", "--extractor", "other", "--out", out)
    assert (status, "is there already" in error) == (2, True)


def test_wrong_options_are_one_line(run, folder, tmp_path, answer):
    assert "nothing to do" in run()[2]
    assert "--out is missing" in run(folder)[2]
    assert "expected one of" in run(folder, "--out", tmp_path / "x.h5", "--extractor", "alexnet")[2]
    assert "found a folder" in run(folder, "--out", tmp_path)[2]
    assert "no such" in run(tmp_path / "nothing.mp4", "--out", tmp_path / "x.h5")[2]
    assert "none could be read" in run(folder / "bad.mp4", "--out", tmp_path / "x.h5")[2]
    assert "clip-vit-b32" in answer(main, "--list-extractors")[1]
    with pytest.raises(UserError):
        kind_of("alexnet")


def test_a_file_is_recognised(run, folder, tmp_path):
    good = [folder / "a.mp4", folder / "b.mp4"]
    for rule, options in {"start": (), "middle": ("--normalise",)}.items():
        out = tmp_path / f"{rule}.h5"
        assert run(*good, "--out", out, "--fps", 2, "--sampling", rule, *options)[0] == 0
        status, said, _ = run(*good, "--verify", out)
        assert status == 0
        lengths = "normalised" if options else "not normalised"
        assert (
            f"clip-vit-b32 at 2 rows a second, sampling {rule}, rows {lengths} (median cosine 1.0000" in said
        )
    with h5py.File(out, "r+") as file:
        for video in ("a", "b"):
            file[video][...] = np.random.default_rng(0).normal(size=file[video].shape)
    status, _, error = run(*good, "--verify", out, "--extractor", "clip-vit-b32")
    assert (status, "matches nothing" in error, "closest is clip-vit-b32" in error) == (2, True, True)
    assert "has rows of none of 1 video (c)" in run(folder / "more", "--verify", out)[2]


def forked(*arguments) -> int:
    """Begins the command in a process that has loaded everything already, as none that is started anew has."""
    pid = os.fork()
    if pid == 0:
        status = 1
        own_progress_bars()
        try:
            status = main([str(argument) for argument in arguments])
        finally:
            os._exit(status)
    return pid


@pytest.mark.slow
def test_killed_at_any_instant_it_goes_on_to_the_same_file(network, folder, tmp_path, run):
    """Twenty instants over a run."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for n in range(12):
        write_video(videos / f"{n:02d}.mp4", pictures(60, 160, 120, seed=n))
    command = [videos, "--weights", network, "--fps", 5, "--device", "cpu", "--workers", 2]
    assert run(videos, "--fps", 5, "--workers", 2, "--out", tmp_path / "first.h5")[0] == 0
    began = time.monotonic()
    assert os.waitpid(forked(*command, "--out", tmp_path / "whole.h5"), 0)[1] == 0
    took, finished = time.monotonic() - began, []
    assert (tmp_path / "first.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    for instant in range(20):
        out = tmp_path / f"killed{instant}.h5"
        pid = forked(*command, "--out", out)
        time.sleep(took * (instant + 0.5) / 20)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        finished.append(len(list(folder_of(out).glob("*.safetensors"))))
        assert os.waitpid(forked(*command, "--out", out), 0)[1] == 0
        assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()
        assert not folder_of(out).exists()
    assert any(0 < count < 12 for count in finished), finished


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(*arguments):
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(UserError, match=r"cannot write .*rows\.safetensors: I/O error: No space left"):
        save(tmp_path / "rows.safetensors", {FEATURES: np.zeros((2, 3), np.float32)}, {})
    assert not os.listdir(tmp_path)


def test_parts_of_a_folder_are_extracted_apart_and_are_the_whole(run, folder, tmp_path):
    good = [folder / "a.mp4", folder / "b.mp4", folder / "more"]
    assert run(*good, "--out", tmp_path / "whole.h5")[0] == 0
    for number in (1, 2, 3):
        status, said, _ = run(*good, "--out", tmp_path / f"{number}.h5", "--shard", f"{number}/3")
        assert status == 0
        assert "none of 3 videos is in this part" in said or "rows of" in said
    parts = [FeatureStore(path) for path in sorted(tmp_path.glob("[123].h5"))]
    whole = FeatureStore(tmp_path / "whole.h5")
    assert sorted(video for part in parts for video in part.videos()) == whole.videos() == ["a", "b", "c"]
    for part in parts:
        for video in part.videos():
            np.testing.assert_array_equal(part[video], whole[video])


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "1/0", "x/y", "-1/3"])
def test_parts_that_are_none_are_refused(run, folder, tmp_path, shard):
    status, _, error = run(folder, "--out", tmp_path / "f.h5", f"--shard={shard}")
    assert status == 2
    assert "expected I/N" in error


def test_rows_are_made_anew_where_they_are_asked_for(folder, tmp_path, network):
    out, movie = tmp_path / "features.h5", tmp_path / "a.mp4"
    extractor = kind_of("clip-vit-b32").load(ExtractorOptions(weights=str(network), device="cpu"))
    extract_file(out, None, extractor, [("a", folder / "a.mp4"), ("b", folder / "b.mp4")], workers=0)
    before = {video: FeatureStore(out)[video] for video in "ab"}
    write_video(movie, pictures(30, seed=99))
    assert extract_file(out, None, extractor, [("a", movie)], workers=0).added == 0
    outcome = extract_file(out, None, extractor, [("a", movie)], workers=0, anew=True)
    assert (outcome.added, outcome.kept) == (1, 1)
    assert not np.array_equal(FeatureStore(out)["a"], before["a"])
    np.testing.assert_array_equal(FeatureStore(out)["b"], before["b"])
    videos = [("a", folder / "a.mp4"), ("b", folder / "bad.mp4")]
    outcome = extract_file(out, None, extractor, videos, workers=0, anew=True)
    assert [failure.video for failure in outcome.failed] == ["b"]
    for video in "ab":
        np.testing.assert_array_equal(FeatureStore(out)[video], before[video])
