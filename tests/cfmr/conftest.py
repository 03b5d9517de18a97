"""A tiny CFMR with random weights, as a checkpoint on disk, and features to index."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cfmr.config import Config, DataConfig
from cfmr.index.encoder import Encoder
from cfmr_toy import SMALL, make_method
from vmr_common.features.store import FeatureStore, Manifest, write_features
from vmr_train.checkpoint import save_checkpoint
from vmr_train.cli.config import to_dict
from vmr_train.feature_files import FeaturesConfig
from vmr_train.prepared import FeatureNormalizer
from vmr_train.splits import SplitConfig, SplitsConfig

SIZES = dataclasses.replace(SMALL, centres=5, widths=3, widest=0.6, train_widths=3)


def make_checkpoint(path: Path, seed: int, scale: FeatureNormalizer | None = None) -> Path:
    split = SplitConfig(annotations="none.jsonl")
    config = Config(
        name="tiny",
        data=DataConfig(
            splits=SplitsConfig(train=split, test=split),
            features=FeaturesConfig(path="features.h5", dim=5),
            clips=16,
            standardise=scale is not None,
            word_vectors="none.txt",
        ),
        model=SIZES,
    )
    method = make_method(SIZES, seed=seed)
    method.preprocessor = dataclasses.replace(method.preprocessor, scale=scale)
    meta = {
        "package": "cfmr",
        "role": "best",
        "update": 0,
        "epoch": 0,
        "batch": 0,
        "state": method.state(),
        "describe": {"package": "cfmr", "config": to_dict(config)},
    }
    save_checkpoint(path, {"model": method.model.state_dict(), "state": method.state_tensors()}, meta)
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "tiny.safetensors", 0)


@pytest.fixture(scope="session")
def encoder(checkpoint) -> Encoder:
    return Encoder.load(checkpoint, "cpu")


@pytest.fixture(scope="session")
def standardising_encoder(tmp_path_factory, store) -> Encoder:
    scale = FeatureNormalizer.measure(store, list(store.videos())[:40])
    path = make_checkpoint(tmp_path_factory.mktemp("model") / "standardised.safetensors", 0, scale)
    return Encoder.load(path, "cpu")


@pytest.fixture(scope="session")
def other_encoder(tmp_path_factory) -> Encoder:
    return Encoder.load(make_checkpoint(tmp_path_factory.mktemp("model") / "other.safetensors", 1), "cpu")


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> FeatureStore:
    path = tmp_path_factory.mktemp("features") / "features.h5"
    rng = np.random.default_rng(1)
    rows = [(f"v{n:03d}", rng.normal(size=(9 + n % 7, 5)).astype(np.float32)) for n in range(90)]
    write_features(path, rows, Manifest(extractor="synthetic", stride_s=1.0))
    return FeatureStore(path)


@pytest.fixture(scope="session")
def durations(store) -> dict[str, float]:
    return {video: float(store.length(video)) for video in store.videos()}
