"""Valid files that only commands can make: a small Shapes data set, finished runs on it, an index, a report."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection
from pathlib import Path

import yaml

from fuzzing.case import PACKAGES, entry_point, make_forkable
from leorn.object_features.shapes_file import ensure_objects
from vmr_shapes import ShapesSpec, ensure

SPEC = ShapesSpec(train=8, val=3, test=4, duration=(6.0, 9.0), size=40, feature_dim=16, word_dim=12)
COMMON = """
name: tiny
data:
  splits:
    train: {annotations: shapes/train.jsonl}
    validation: {annotations: shapes/val.jsonl}
    test: {annotations: shapes/test.jsonl}
optim: {lr: 0.001}
train: {epochs: 1, global_batch: 8, device: cpu, checkpoint_updates: 2, log_updates: 1}
"""
OWN = {
    "rgn": """
quirks: fixed
protocols: [strict, point]
data: {features: {path: shapes/features.h5, dim: 16}, clips: 8, word_vectors: shapes/words.txt}
model: {hidden: 16, heads: 2, video_layers: 1, text_layers: 1, candidates: 3}
""",
    "cfmr": """
quirks: fixed
protocols: [strict, point]
data: {features: {path: shapes/features.h5, dim: 16}, clips: 32, word_vectors: shapes/words.txt}
model: {hidden: 16, heads: 2, encoder_layers: 1, reconstructor_layers: 1, concepts: 2, centres: 4, widths: 2}
""",
    "cdn": """
protocols: [proposal-map, strict]
data:
  features: {path: shapes/features.h5, dim: 16}
  frames: 16
  standardise: true
  word_vectors: shapes/words.txt
model: {hidden: 12, text_layers: 1, clips: 8, scales: [8], attention_steps: 2, attention_hidden: 8, layers: 2,
  dynamic_layers: [0], kernels: 2, kernel_dropout: 0.0}
loss: {beta: 0.1}
""",
    "leorn": """
protocols: [proposal-map, strict]
data:
  objects: {path: objects.h5, dim: 59, objects: 5, expected_manifest: {box_units: normalised}}
  frames: 16
  word_vectors: shapes/words.txt
model: {hidden: 16, text_layers: 1, blocks: 2, feed_forward: 16, clips: 8, scales: [8], layers: 2, kernel: 3,
  dropout: 0.0, box_dropout: 0.0}
""",
    "rgnet": """
quirks: fixed
protocols: [strict, ego4d-nlq]
data:
  features: {path: shapes/features.h5, dim: 16}
  feature_stride: 0.5
  window: 6
  queries: {word_vectors: shapes/words.txt, token_dim: 12}
  standardise: true
model: {hidden: 16, heads: 2, inner: 16, cross_layers: 1, self_layers: 1, decoder_layers: 2, queries: 3}
search: {windows: 3}
""",
}


def configuration(package: str) -> dict[str, object]:
    """A configuration with which a package trains on the small data in a second."""
    common, own = yaml.safe_load(COMMON), yaml.safe_load(OWN[package])
    return {**common, **own, "data": {**common["data"], **own["data"]}}


def make(folder: Path, trained: Collection[str]) -> None:
    """Fills a folder with ``data``, ``cfg``, and ``runs`` of some packages with an ``index``; what is there stays."""
    make_forkable()
    data = folder / "data"
    if not data.exists():
        ensure(data / "shapes", SPEC)
        ensure_objects(data / "shapes", SPEC).rename(data / "objects.h5")
        (data / "shapes/objects.json").unlink()
        (folder / "cfg").mkdir()
        for package in PACKAGES:
            text = yaml.safe_dump(configuration(package), sort_keys=False)
            (folder / f"cfg/{package}.yaml").write_text(text)
    for package in trained:
        config, run = folder / f"cfg/{package}.yaml", folder / f"runs/{package}/tiny"
        arguments = ["--cfg", config, "--data-root", data, "--runs", folder / "runs"]
        if not run.exists():
            done(f"{package}-train", *arguments)
        if package == "cfmr" and not (folder / "index").exists():
            place = ("--out", folder / "index", "--shard-videos", 4)
            done("cfmr-index", "--checkpoint", run, "--data-root", data, *place)


def warm_up(folder: Path) -> None:
    """Imports the commands, and goes on with a run: torch starts once, before children are made."""
    arguments = ["--data-root", folder / "data", "--runs", folder / "runs", "--resume"]
    for package in trained(folder)[:1]:
        for other in PACKAGES:
            entry_point(f"{other}-train")
        done(f"{package}-train", "--cfg", folder / f"cfg/{package}.yaml", *arguments)


def trained(folder: Path) -> list[str]:
    """The packages of which there are runs."""
    runs = folder / "runs"
    return sorted(path.name for path in runs.iterdir()) if runs.is_dir() else []


def done(program: str, *arguments: object) -> str:
    """Runs a command in this process; it must succeed.

    Raises:
        RuntimeError: with what it said, if it does not.
    """
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = entry_point(program)([str(argument) for argument in arguments])
    if status:
        raise RuntimeError(f"{program}: status {status}\n{out.getvalue()}")
    return out.getvalue()
