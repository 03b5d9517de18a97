"""Latency of retrieval in a corpus by every engine, beside FAISS: uv run --group peers benchmarks/corpus_search.py.

    uv run --group peers python benchmarks/corpus_search.py --videos 1000 10000
    uv run --group peers python benchmarks/corpus_search.py --videos 1000 --engines scan faiss-ivf-sq8  # scan first

Vectors are drawn as those of a trained CFMR lie: 24 windows of 7 concepts x 256 numbers a video, on a surface of few
dimensions, alike inside a video, videos gathered in scenes (`corpus`). Every build and every search is a process of its
own, on one core; of the seconds of a build, those that draw vectors do not count. Recall is of the ten videos that the
exact scan finds.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from recording import measured_here, read_rows, write_rows
from timing import Seconds, timed

from vmr_search.engine.moment_index import MomentIndex, VideoWindows
from vmr_search.folder import ENGINES

WINDOWS, CONCEPTS, WIDTH = 24, 7, 256
SIZE = CONCEPTS * WIDTH
SCENES, LATENT = 300, 48
BLOCK = 250  # videos that are drawn together
FOUND = 10
ASKED = 200
COLUMNS = (
    *("videos", "engine", "build_s", "build_cpu_s", "build_peak_mb", "disk_mb", "queries", "first_ms"),
    *("wall_p50_ms", "wall_p95_ms", "cpu_p50_ms", "cpu_p95_ms", "search_peak_mb", "recall", "version"),
)
ENGINES_MEASURED = ("scan", "lance", "lance-exact", "faiss-flat", "faiss-ivf-sq8", "faiss-hnsw")


def corpus(videos: int, seed: int = 0) -> Iterator[VideoWindows]:
    """Videos ``v0, v1, ...`` of the real shape, float16; the first ones are the same in a corpus of any size."""
    for first in range(0, videos, BLOCK):
        latent, ends = _latent(first // BLOCK, seed)
        vectors = _concepts(latent, seed)
        for place in range(min(BLOCK, videos - first)):
            windows = np.stack([ends[place] - ends[place] / 4, ends[place]], 1)
            yield VideoWindows(f"v{first + place}", 30.0, windows, vectors[place])


def sentences(count: int, videos: int, seed: int = 0) -> np.ndarray:
    """Vectors ``(count, SIZE)`` float32 of sentences, each of a window of a corpus."""
    rng = np.random.default_rng([seed, 1 << 20])
    made = []
    for video in rng.integers(videos, size=count).tolist():
        latent, _ = _latent(video // BLOCK, seed)
        window = latent[video % BLOCK, rng.integers(WINDOWS)]
        made.append(window + rng.normal(scale=0.6, size=LATENT))
    return _concepts(np.stack(made)[None].astype(np.float32), seed)[0].astype(np.float32)


def _latent(block: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    scenes = np.random.default_rng([seed, 1]).normal(size=(SCENES, LATENT))
    rng = np.random.default_rng([seed, 2, block])
    video = scenes[rng.integers(SCENES, size=BLOCK)] + rng.normal(scale=0.7, size=(BLOCK, LATENT))
    window = video[:, None] + rng.normal(scale=0.5, size=(BLOCK, WINDOWS, LATENT))
    ends = np.sort(rng.uniform(4, 30, size=(BLOCK, WINDOWS)))
    return window.astype(np.float32), ends


def _concepts(latent: np.ndarray, seed: int) -> np.ndarray:
    """Latent places ``(..., LATENT)`` as CONCEPTS unit vectors each, ``(..., SIZE)`` float16."""
    turned = np.random.default_rng([seed, 3]).normal(size=(LATENT, SIZE)).astype(np.float32)
    parts = (latent @ turned).reshape(*latent.shape[:-1], CONCEPTS, WIDTH)
    parts /= np.linalg.norm(parts, axis=-1, keepdims=True)
    return parts.reshape(*latent.shape[:-1], SIZE).astype(np.float16)


# ---- steps, each a process ---------------------------------------------------------------------------------


def _engine(name: str) -> Any:
    module, _, attribute = ENGINES[name].partition(":")
    return getattr(__import__(module, fromlist=[attribute]), attribute)


def build(engine: str, videos: int, folder: Path) -> dict[str, Any]:
    """Builds an index as `vmr_search.building` does, 512 videos at a time."""
    if engine.startswith("faiss"):
        spent = _build_faiss(engine, videos, folder)
    else:
        index, first = timed(lambda: _engine(engine).create(folder / engine, size=SIZE))
        parts, drawn = [first], corpus(videos)
        while group := [one for _, one in zip(range(512), drawn, strict=False)]:
            parts.append(timed(lambda group=group: index.add(group))[1])
        parts.append(timed(index.compact)[1])
        spent = Seconds(*map(sum, zip(*parts, strict=True)))
    return {
        "build_s": round(spent.clock, 1),
        "build_cpu_s": round(spent.processor, 1),
        "build_peak_mb": _peak(),
    }


def search(engine: str, videos: int, folder: Path, asked: int) -> dict[str, Any]:
    """Asks one sentence after the other; `scan` writes the truth that the others are held against."""
    if engine.startswith("faiss"):
        ask = _faiss(engine, folder)
    else:
        name, exact = engine.removesuffix("-exact"), engine.endswith("-exact")
        index: MomentIndex = _engine(name).open(folder / name, size=SIZE)

        def ask(query: np.ndarray) -> list[str]:
            return [found.video for found in index.search(query[None], FOUND, exact=exact)[0]]

    queries = sentences(ASKED + 1, videos)  # the same ones however many are asked
    _, first = timed(lambda: ask(queries[-1]))
    spent, answers = [], []
    for query in queries[:asked]:
        answer, seconds = timed(lambda query=query: ask(query))
        answers.append(answer)
        spent.append(seconds)
    truth = folder / "truth.json"
    if engine == "scan":
        truth.write_text(json.dumps(answers))
    true = json.loads(truth.read_text()) if truth.exists() else []  # where `scan` was measured before
    shares = [len({*mine[:FOUND]} & {*one}) / FOUND for mine, one in zip(answers, true, strict=False)]
    return {
        "queries": asked,
        "first_ms": round(first.clock * 1000, 1),
        **_percentiles("wall", [one.clock for one in spent]),
        **_percentiles("cpu", [one.processor for one in spent]),
        "search_peak_mb": _peak(),
        "recall": round(float(np.mean(shares)), 4) if shares else None,
    }


def _percentiles(what: str, seconds: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    return {f"{what}_p50_ms": round(float(p50), 2), f"{what}_p95_ms": round(float(p95), 2)}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _build_faiss(engine: str, videos: int, folder: Path) -> Seconds:
    import faiss

    faiss.omp_set_num_threads(1)
    quantizer = faiss.IndexFlatIP(SIZE)
    rows = videos * WINDOWS
    kind = faiss.ScalarQuantizer
    index = {
        "faiss-flat": lambda: faiss.IndexScalarQuantizer(SIZE, kind.QT_fp16, faiss.METRIC_INNER_PRODUCT),
        "faiss-ivf-sq8": lambda: faiss.IndexIVFScalarQuantizer(
            quantizer, SIZE, round(rows**0.5), kind.QT_8bit, faiss.METRIC_INNER_PRODUCT
        ),
        "faiss-hnsw": lambda: faiss.IndexHNSWSQ(SIZE, kind.QT_fp16, 32, faiss.METRIC_INNER_PRODUCT),
    }[engine]()
    parts = []
    if engine == "faiss-ivf-sq8":
        index.cp.niter = 12
        sample = np.concatenate([one.vectors[::2] for one in corpus(min(videos, 2 * index.nlist))])
        parts.append(timed(lambda: index.train(sample.astype(np.float32)))[1])
    else:
        index.train(np.zeros((1, SIZE), np.float32))
    drawn = corpus(videos)
    while group := [one.vectors for _, one in zip(range(512), drawn, strict=False)]:
        rows_of = np.concatenate(group).astype(np.float32)
        parts.append(timed(lambda rows_of=rows_of: index.add(rows_of))[1])
    faiss.write_index(index, str(folder / engine))
    return Seconds(*map(sum, zip(*parts, strict=True)))


def _faiss(engine: str, folder: Path) -> Callable[[np.ndarray], list[str]]:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.read_index(str(folder / engine))
    if engine == "faiss-ivf-sq8":
        index.nprobe = max(16, index.nlist // 16)
    if engine == "faiss-hnsw":
        index.hnsw.efSearch = 512

    def ask(query: np.ndarray) -> list[str]:
        wanted = max(240, 10 * FOUND)
        while True:  # as our engines do
            _, rows = index.search(query[None], wanted)
            found = list(dict.fromkeys((rows[0][rows[0] >= 0] // WINDOWS).tolist()))
            if len(found) >= FOUND or (rows[0] < 0).any():
                return [f"v{number}" for number in found[:FOUND]]
            wanted *= 4

    return ask


# ---- all of them -------------------------------------------------------------------------------------------


def measure(engine: str, videos: int, folder: Path, asked: int) -> dict[str, Any]:
    """A row of the table; the index is built unless an exact search of the same one was measured before."""
    built = engine.removesuffix("-exact")
    row: dict[str, Any] = {"videos": videos, "engine": engine, "version": _version(built)}
    if not (folder / built).exists():
        (folder / f"{built}.json").write_text(json.dumps(_step("build", built, videos, folder, asked)))
    row |= json.loads((folder / f"{built}.json").read_text())
    row["disk_mb"] = sum(path.stat().st_size for path in _files(folder / built)) >> 20
    return row | _step("search", engine, videos, folder, asked)


def _files(place: Path) -> list[Path]:
    return [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]


def _version(engine: str) -> str:
    name = {"scan": "vmr-search", "lance": "lancedb"}.get(engine, "faiss-cpu")
    return f"{name} {importlib.metadata.version(name)}"


def _step(step: str, engine: str, videos: int, folder: Path, asked: int) -> dict[str, Any]:
    arguments = ["--step", step, "--engines", engine, "--videos", str(videos), "--folder", str(folder)]
    found = subprocess.run(
        [sys.executable, __file__, *arguments, "--asked", str(asked)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    result: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--engines", nargs="+", default=list(ENGINES_MEASURED[:-1]), choices=ENGINES_MEASURED)
    parser.add_argument(
        "--asked", type=int, default=ASKED, help="sentences; exact searches of large corpora ask fewer"
    )
    parser.add_argument("--folder", type=Path, help="where the indexes are kept; deleted by default")
    parser.add_argument("--step", choices=["build", "search"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step is not None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        arguments = (options.engines[0], options.videos[0], options.folder)
        print(json.dumps(build(*arguments) if options.step == "build" else search(*arguments, options.asked)))
        return
    path = measured_here("corpus-search")
    for videos in options.videos:
        folder = (
            Path(tempfile.mkdtemp(prefix="corpus-search-"))
            if options.folder is None
            else options.folder / str(videos)
        )
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for engine in options.engines:
                slow = engine in ("scan", "lance-exact", "faiss-flat")
                asked = min(options.asked, max(5, 300_000 // videos)) if slow else options.asked
                begun = time.perf_counter()
                row = measure(engine, videos, folder, asked)
                print(
                    {key: row.get(key) for key in COLUMNS}, f"{time.perf_counter() - begun:.0f} s", flush=True
                )
                kept = read_rows(path) if path.exists() else []
                kept = [one for one in kept if (one["videos"], one["engine"]) != (str(videos), engine)]
                kept.append({key: str(value) for key, value in row.items()})
                kept.sort(key=lambda one: (int(one["videos"]), ENGINES_MEASURED.index(one["engine"])))
                write_rows(path, kept, COLUMNS)
        finally:
            if options.folder is None:
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
