"""Where LEORN's inputs come from: object features, and clip features beside them."""

import dataclasses

import numpy as np
import pytest

from leorn.config import Config, DataConfig, ModelConfig
from leorn.data import Preprocessor, build_dataset
from leorn.inputs import InputFeatures
from leorn.object_features.config import ObjectsConfig
from leorn.object_features.layouts import ObjectFrames, ObjectManifest
from leorn.object_features.prepare import sampled_frames
from leorn.object_features.writing import write_objects
from vmr_common.errors import UserError
from vmr_common.features.pooling import pool
from vmr_common.features.store import Manifest, write_features
from vmr_common.text.vectors import WordVectors
from vmr_common.types import Query
from vmr_train.feature_files import FeaturesConfig, require_videos
from vmr_train.known_features import require_known
from vmr_train.prepared import unit_rows
from vmr_train.splits import SplitConfig, SplitsConfig

LENGTHS = {"a": 13, "b": 5}
WORDS = WordVectors(("she", "cuts", "board"), np.arange(6, dtype=np.float32).reshape(3, 2) + 1)


def objects_of(length: int) -> ObjectFrames:
    rng = np.random.default_rng(length)
    confidence = np.tile(np.array([0.9, 0.5, 0.05], np.float32), (length, 1))
    confidence[1] = 0  # a frame without any object
    boxes = rng.random((length, 3, 4)).astype(np.float32)
    return ObjectFrames(rng.normal(size=(length, 3, 6)).astype(np.float32), confidence, boxes)


@pytest.fixture
def root(tmp_path):
    manifest = ObjectManifest(box_units="normalised")
    items = ((video, objects_of(length)) for video, length in LENGTHS.items())
    write_objects(tmp_path / "objects.h5", items, manifest, dtype="float32")
    rows = np.random.default_rng(1).normal(size=(11, 4)).astype(np.float32)
    write_features(tmp_path / "clips.h5", [("a", rows)], Manifest())
    (tmp_path / "glove.txt").write_text("she 9 9\nknife 0.5 -0.5\n")
    return tmp_path


def config_of(*, clips: bool = False, quirks: str = "fixed", **data) -> Config:
    split = SplitConfig(annotations="none.jsonl")
    return Config(
        quirks=quirks,
        data=DataConfig(
            splits=SplitsConfig(train=split, test=split),
            objects=ObjectsConfig(path="objects.h5", dim=6, objects=3, threshold=0.1),
            features=FeaturesConfig(path="clips.h5", dim=4) if clips else None,
            frames=8,
            word_vectors="glove.txt",
            **data,
        ),
        model=ModelConfig(clips=4, scales=[4]),
    )


def query(number: int, video: str, text: str = "she cuts.") -> Query:
    return Query(id=str(number), video=video, text=text, duration=10.0, moments=[(2.0, 5.0)])


def test_videos_are_sampled_to_frames_normalised_and_masked(root):
    sources = InputFeatures.open(config_of(), root)
    stored, found = objects_of(13), sources["a"].objects
    frames = sampled_frames(13, 8)
    assert found.features.shape == (8, 3, 6)
    assert found.mask[:, 2].sum() == 0  # below the threshold
    wanted = stored.features[frames, 0] / np.linalg.norm(stored.features[frames, 0], axis=1, keepdims=True)
    there = stored.confidence[frames, 0] > 0.1
    np.testing.assert_allclose(found.features[there, 0], wanted[there], rtol=1e-5)
    assert not found.features[~found.mask].any()
    assert sources["a"].clips is None


def test_clip_features_are_unit_rows_pooled_to_the_same_frames(root):
    sources = InputFeatures.open(config_of(clips=True), root)
    rows = np.random.default_rng(1).normal(size=(11, 4)).astype(np.float32)
    np.testing.assert_allclose(sources["a"].clips, pool(unit_rows(rows), 8), rtol=1e-6)


def test_clip_features_are_standardised_on_request_with_what_training_measured(root):
    config = config_of(clips=True, standardise=True)
    sources, queries = InputFeatures.open(config, root), [query(0, "a")]
    learned = Preprocessor.learn(queries, root / "glove.txt", config.words_of, sources.clips)
    clips = build_dataset(config, learned, sources, root / "glove.txt", queries).batch([0], 1).features.clips
    np.testing.assert_allclose(clips.mean(dim=(0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(clips.std(dim=(0, 1), correction=0), 1, atol=1e-4)
    with pytest.raises(UserError, match=r"data\.standardise"):
        config_of(standardise=True)


def test_a_video_must_be_in_both_files(root):
    alone, both = (InputFeatures.open(config_of(clips=clips), root).store for clips in (False, True))
    require_videos(alone, {"train": [query(0, "a"), query(1, "b")]})
    with pytest.raises(
        UserError, match=r"objects\.h5 and .*clips\.h5: no features for 1 video of train.*'b'"
    ):
        require_videos(both, {"train": [query(0, "a"), query(1, "b")]})
    assert [path.name for path in both.paths] == ["objects.h5", "clips.h5"]
    assert alone.length("a") == 13


def test_a_file_that_was_made_for_something_else_is_refused(root):
    config = config_of()
    objects = dataclasses.replace(config.data.objects, expected_manifest={"box_units": "pixels"})
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, objects=objects))
    with pytest.raises(UserError, match="box_units 'normalised', the configuration expects 'pixels'"):
        require_known(config, InputFeatures.open(config, root).store, None, allow=False)


def test_punctuation_makes_words_unknown_with_the_released_quirks_alone(root):
    known = {}
    for quirks, stop in (("fixed", False), ("released", False), ("released", True)):
        config = config_of(quirks=quirks, drop_full_stop=stop)
        dataset = build_dataset(
            config, Preprocessor(WORDS), InputFeatures.open(config, root), root / "glove.txt", [query(0, "a")]
        )
        known[quirks, stop] = dataset.batch([0], None).words.vectors[0].tolist()
    assert known["fixed", False] == known["released", True] == [[1, 2], [3, 4]]
    assert known["released", False] == [[1, 2], [0, 0]]


def test_a_batch_holds_the_objects_of_every_video_once(root):
    config = config_of()
    queries = [query(0, "b"), query(1, "a"), query(2, "b")]
    batch = build_dataset(
        config, Preprocessor(WORDS), InputFeatures.open(config, root), root / "glove.txt", queries
    ).batch([0, 1, 2], 1)
    assert batch.videos == ("b", "a")
    assert batch.features.objects.features.shape == (2, 8, 3, 6)
    assert batch.features.objects.mask.dtype.is_floating_point is False
    assert batch.features.clips is None
    assert batch.overlaps.shape == (3, 4, 4)


def test_frames_must_fill_the_clips():
    with pytest.raises(UserError, match=r"data\.frames"):
        dataclasses.replace(config_of(), model=ModelConfig(clips=3, scales=[3]))
