"""``vmr-search index`` and ``vmr-search search`` as typed, over video files and over features."""

import functools
import json

import numpy as np
import pytest

import tiny_networks
import vmr_search
from videos import pictures, write_video
from vmr_common.errors import UserError
from vmr_common.features.manifest import Manifest
from vmr_common.features.store import FeatureStore, write_features
from vmr_search.cli.main import main
from vmr_search.video_features import FEATURES, drop_features

pytestmark = pytest.mark.e2e  # real decoders, engines or processes

WITHOUT_TRAINING = ("--retriever", "zero-shot", "--extractor", "clip-vit-b32", "--device", "cpu")


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return tiny_networks.clip(tmp_path_factory.mktemp("network") / "clip")


@pytest.fixture(scope="module")
def movies(tmp_path_factory):
    """Three videos of a few seconds, and a file that is none."""
    place = tmp_path_factory.mktemp("movies")
    for name, count in (("a", 45), ("b", 30), ("c", 60)):
        write_video(place / f"{name}.mp4", pictures(count, seed=count))
    (place / "bad.mp4").write_bytes(b"no video at all")
    return place


@pytest.fixture
def run(answer):
    return functools.partial(answer, main)


@pytest.fixture
def index(run, tmp_path, movies, network, caplog):
    """An index of the three videos."""
    made = run("index", tmp_path / "index", movies, *WITHOUT_TRAINING, "--weights", network, "--workers", 0)
    assert made[0] == 2
    assert "1 of 4 videos could not be read" in made[2]
    assert "bad.mp4: not a video" in caplog.text
    assert "3 videos, zero-shot in scan" in made[1]
    return tmp_path / "index"


def test_a_sentence_in_two_parts_is_searched_as_one_where_that_is_asked_for(run, index):
    sentence = "a dog jumps after a man waves"
    assert 'searched as "a dog jumps" after "a man waves"' in run("search", index, sentence)[1]
    assert "searched as" not in run("search", index, sentence, "--as-one")[1]


def test_a_folder_of_videos_is_searched(run, index, movies, tmp_path):
    status, said, _ = run("search", index, "a dog jumps", "-k", 3)
    assert status == 0
    lines = said.splitlines()
    assert lines[0] == "a dog jumps"
    assert [line.split()[0] for line in lines[1:]] == ["rank", "1", "2", "3"]
    page = tmp_path / "out.html"
    status, said, _ = run("search", index, "a dog", "--videos", movies, "--page", page, "--json", "-k", 2)
    assert status == 0
    found = json.loads(said)["pred_corpus_windows"]
    assert len(found) == 2
    assert all(0 <= start < end <= 6 and video in "abc" for video, start, end, _ in found)
    assert "a dog" in page.read_text()
    search = vmr_search.open(index, videos=movies)
    results = search("a dog", k=2)
    assert [[hit.video, hit.start, hit.end, hit.score] for hit in results] == found
    assert results._repr_html_().count("data:image/jpeg") == 10
    search.engine.close()


def test_sentences_of_a_file_are_answered_in_their_order(run, index, tmp_path):
    (tmp_path / "asked.txt").write_text("a dog\na cat\n")
    status, said, _ = run("search", index, "--queries", tmp_path / "asked.txt", "-k", 1, "--json")
    assert [json.loads(line)["query"] for line in said.splitlines()] == ["a dog", "a cat"]
    status, said, _ = run("search", index, "--queries", tmp_path / "asked.txt", "-k", 1)
    assert (status, said.count("rank")) == (0, 2)


