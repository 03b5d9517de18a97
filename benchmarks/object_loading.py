"""How many queries a second the object loader gives: LEORN's input from a file and from the memory of a process.

    uv run python benchmarks/object_loading.py

A query is a batch item: 256 frames of O objects with 2048-wide features, normalised, masked, copied into the batch.
"plain" reads the whole array of a video from a file in the released layout (36 slots of 2053 float32) for every
query, cuts and normalises it with numpy; "released", "float32" and "float16" are `PreparedObjects` with an empty memory
on that file and on ours with the slots that are needed; "warm" and "warm half" find the video in memory, kept as
float32 or float16. All files are in the page cache, so that the processor is measured and not the disk. Times are
processor time of one thread, best of several rounds taken in turns; set OMP_NUM_THREADS=1. Results go to
``benchmarks/results/object-loading-<processor>.csv``.
"""

import argparse
import tempfile
from pathlib import Path

import h5py
import numpy as np
from recording import measured_here, write_rows
from timing import best_in_turns

from leorn.object_features.layouts import ObjectFrames, ObjectManifest
from leorn.object_features.prepare import PreparedObjects
from leorn.object_features.store import ObjectStore
from leorn.object_features.writing import write_objects

FRAMES, STORED, DIM, VIDEOS = 256, 36, 2048, 3
CASES = [("Charades-STA", 18, 0.1), ("TACoS", 36, 0.0)]
HEADER = ["case", "objects", "loader", "ms_per_query", "queries_per_second", "mb_per_video"]


def video(seed):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((FRAMES, STORED, 2, 2), np.float32), axis=2)
    confidence = np.sort(rng.random((FRAMES, STORED), np.float32), axis=1)[:, ::-1]
    features = rng.random((FRAMES, STORED, DIM), np.float32) * 10
    return ObjectFrames(features, confidence, corners.reshape(FRAMES, STORED, 4))


def write_released(path):
    with h5py.File(path, "w") as file:
        for number in range(VIDEOS):
            item = video(number)
            packed = [item.features, item.confidence[..., None], item.boxes]
            file[f"v{number}"] = np.concatenate(packed, axis=-1)


def batch(items, out):
    for place, item in enumerate(items):
        for array, part in zip(out, item, strict=True):
            array[place] = part


def plain(path, objects, threshold, ids, out):
    with h5py.File(path, "r") as file:
        for place, name in enumerate(ids):
            data = file[name][()][:, :objects]
            features, confidence, boxes = data[..., :DIM], data[..., DIM], data[..., DIM + 1 :]
            mask = confidence > threshold
            norms = np.linalg.norm(features, axis=-1, keepdims=True)
            out[0][place] = features / np.maximum(norms, 1e-12) * mask[..., None]
            out[1][place] = mask
            out[2][place] = boxes * mask[..., None]


def measured(folder, case, objects, threshold):
    released = folder / "released.h5"
    if not released.exists():
        write_released(released)
    files = {"released": released}
    for dtype in ("float32", "float16"):
        files[dtype] = folder / f"{objects}-{dtype}.h5"
        items = ((f"v{number}", video(number)) for number in range(VIDEOS))
        write_objects(files[dtype], items, ObjectManifest(), dtype, objects)
    ids = [f"v{number}" for number in range(VIDEOS)]
    shape = (VIDEOS, FRAMES, objects)
    out = np.zeros((*shape, DIM), np.float32), np.zeros(shape, bool), np.zeros((*shape, 4), np.float32)
    reference = tuple(np.zeros_like(array) for array in out)

    def prepared(name, **options):
        store = ObjectStore(files[name], objects=objects, dim=DIM)
        return PreparedObjects(store, frames=FRAMES, threshold=threshold, **options)

    cold = {name: prepared(name, budget=0) for name in files}
    warm = {"warm": prepared("float16"), "warm half": prepared("float16", memory="float16")}
    loaders = {**cold, **warm}
    functions = {"plain": lambda: plain(released, objects, threshold, ids, reference)}
    for name, loader in loaders.items():
        functions[name] = lambda loader=loader: batch((loader[v] for v in ids), out)
    functions["plain"]()
    functions["released"]()
    for array, expected in zip(out, reference, strict=True):
        np.testing.assert_allclose(array, expected, atol=1e-6)
    times = best_in_turns(list(functions.values()), rounds=7)
    for name, time in zip(functions, times, strict=True):
        held = warm[name].held / VIDEOS / 1e6 if name in warm else None
        size = files[name].stat().st_size / VIDEOS / 1e6 if name in files else held
        size = released.stat().st_size / VIDEOS / 1e6 if size is None else size
        yield case, objects, name, f"{1000 * time / VIDEOS:.1f}", f"{VIDEOS / time:.1f}", f"{size:.1f}"
    for loader in loaders.values():
        loader.store.close()


def main():
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    rows = []
    print("".join(name.rjust(20) for name in HEADER))
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            for row in measured(Path(folder), *case):
                rows.append(dict(zip(HEADER, row, strict=True)))
                print("".join(str(cell).rjust(20) for cell in row), flush=True)
    write_rows(measured_here("object-loading"), rows)


if __name__ == "__main__":
    main()
