"""CFMR: latency of a query, and of searching whole collections, on this machine.

    uv run python benchmarks/cfmr_speed.py latency
    uv run python benchmarks/cfmr_speed.py corpus --videos 1000 10000 100000

Writes csv to benchmarks/results/, one file per command and processor. The model has the sizes of the Charades
configuration and random weights (time does not depend on them); the collections hold random unit concepts.
"""

import argparse
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from recording import measured_here, write_rows
from timing import repeated

from cfmr.config import Config
from cfmr.data import stack_clips
from cfmr.method import moments_of
from cfmr.model import CFMR, Words, flat_concepts
from vmr_search.engine.moment_index import VideoWindows
from vmr_search.engine.scan.scan_index import ScanIndex
from vmr_train.cli.config import bundled_config

WORDS = 7
DRAWN = 2000


def charades() -> tuple[Config, CFMR]:
    config = bundled_config("cfmr", Config, "charades")
    torch.manual_seed(0)
    model = CFMR(
        config.model, clip_dim=config.data.features.dim, word_dim=300, classes=1112, learned_summary=False
    )
    return config, model.eval()


def times(function, repeats: int) -> list[float]:
    return [run.clock for run in repeated(function, repeats)]


@torch.no_grad()
def latency(repeats: int) -> None:
    config, model = charades()
    rows = np.random.default_rng(0).normal(size=(config.data.clips // 4, config.data.features.dim))
    clips = stack_clips([rows.astype(np.float32)])
    words = Words(torch.randn(1, WORDS + 2, 300), torch.tensor([WORDS]))
    video = flat_concepts(model.encode_video(clips))[0]

    def warm() -> None:
        (video @ flat_concepts(model.encode_text(words))[0]).argsort(descending=True)

    def cold() -> None:
        found = flat_concepts(model.encode_video(clips))[0]
        (found @ flat_concepts(model.encode_text(words))[0]).argsort(descending=True)

    rows, every = [], torch.get_num_threads()
    for threads in sorted({1, every}):
        torch.set_num_threads(threads)
        for name, function in (("warm (query only)", warm), ("cold (video and query)", cold)):
            found = sorted(1e3 * t for t in times(function, repeats))
            row = {
                "what": name,
                "threads": threads,
                "p50_ms": round(statistics.median(found), 3),
                "p95_ms": round(found[int(0.95 * (len(found) - 1))], 3),
                "torch": torch.__version__,
            }
            print(row)
            rows.append(row)
    write_rows(measured_here("cfmr-latency"), rows)


def bandwidth() -> float:
    """Bytes per second that all of torch's threads together read from memory."""
    values = torch.ones(256 << 20, dtype=torch.uint8).view(torch.int64)
    return values.numel() * 8 / min(times(values.sum, 5))


def corpus(counts: list[int], dtypes: list[str], folder: Path | None, repeats: int) -> None:
    config, model = charades()
    sizes, moments = config.model, moments_of(model.search_proposals())
    rng = np.random.default_rng(0)
    base = Path(tempfile.mkdtemp(dir=folder))
    memory = bandwidth()
    rows = []
    try:
        for dtype in dtypes:
            index = ScanIndex.create(base / dtype, size=sizes.concepts * sizes.hidden, dtype=dtype)
            for count in counts:
                fill(index, count, moments * 30.0, rng)
                rows += measure(index, rng, sizes, memory, repeats)
                write_rows(measured_here("cfmr-corpus"), rows)
            shutil.rmtree(base / dtype)
    finally:
        shutil.rmtree(base)


def unit(rng, shape: tuple[int, ...], concepts: int) -> np.ndarray:
    values = rng.standard_normal((*shape[:-1], concepts, shape[-1] // concepts), dtype=np.float32)
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    return values.reshape(shape)


def fill(index: ScanIndex, count: int, windows: np.ndarray, rng) -> None:
    """Adds videos up to `count`; beyond 2,000 the vectors repeat in another order, which costs the scan the same."""
    drawn = unit(rng, (DRAWN, len(windows), index.size), 7).astype(index.manifest.dtype)
    numbers = range(len(index), count)
    index.add(VideoWindows(f"v{n}", 30.0, windows, drawn[rng.integers(DRAWN)]) for n in numbers)


def measure(index: ScanIndex, rng, sizes, memory: float, repeats: int) -> list[dict]:
    start = time.perf_counter()
    opened = ScanIndex(index.folder)
    opening = time.perf_counter() - start
    stored = opened.bytes()
    rows = []
    for batch in (1, 32):
        queries = unit(rng, (batch, index.size), sizes.concepts)
        start = time.perf_counter()
        opened.search(queries, 10)
        first = time.perf_counter() - start
        found = statistics.median(times(lambda q=queries: opened.search(q, 10), repeats))
        rows.append(
            {
                "videos": len(opened),
                "dtype": opened.manifest.dtype,
                "batch": batch,
                "threads": torch.get_num_threads(),
                "index_MB": round(stored / 1e6, 1),
                "open_ms": round(1e3 * opening, 2),
                "first_search_s": round(first, 4),
                "s_per_query": round(found / batch, 5),
                "scan_GB_per_s": round(stored / found / 1e9, 2),
                "memory_GB_per_s": round(memory / 1e9, 2),
                "share_of_memory": round(stored / found / memory, 3),
                "peak_memory_MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
                "torch": torch.__version__,
            }
        )
        print(rows[-1])
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("latency", "corpus"))
    parser.add_argument("--videos", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--folder", type=Path, help="where the collections are written (up to 17 GB)")
    parser.add_argument("--dtypes", nargs="+", default=["float16", "float32"])
    parser.add_argument("--repeats", type=int, default=0)
    options = parser.parse_args()
    if options.what == "latency":
        latency(options.repeats or 100)
    else:
        corpus(sorted(options.videos), options.dtypes, options.folder, options.repeats or 5)
