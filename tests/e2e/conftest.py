"""A Shapes data set small enough to train on in a second, a run on it, and what commands are typed with."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from processes import run_to_end
from rgn.training import command as train
from tiny_papers import SPEC
from vmr_shapes import ensure

COMMON = """
name: tiny
data:
  splits:
    train: {annotations: shapes/train.jsonl}
    validation: {annotations: shapes/val.jsonl}
    test: {annotations: shapes/test.jsonl}
optim: {lr: 0.001}
train: {epochs: 1, global_batch: 8, device: cpu}
"""
CONFIG = """
quirks: fixed
protocols: [strict, point]
data:
  features: {path: shapes/features.h5, dim: 16}
  clips: 8
  word_vectors: shapes/words.txt
model: {hidden: 16, heads: 2, video_layers: 1, text_layers: 1, candidates: 3}
"""


@dataclass(frozen=True)
class Place:
    """Where a test works: a data root, a package's configuration for it, and the folder of run folders."""

    data: Path
    package: str
    config: Path
    runs: Path

    def train_arguments(self, *more: str) -> list[str]:
        given = ["--cfg", str(self.config), "--data-root", str(self.data), "--runs", str(self.runs)]
        return [*given, *more]

    @property
    def run(self) -> Path:
        return self.run_named("tiny")

    @property
    def features(self) -> Path:
        return self.data / "shapes" / "features.h5"

    def run_named(self, name: str) -> Path:
        return self.runs / self.package / name


def completed(config: str) -> dict[str, Any]:
    """A package's part of a configuration with what all have in common."""
    common, own = yaml.safe_load(COMMON), yaml.safe_load(config)
    return {**common, **own, "data": {**common["data"], **own["data"]}}


def make_place(folder: Path, data: Path, package: str = "rgn", config: str = CONFIG) -> Place:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(completed(config)))
    return Place(data, package, path, folder / "runs")


@pytest.fixture(scope="session")
def place_of(tmp_path_factory) -> Callable[[str, str, Path], Place]:
    """Makes a place of its own for the tests of a package, from its configuration and the data root."""

    def make(package: str, config: str, data: Path) -> Place:
        return make_place(tmp_path_factory.mktemp(package), data, package, config)

    return make


@pytest.fixture
def done(capsys) -> Callable[..., str]:
    """Runs a command in this process; it must succeed; gives what it says."""

    def run(command, *arguments) -> str:
        capsys.readouterr()
        status = command([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert status == 0, captured.err
        return captured.out

    return run


class Refused:
    """Runs a command in this process and gives the one line that it must end with."""

    def __init__(self, capsys):
        self.capsys = capsys

    def __call__(self, command, *arguments) -> str:
        self.capsys.readouterr()
        status = command([str(argument) for argument in arguments])
        captured = self.capsys.readouterr()
        lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        assert status == 2, captured.err
        assert len(lines) == 1, captured.err
        assert captured.err.endswith(lines[0] + "\n"), "the error is the last thing said"
        assert "Traceback" not in captured.err
        assert len(lines[0]) < 1000
        return lines[0]


@pytest.fixture
def refused(capsys) -> Refused:
    return Refused(capsys)


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


@pytest.fixture
def refused_training(refused, place):
    """What training answers after nothing or something has been changed at `place`; no run may be left."""

    def run(*more: str) -> str:
        message = refused(train, *place.train_arguments(*more))
        assert not place.run.exists()
        return message

    return run
