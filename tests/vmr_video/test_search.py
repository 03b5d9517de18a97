"""``vmr-video``: moments without training, over video files and over files of features."""

import json
import shutil

import numpy as np
import pytest

import tiny_networks
from videos import pictures, write_video
from vmr_common.cli.score import main as score
from vmr_common.errors import UserError
from vmr_common.evaluation.zero_shot import require_shared_space, similarities, zero_shot_moments
from vmr_common.features.manifest import Manifest
from vmr_common.predictions import read_predictions
from vmr_video.cli.extract import main as extract
from vmr_video.cli.video import main
from vmr_video.extractor import ExtractorOptions
from vmr_video.media import video_files
from vmr_video.search import search
from vmr_video.sentences import SentenceEncoder

pytestmark = pytest.mark.e2e  # real decoders, engines or processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two videos of 20 s, in which second 6 to 10 differs from all the rest, and a tiny CLIP."""
    path = tmp_path_factory.mktemp("search")
    tiny_networks.clip(path / "clip")
    (path / "videos").mkdir()
    for number, name in enumerate(("first.mp4", "second one.mp4")):
        frames = pictures(100, seed=number) // 4
        frames[30:50] = 255 - frames[30:50]
        write_video(path / "videos" / name, frames, rate=5)
    return path


def making(folder, tmp_path) -> list:
    """Options of a search that say how features are made."""
    where = ["--weights", folder / "clip", "--cache", tmp_path / "cache"]
    return [*where, "--device", "cpu", "--workers", "1"]


