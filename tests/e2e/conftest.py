"""A Shapes data set small enough to train on in a second, and a run on it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from vmr_common.shapes import ShapesSpec, ensure

SPEC = ShapesSpec(train=16, val=4, test=6, duration=(6.0, 9.0), size=40, feature_dim=16, word_dim=12)
CONFIG = """
name: tiny
quirks: fixed
protocols: [strict, point]
data:
  splits:
    train: {annotations: shapes/train.jsonl}
    validation: {annotations: shapes/val.jsonl}
    test: {annotations: shapes/test.jsonl}
  features: {path: shapes/features.h5, dim: 16}
  clips: 8
  word_vectors: shapes/words.txt
model: {hidden: 16, heads: 2, video_layers: 1, text_layers: 1, candidates: 3}
optim: {lr: 0.001}
train: {epochs: 1, global_batch: 8, device: cpu}
"""
PATIENCE_S = 300


@dataclass(frozen=True)
class Place:
    """Where a test works: a data root, a configuration for it, and the folder of run folders."""

    data: Path
    config: Path
    runs: Path

    def train_arguments(self, *more: str) -> list[str]:
        given = ["--cfg", str(self.config), "--data-root", str(self.data), "--runs", str(self.runs)]
        return [*given, *more]

    @property
    def run(self) -> Path:
        return self.runs / "rgn" / "tiny"


def make_place(folder: Path, data: Path) -> Place:
    config = folder / "tiny.yaml"
    config.write_text(CONFIG)
    return Place(data, config, folder / "runs")


def run_to_end(command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # a launcher's processes too
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.fixture(scope="session")
def start() -> Callable[[list[str | Path]], subprocess.CompletedProcess[str]]:
    """Runs a command to its end in processes of its own, one thread each."""
    return run_to_end


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A data root with the small Shapes; tests must not write into it."""
    root = tmp_path_factory.mktemp("data")
    ensure(root / "shapes", SPEC)
    return root


@dataclass(frozen=True)
class Trained:
    place: Place
    done: subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tiny_data, start) -> Trained:
    """A finished run, made by ``python -m rgn train`` in a process of its own; tests must not write into it."""
    place = make_place(tmp_path_factory.mktemp("trained"), tiny_data)
    done = start([sys.executable, "-m", "rgn", "train", *place.train_arguments()])
    assert done.returncode == 0, done.stderr
    return Trained(place, done)


@pytest.fixture
def place(tmp_path, tiny_data) -> Place:
    """A place of a test's own, with a copy of the data that it may damage."""
    shutil.copytree(tiny_data, tmp_path / "data")
    return make_place(tmp_path, tmp_path / "data")
