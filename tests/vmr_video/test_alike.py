"""Features of new videos, made as a manifest says; the cache of them."""

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import tiny_networks
from videos import pictures, write_video
from vmr_common.errors import UserError
from vmr_common.features.manifest import Manifest
from vmr_common.features.store import FeatureStore
from vmr_video import alike
from vmr_video.alike import extractor_like, features_alike
from vmr_video.cache import Cache, default_folder
from vmr_video.cli.extract import main

pytestmark = pytest.mark.e2e  # real decoders, engines or processes


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Two videos, a network, and files of their features."""
    folder = tmp_path_factory.mktemp("alike")
    tiny_networks.clip(folder / "clip")
    for name, count in (("a", 45), ("b", 30)):
        write_video(folder / f"{name}.mp4", pictures(count, seed=count))
    for name, options in {
        "plain": [],
        "half": ["--dtype", "float16", "--fps", "4", "--sampling", "start", "--normalise"],
    }.items():
        command = [
            str(folder / "a.mp4"),
            str(folder / "b.mp4"),
            "--weights",
            str(folder / "clip"),
            "--device",
            "cpu",
            "--workers",
            "0",
        ]
        assert main([*command, "--out", str(folder / f"{name}.h5"), *options]) == 0
    return folder


@pytest.mark.parametrize("name", ["plain", "half"])
def test_rows_of_a_video_are_those_of_the_stored_file(place, tmp_path, name):
    with FeatureStore(place / f"{name}.h5") as store:
        found = features_alike([place / "b.mp4", place / "a.mp4"], store.manifest, cache=tmp_path)
        for video, stored in zip(found, ("b", "a"), strict=True):
            assert np.array_equal(video.features, store[stored])
            assert video.id.startswith(f"{stored}-")
            assert len(video.id) == len(stored) + 13
            assert video.duration == pytest.approx({"a": 4.5, "b": 3.0}[stored])
            assert dataclasses.replace(store.manifest, source=None) == video.manifest


def test_a_content_is_encoded_once_and_a_damaged_entry_anew(place, tmp_path, monkeypatch):
    with FeatureStore(place / "plain.h5") as store:
        manifest = store.manifest
    calls = []
    real = alike.extract
    monkeypatch.setattr(
        alike, "extract", lambda made, videos, **more: calls.append(len(videos)) or real(made, videos, **more)
    )
    copy = tmp_path / "copy.mp4"
    copy.write_bytes((place / "a.mp4").read_bytes())
    first = features_alike(
        [place / "a.mp4", copy, place / "a.mp4"], manifest, cache=tmp_path / "cache", workers=0
    )
    assert calls == [1]
    assert np.array_equal(first[0].features, first[1].features)
    again = features_alike([copy], manifest, cache=tmp_path / "cache", workers=0)
    assert calls == [1]
    assert again[0].id == first[1].id
    shutil.copytree(place / "clip", tmp_path / "elsewhere")  # the same weights in another folder
    features_alike([copy], manifest, cache=tmp_path / "cache", weights=str(tmp_path / "elsewhere"))
    assert calls == [1]
    (entry,) = (tmp_path / "cache" / "rows").iterdir()
    entry.write_bytes(entry.read_bytes()[:-1] + b"?")
    again = features_alike([copy], manifest, cache=tmp_path / "cache", workers=0)
    assert calls == [1, 1]
    assert np.array_equal(again[0].features, first[0].features)
    features_alike(
        [copy], dataclasses.replace(manifest, normalised=True), cache=tmp_path / "cache", workers=0
    )
    assert calls == [1, 1, 1]  # another making is another entry
    (tmp_path / "cache" / "rows" / "mine.txt").write_text("kept")
    assert Cache(tmp_path / "cache").clear()[0] == 2
    assert os.listdir(tmp_path / "cache" / "rows") == ["mine.txt"]


def test_what_cannot_be_made_alike_is_refused_with_both_sides(place, tmp_path, caplog):
    with FeatureStore(place / "plain.h5") as store:
        manifest = store.manifest
    with pytest.raises(UserError, match=r"no manifest.*--verify"):
        extractor_like(None)
    with pytest.raises(UserError, match=r"made by 'I3D'.*can be made by .*clip-vit-b32"):
        extractor_like(Manifest(extractor="I3D"))
    other = tiny_networks.clip(tmp_path / "other", seed=1)
    with pytest.raises(
        UserError, match=r"weights_hash: the model's were made with \w{64}, here .* --weights"
    ):
        extractor_like(manifest, weights=str(other))
    with pytest.raises(UserError, match="differ in resize"):
        extractor_like(dataclasses.replace(manifest, resize="both sides to 32, area"))
    sparse = Manifest(extractor="CLIP ViT-B/32", fps=2, network=manifest.network)
    assert extractor_like(sparse).recipe.fps == 2
    assert "assumed: weights_hash" in caplog.text
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"text\.mp4"):
        features_alike([tmp_path / "text.mp4"], manifest, cache=tmp_path)


def test_the_cache_lies_where_the_system_says(monkeypatch, answer, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "vmr"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # is to be passed over, says the standard
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_folder() == Path("/home/someone/.cache/vmr")
    status, said, _ = answer(main, "--clear-cache", "--cache", tmp_path)
    assert (status, said) == (0, f"{tmp_path}: deleted the rows of 0 videos, 0.0 MB\n")