def test_videos_are_added_replaced_and_removed(run, index, movies, network, tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    write_video(more / "d.mp4", pictures(30, seed=7))
    command = ("index", index, more, "--weights", network, "--workers", 0, "--device", "cpu")
    status, _, error = run(*command)
    assert (status, "'a' is not among those given" in error) == (2, True)
    assert "1 video encoded" in run(*command, "--add")[1]
    assert "0 videos encoded; 1 video there already" in run(*command, "--add")[1]
    before = FeatureStore(index / "features.h5")["d"]
    write_video(more / "d.mp4", pictures(30, seed=8))
    assert "1 video encoded; 1 video replaced" in run(*command, "--replace")[1]
    assert not np.array_equal(FeatureStore(index / "features.h5")["d"], before)
    status, said, _ = run("index", index, "--remove", "d", "a", "--compact", "--verify")
    assert (status, said.splitlines()[:2]) == (0, ["2 videos removed", "all of it is as it was written"])
    assert FeatureStore(index / "features.h5").videos() == ["b", "c"]
    status, said, _ = run("index", index, movies / "a.mp4", "--add", "--weights", network, "--workers", 0)
    assert (status, "1 video encoded" in said) == (0, True)


def test_a_link_in_place_of_the_features_is_left_alone(tmp_path):
    other = tmp_path / "theirs.h5"
    write_features(other, [("a", np.ones((2, 3), np.float32))], Manifest())
    content = other.read_bytes()
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / FEATURES).symlink_to(other)
    drop_features(tmp_path / "index", {"a"})
    assert (tmp_path / "index" / FEATURES).is_symlink()
    assert other.read_bytes() == content


def test_features_that_are_there_are_indexed(run, tmp_path, network):
    rows = {name: np.random.default_rng(n).normal(size=(20, 16)) for n, name in enumerate("xyz")}
    path = tmp_path / "features.h5"
    write_features(path, rows.items(), Manifest(extractor="clip-vit-b32", stride_s=0.5, network=str(network)))
    made = run("index", tmp_path / "i", "--features", path, "--retriever", "zero-shot")
    assert (made[0], "3 videos" in made[1]) == (0, True)
    search = vmr_search.open(tmp_path / "i")
    assert set(search.engine.durations().values()) == {10.0}
    with pytest.raises(UserError, match="holds no checkpoint"):
        vmr_search.open(tmp_path / "i", ground=tmp_path)
    bare = tmp_path / "bare.h5"
    write_features(bare, rows.items(), Manifest(extractor="clip-vit-b32"))
    status, _, error = run("index", tmp_path / "j", "--features", bare, "--retriever", "zero-shot")
    assert (status, "--durations" in error) == (2, True)
    (tmp_path / "seconds.csv").write_text("id,length\nx,10\ny,12\nz,9\n")
    given = ("--durations", tmp_path / "seconds.csv")
    assert run("index", tmp_path / "j", "--features", bare, "--retriever", "zero-shot", *given)[0] == 0
    assert vmr_search.open(tmp_path / "j").engine.durations() == {"x": 10, "y": 12, "z": 9}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("index", "i"), "give either video files"),
        (("index", "i", "v", "--features", "f"), "give either video files"),
        (("index", "i", "v"), "no such file or folder"),
        (("index", "i", "v", "--add"), "no index to add to"),
        (("index", "i", "v", "--split", "shapes/test"), "--split is for --features"),
        (("index", "i", "v", "--fps", 2, "--checkpoint", "c"), "--fps is for --retriever zero-shot"),
        (
            ("index", "i", "v", "--retriever", "zero-shot", "--checkpoint", "c"),
            "--checkpoint is for a trained",
        ),
        (("index", "i", "v", "--remove", "x"), "VIDEO builds or adds"),
        (("index", "i", "--verify"), "not an index"),
        (("index", "i", "--features", "."), "holds no video"),
        (
            ("index", "i", "v.mp4", "--url", "x"),
            "found 'x', but the engine scan is in the folder of the index",
        ),
        (("index", "i", "--retriever", "zero-shot", "--engine", "no", "v"), "engine: found 'no'"),
        (("index", "i", "v", "--nonsense"), "see vmr-search index --help"),
        (("search", "i"), "give one sentence"),
        (("search", "i", "a dog", "--page", "p.html"), "--videos DIR"),
        (("search", "i", "a dog", "--features", "f"), "--features is for --ground"),
        (("search", "i", "a dog"), "not an index"),
    ],
)
def test_what_does_not_fit_together_is_said_in_one_line(run, arguments, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, error = run(*arguments)
    assert status == 2
    assert named in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--video", "nothing"), "--video 'nothing': not in"),
        (("--after", 5, "--before", 2), "after 5.0 and before 2.0"),
        (("--videos", "elsewhere"), "none of 1 video file is in"),
    ],
)
def test_filters_that_cannot_be_are_refused(run, index, arguments, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "z.mp4").write_bytes(b"")
    status, _, error = run("search", index, "a dog", *arguments)
    assert (status, named in error) == (2, True)
