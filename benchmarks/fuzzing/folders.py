"""Folders of features with one file per video: HDF5, tensors of torch, and files beside them."""

from __future__ import annotations

import functools
import io
import random
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from fuzzing import arrays, hdf5
from fuzzing.case import Call, Case
from fuzzing.damage import damaged_bytes, flipped
from fuzzing.hdf5 import ANNOTATIONS, ROWS, SECRET, WIDTH
from fuzzing.texts import lines

LAYOUTS = ("hdf5", "tensor", "beside")
VIDEOS = ("v", "w", "x")


WHOLE = np.ones((ROWS, WIDTH), "f4")


def array(rng: random.Random) -> np.ndarray[Any, Any]:
    """Features of a video, or what is none."""
    odd = ((WIDTH,), (0, WIDTH), (ROWS, 1, WIDTH), (), (1, 1))
    shape = (ROWS, WIDTH) if rng.random() < 0.7 else rng.choice(odd)
    values = np.ones(shape, "f4" if rng.random() < 0.7 else rng.choice(("f2", "f8", "i8", "?", "c8")))
    if values.size and values.dtype.kind == "f" and rng.random() < 0.1:
        values.flat[0] = rng.choice((np.nan, np.inf, -np.inf, 1e4))
    return values


def in_hdf5(rng: random.Random, path: Path) -> None:
    """A file of one video, perhaps in groups, perhaps with more or damaged."""
    with h5py.File(path, "w") as file:
        group = file
        for _ in range(rng.choice((0, 0, 0, 1, 2, 5))):
            group = group.create_group(rng.choice(("v", "c3d", "features")))
        for name in rng.sample(("features", "x", "clip", "data"), rng.choice((1, 1, 1, 2, 0))):
            group[name] = array(rng)
    if rng.random() < 0.4:
        path.write_bytes(hdf5.damaged(rng, path.read_bytes()))


def in_tensor(rng: random.Random, path: Path) -> None:
    """A tensor, or a dictionary of such, perhaps with what nobody should unpickle, perhaps damaged."""
    path.write_bytes(tensor_bytes(rng.randrange(24)))
    if rng.random() < 0.6:
        change = rng.choice((damaged_bytes, flipped))
        path.write_bytes(change(rng, path.read_bytes()))


def saved(value: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


@functools.cache
def tensor_bytes(number: int) -> bytes:
    """One of some files, made once."""
    rng = random.Random(number)
    value: Any = torch.from_numpy(array(rng))
    odd = (
        {"features": value},
        {"a": value, "b": value},
        [value],
        value.to_sparse(),
        torch.zeros(1).expand(1 << 40, WIDTH),
        torch.zeros(ROWS, WIDTH, dtype=torch.bfloat16),
        torch.zeros(ROWS, WIDTH, device="meta"),
        Path("x"),
        {},
    )
    return saved(rng.choice((value, value, *odd)), _use_new_zipfile_serialization=rng.random() < 0.8)


def beside(rng: random.Random, folder: Path, video: str, *, whole: bool) -> None:
    """Features of one extractor or two, frames per second and times of the rows."""
    parts = {
        "_fps": np.array([25.0]),
        "_timestamps_ms": np.arange(ROWS) * 500.0,
        "_clip": WHOLE,
    }
    if not whole and rng.random() < 0.2:
        parts["_other_2"] = WHOLE
    odd = (
        np.array([]),
        np.array([0.0, -1.0]),
        np.array(np.nan),
        np.array(["x"]),
        np.ones((2, 2)),
        array(rng),
    )
    for ending, value in parts.items():
        kind = 0.5 if whole else rng.random()
        if kind < 0.05:
            continue
        path = folder / f"{video}{ending}.npy"
        if kind < 0.15:
            path.write_bytes(arrays.npy(rng))
            continue
        np.save(path, rng.choice(odd) if kind < 0.3 else value)
        if kind > 0.9:
            path.write_bytes(damaged_bytes(rng, path.read_bytes()))


def make(rng: random.Random, folder: Path, samples: Path | None = None, layout: str = "") -> Case:
    """A folder with something wrong, and the commands that read it."""
    layout = layout or rng.choice(LAYOUTS)
    place = folder / "features"
    place.mkdir()
    arrays.manifest_beside(rng, place)
    odd = rng.sample(VIDEOS, rng.choice((1, 1, 2, 3)))
    for video in VIDEOS:
        if layout == "beside":
            beside(rng, place, video, whole=video not in odd)
        elif layout == "hdf5" and video in odd:
            in_hdf5(rng, place / (video + rng.choice((".h5", ".h5", ".hdf5"))))
        elif layout == "hdf5":
            with h5py.File(place / f"{video}.h5", "w") as file:
                file["features"] = WHOLE
        elif video in odd:
            in_tensor(rng, place / (video + rng.choice((".pt", ".pt", ".pth"))))
        else:
            (place / f"{video}.pt").write_bytes(saved(torch.from_numpy(WHOLE)))
    (folder / "a.jsonl").write_bytes(lines(*ANNOTATIONS))
    source: list[object] = ["--features", place, "--data-root", folder]
    source += ["--annotations", folder / "a.jsonl"] if rng.random() < 0.7 else []
    source += rng.choice(([], [], [], ["--ending", "_clip"], ["--key", "features"]))
    calls = {"check": [], "info": [], "convert": ["--out", folder / "out.h5"]}
    return Case(
        [Call("vmr-data", [verb, *source, *calls[verb]]) for verb in rng.sample(list(calls), 2)], SECRET
    )
