"""Speed of reading and pooling features against the plain ways.

    uv run python benchmarks/features.py

Reading: `FeatureStore` against raw h5py with the file kept open and the values made float32, and against opening
the file for every video as many loaders do. The store checks every value when a video is read for the first time;
"first" is such a pass, with opening the file, "ours" is any later one (the second epoch). All files are in the
page cache, so that the processor is measured and not the disk. Pooling: `pool` against one mean per clip. Times
are processor time of one thread, best of several rounds taken in turns; set OMP_NUM_THREADS=1. Results go to
``benchmarks/results/features-<processor>.csv``.
"""

import argparse
import tempfile
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
from recording import measured_here, write_rows
from timing import best_in_turns

from vmr_common.features.manifest import Manifest
from vmr_common.features.pooling import pool
from vmr_common.features.store import FeatureStore, write_features
from vmr_common.timeline import pooling_bounds

ROUNDS = 15
HEADER = ["case", "rows", "columns", "videos", "plain_ms", "reopened_ms", "first_ms", "ours_ms", "ratio"]
READING = [  # name, rows, columns, videos, type
    ("read, float32", 30, 512, 1000, "float32"),
    ("read, float16", 30, 512, 1000, "float16"),
    ("read, float32", 200, 1024, 200, "float32"),
    ("read, float32 in groups, gzip", 200, 500, 100, "gzip"),
    ("read, float32", 3000, 4096, 4, "float32"),
    ("read, float16", 26000, 512, 4, "float16"),
]
POOLING = [
    (60, 512, 64),
    (400, 500, 200),
    (1000, 1024, 200),
    (3000, 4096, 512),
    (3000, 4096, 128),
    (26000, 512, 900),
]


def write(path, rows, columns, videos, kind):
    rng = np.random.default_rng(rows)
    items = ((f"video-{n:05d}", rng.normal(size=(rows, columns)).astype(np.float32)) for n in range(videos))
    if kind != "gzip":
        write_features(path, items, Manifest(), kind)
        return None
    with h5py.File(path, "w") as file:
        for video, values in items:
            file.create_dataset(f"{video}/c3d_features", data=values, compression="gzip")
    return "c3d_features"


def reading(folder, name, rows, columns, videos, kind):
    path = folder / f"{rows}-{columns}-{kind}.h5"
    key = write(path, rows, columns, videos, kind)
    with h5py.File(path, "r") as file, FeatureStore(path, key=key) as store:
        ids = store.videos()

        def find(source, video):
            return source[video] if key is None else source[video][key]

        def plain():
            return [find(file, video)[()].astype(np.float32, copy=False) for video in ids]

        def reopened():
            for video in ids:
                with h5py.File(path, "r") as again:
                    find(again, video)[()].astype(np.float32, copy=False)

        def first():
            with FeatureStore(path, key=key) as fresh:
                return [fresh[video] for video in ids]

        def ours():
            return [store[video] for video in ids]

        assert all(np.array_equal(a, b) for a, b in zip(plain(), ours(), strict=True))
        return name, rows, columns, videos, best_in_turns([plain, reopened, first, ours], ROUNDS)


def pooling(rows, columns, length):
    features = np.random.default_rng(rows).normal(size=(rows, columns)).astype(np.float32)

    def plain():
        ranges = pairwise(pooling_bounds(rows, length))
        return np.stack([features[a] if a == b else features[a:b].mean(axis=0) for a, b in ranges])

    np.testing.assert_allclose(pool(features, length), plain(), atol=1e-6)
    slow, fast = best_in_turns([plain, lambda: pool(features, length)], ROUNDS)
    return f"pool to {length}", rows, columns, 1, (slow, None, None, fast)


def measured():
    with tempfile.TemporaryDirectory() as folder:
        for case in READING:
            yield reading(Path(folder), *case)
    for case in POOLING:
        yield pooling(*case)


def main():
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    rows = []
    print("".join(name.rjust(30 if name == "case" else 12) for name in HEADER))
    for name, length, columns, videos, (slow, *others, fast) in measured():
        times = ["" if value is None else f"{1000 * value / videos:.4f}" for value in (slow, *others, fast)]
        row = [name, length, columns, videos, *times, f"{slow / fast:.2f}"]
        print(name.rjust(30) + "".join(str(cell).rjust(12) for cell in row[1:]), flush=True)
        rows.append(dict(zip(HEADER, row, strict=True)))
    write_rows(measured_here("features"), rows)


if __name__ == "__main__":
    main()