def run(capsys, *arguments):
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def test_search_of_files_says_and_writes_what_it_found(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = [folder / "videos", "a square jumps", "it is bright", *making(folder, tmp_path), "-k", "2"]
    status, out, _ = run(capsys, "search", *asked, "--page", "page.html", "--cut", "cuts", "--export", "csv")
    assert status == 0
    tables = out.split("\n\n")
    assert [table.splitlines()[0] for table in tables[:4]] == [
        f"{video}  {text}"
        for text in ("a square jumps", "it is bright")
        for video in ("first.mp4", "second one.mp4")
    ]
    page = (tmp_path / "page.html").read_text()
    assert page.count("<section class=") == 2
    assert str(folder) not in page
    assert len((tmp_path / "moments.csv").read_text().splitlines()) == 9
    assert {path.suffix for path in (tmp_path / "cuts").iterdir()} == {".mp4"}
    status, out, _ = run(capsys, "search", *asked, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [len(row["pred_relevant_windows"]) for row in rows] == [2] * 4


def test_bad_videos_of_a_folder_are_told_after_the_answers_of_the_others(folder, tmp_path, capsys, caplog):
    shutil.copytree(folder / "videos", tmp_path / "videos")
    (tmp_path / "videos" / "empty.mp4").write_bytes(b"")
    short = write_video(tmp_path / "videos" / "short.mkv", pictures(100), rate=5)
    short.write_bytes(short.read_bytes()[: short.stat().st_size // 2])  # opens, and fails on the way
    shutil.copy(short, tmp_path / "videos" / "copy.mkv")
    made = making(folder, tmp_path)
    asked = [tmp_path / "videos", "a square jumps", "it is bright", *made, "-k", "1", "--json"]
    status, out, error = run(capsys, "search", *asked, "--page", tmp_path / "page.html", "--cut", tmp_path)
    assert status == 2
    assert error.endswith("error: 3 of 5 videos could not be read, see above\n")
    lines = [line for line in caplog.messages if line.startswith("failed: ")]
    assert [name in line for name, line in zip(("empty", "copy", "short"), lines, strict=True)] == [True] * 3
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["qid"] for row in rows] == ["first/0", "second one/0", "first/1", "second one/1"]
    assert (tmp_path / "page.html").read_text().count("<section class=") == 2
    assert {path.name[:8] for path in tmp_path.glob("first-*.mp4")} == {"first-1-", "first-2-"}
    status, out, error = run(capsys, "search", short, "it is bright", *made)
    assert (status, out) == (2, "")
    assert "short.mkv" in error


def test_the_moment_is_the_one_that_the_vectors_say(folder, tmp_path):
    options = ExtractorOptions(weights=str(folder / "clip"), device="cpu", fps=2.0)
    video = folder / "videos" / "first.mp4"
    texts = ["a", "b c", "d?"]
    found = search([video], texts, options=options, cache=tmp_path, k=3)
    vectors = SentenceEncoder("clip-vit-b32", options)(texts)
    from vmr_video.alike import features_alike

    manifest = Manifest(
        extractor="clip-vit-b32", fps=2.0, network=str(folder / "clip"), sampling="middle", normalised=False
    )
    (rows,) = features_alike([video], manifest, cache=tmp_path, device="cpu")
    for answer, (_, vector) in zip(found, vectors, strict=True):
        values = similarities(rows.features, vector)
        assert np.allclose(answer.curve[1], values, atol=1e-6)
        moments, scores = zero_shot_moments(rows.features, vector, 0.5, 20.0, k=3)
        assert np.allclose(answer.moments, moments)
        assert np.allclose(answer.scores, scores, atol=1e-4)


def test_files_of_features_give_predictions_that_are_scored(folder, tmp_path, capsys):
    weights = ["--weights", str(folder / "clip"), "--device", "cpu"]
    annotations, text = tmp_path / "test.jsonl", tmp_path / "text.h5"
    queries = [
        {"qid": n, "query": "a square jumps", "vid": vid, "duration": 20, "relevant_windows": [[6, 10]]}
        for n, vid in enumerate(("first", "second one", "first"))
    ]
    annotations.write_text("\n".join(map(json.dumps, queries)))
    frames = tmp_path / "frames.h5"
    assert (
        extract([str(folder / "videos"), "--out", str(frames), "--fps", "2", *weights, "--workers", "1"]) == 0
    )
    assert extract(["--annotations", str(annotations), "--out", str(text), *weights]) == 0
    out = tmp_path / "zero-shot.jsonl"
    files = ["--features", frames, "--sentences", text, "--annotations", annotations, "--out", out]
    status, said, _ = run(capsys, "search", *files, "-k", "3")
    assert status == 0
    assert "answers to 3 queries" in said
    found = read_predictions(out)
    assert [one.query for one in found] == ["0", "1", "2"]
    assert found[0].moments.tolist() == found[2].moments.tolist()
    assert score([str(out), "--annotations", str(annotations), "--protocol", "strict"]) == 0
    assert "zero-shot" in capsys.readouterr().out
    status, _, error = run(capsys, "search", *files, "--out", out, "--page", "x.html")
    assert status == 2
    other = tiny_networks.clip(tmp_path / "other", seed=1)
    assert (
        extract(["--annotations", str(annotations), "--out", str(tmp_path / "o.h5"), "--weights", str(other)])
        == 0
    )
    status, _, error = run(capsys, "search", *files, "--sentences", tmp_path / "o.h5")
    assert status == 2
    assert "frames were made by weights_hash" in error


@pytest.mark.parametrize(
    ("frames", "sentences", "widths", "says"),
    [
        (Manifest(extractor="CLIP ViT-B/32"), Manifest(extractor="clip-vit-b32"), (512, 512), None),
        (None, Manifest(extractor="clip-vit-b32"), (512, 512), None),
        (None, None, (512, 768), "width 512, sentences of 768"),
        (Manifest(extractor="I3D"), Manifest(extractor="clip-vit-b32"), (512, 512), "extractor 'I3D'"),
        (Manifest(weights_hash="a", network="x"), Manifest(weights_hash="a", network="y"), (4, 4), None),
        (Manifest(weights_hash="a"), Manifest(weights_hash="b"), (4, 4), "weights_hash 'a'"),
        (Manifest(network="x"), Manifest(network="y"), (4, 4), "network 'x'"),
    ],
)
def test_spaces_are_held_against_each_other(frames, sentences, widths, says):
    if says is None:
        require_shared_space(frames, sentences, *widths)
    else:
        with pytest.raises(UserError, match=says):
            require_shared_space(frames, sentences, *widths)


def test_what_is_wrong_is_said_in_a_line(folder, tmp_path, capsys):
    video = str(folder / "videos" / "first.mp4")
    for arguments, line in (
        (["search", "movi.mp4", "a dog"], "error: movi.mp4: no such file"),
        (["search", "a dog"], "name at least one video"),
        (["search", video], "at least one sentence"),
        (["search", video, "a", "--extractor", "s3d"], "reads no sentences"),
        (["search", video, "a", "--cut-exact"], "--cut-exact is for --cut"),
        (["search", video, "a", "--export", "doc"], "expected edl, fcpxml, csv"),
        (["search", video, "--queries", str(tmp_path / "none.txt")], "none.txt"),
        (["search", video, "--fps", "1", "a", "--export", "doc"], "expected edl, fcpxml, csv"),
        (["search", video, "a", "--fsp", "1", "b"], "unrecognized arguments: --fsp"),
        (["search", "--features", video], "go together"),
        (["probe", str(folder / "clip" / "config.json")], "1 file cannot be read"),
    ):
        status, _, error = run(capsys, *arguments)
        assert status == 2, arguments
        assert line in error
        assert len(error.splitlines()) == 1
    status, out, _ = run(capsys, "probe", video)
    assert out == f"{video}: 0:20.0, 64 x 48, 5 frames per second, h264\n"


def test_a_file_is_what_it_is_whatever_others_are_called(tmp_path, capsys):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write_video(tmp_path / folder / "a.mp4", pictures(5))
    status, out, _ = run(capsys, "probe", tmp_path)
    assert (status, len(out.splitlines())) == (0, 2)
    twice = [tmp_path / "x" / "a.mp4", tmp_path / "y" / ".." / "x" / "a.mp4"]
    assert [video for video, _ in video_files(twice)] == ["a"]
