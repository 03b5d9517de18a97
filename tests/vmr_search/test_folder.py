"""The folder of an index says what made it, and is filled from feature files."""

import dataclasses
import json

import numpy as np
import pytest

from search_toy import CAPTIONS, SIZE, WordRetriever, vector, videos
from vmr_common.errors import UserError
from vmr_common.features.store import FeatureStore, Manifest, write_features
from vmr_common.folder_lock import FolderLock
from vmr_search import Search
from vmr_search.building import build, extend
from vmr_search.folder import create, open_index
from vmr_search.index_files import DOING


class Another(WordRetriever):
    def identity(self):
        return "1" * 64


@pytest.fixture
def folder(tmp_path):
    with create(tmp_path / "i", WordRetriever()) as index:
        index.engine.add(videos(CAPTIONS))
    return tmp_path / "i"


@pytest.fixture
def store(tmp_path):
    rows = {name: np.stack([vector(text.split()[0]) for text in texts]) for name, texts in CAPTIONS.items()}
    write_features(tmp_path / "f.h5", rows.items(), Manifest(extractor="words", stride_s=1.0))
    return FeatureStore(tmp_path / "f.h5")


DURATIONS = dict.fromkeys(CAPTIONS, 6.0)


def test_an_index_is_opened_with_what_made_it(folder, monkeypatch):
    monkeypatch.setattr("vmr_search.folder.open_retriever", lambda *_: WordRetriever())
    with open_index(folder) as index:
        found = Search(index.engine, index.retriever)("red circle spins", k=1)[0]
        assert (found.video, found.start) == ("street", 2.0)
        assert (index.facts.retriever, index.facts.size) == ("words", SIZE)
        index.verify()


def test_an_index_of_another_model_is_refused(folder, monkeypatch):
    with pytest.raises(UserError, match=r"built by model 000000000000 \(words\)"):
        open_index(folder, retriever=Another())
    monkeypatch.setattr("vmr_search.folder.open_retriever", lambda *_: Another())
    with pytest.raises(UserError, match="built by model"):
        _ = open_index(folder).retriever


def test_an_index_is_filled_in_batches_and_what_is_there_is_kept_or_replaced(tmp_path, store):
    index, said = create(tmp_path / "i", WordRetriever()), []
    assert extend(index, store, DURATIONS, videos=["street"]) == 1
    assert extend(index, store, DURATIONS, batch=1, report=said.append) == 2
    assert said == [1, 2]
    assert index.engine.videos() == ["street", *(name for name in store.videos() if name != "street")]
    assert extend(index, store, DURATIONS, replace=True) == len(index.engine) == 3
    with pytest.raises(UserError, match="duration of 1 video is not known, for example 'garden'"):
        extend(index, store, {name: 1.0 for name in CAPTIONS if name != "garden"}, replace=True)
    with FolderLock(index.folder, DOING), pytest.raises(UserError, match="another process is at work"):
        extend(index, store, DURATIONS)
    index.facts = dataclasses.replace(index.facts, engine="lance")  # whose tables take several writers
    with FolderLock(index.folder, DOING):
        assert extend(index, store, DURATIONS) == 0


def test_features_of_another_kind_are_refused(tmp_path, store):
    index = create(tmp_path / "i", WordRetriever(), features=store.manifest)
    extend(index, store, DURATIONS)
    write_features(tmp_path / "o.h5", [("new", np.ones((9, SIZE), np.float32))], Manifest(extractor="other"))
    other = FeatureStore(tmp_path / "o.h5")
    with pytest.raises(UserError, match="other features than the index is made of: extractor is 'other'"):
        extend(index, other, {"new": 9.0})
    assert extend(index, other, {"new": 9.0}, allow_other_features=True) == 1
    (tmp_path / "rows").mkdir()
    with pytest.raises(UserError, match="holds no video"):
        build(tmp_path / "j", WordRetriever(), FeatureStore(tmp_path / "rows"), {})
    for name, width in (("a", SIZE), ("wider", SIZE + 1)):
        np.save(tmp_path / "rows" / f"{name}.npy", np.ones((9, width), np.float32))
    with pytest.raises(UserError, match=f"video 'wider' has rows of {SIZE + 1} numbers, expected {SIZE}"):
        extend(index, FeatureStore(tmp_path / "rows"), {"a": 9.0, "wider": 9.0})


@pytest.mark.parametrize("name", ["notes.txt", "scan/notes.txt", "model.safetensors", "index.json"])
def test_a_folder_of_something_else_is_refused_and_left_as_it_was(tmp_path, name):
    path = tmp_path / "i" / name
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    with pytest.raises(UserError, match=r"not an index, and not empty|not a file of an index"):
        create(tmp_path / "i", WordRetriever())
    assert path.read_text() == "{}"
    assert len(list((tmp_path / "i").rglob("*"))) == 1 + name.count("/")


def test_an_index_of_the_first_format_is_built_anew(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "manifest.json").write_text('{"format": 1}')
    for use in (open_index, lambda folder: create(folder, WordRetriever())):
        with pytest.raises(UserError, match=r"an index of format 1, .* expected 2; build it anew"):
            use(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("engine", "none", "key engine: found 'none', expected scan, lance, qdrant"),
        ("model_sha256", "../x", "key model_sha256"),
        ("size", "64", "key size: found '64'"),
        ("url", "/elsewhere", "key url: found '/elsewhere', but the engine scan is in the folder"),
        ("options", {"device": "cpu"}, "key options: found 'device'"),
        ("features", {"width": 3}, "key features: unknown field 'width'"),
    ],
)
def test_facts_that_no_index_has_are_named_with_their_key(folder, key, value, said):
    from vmr_search.index_files import write_checked

    path = folder / "index.json"
    content = json.loads(path.read_text())["content"]
    write_checked(path, {**content, key: value})
    with pytest.raises(UserError, match=said):
        open_index(folder)
    path.write_text(path.read_text().replace('"words"', '"birds"'))
    with pytest.raises(UserError):
        open_index(folder)
