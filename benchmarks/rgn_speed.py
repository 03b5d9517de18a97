"""RGN at the size of Charades-STA: training step, inference, FLOPs, and queries per second of the loader.

    uv run python benchmarks/rgn_speed.py [--device cuda] [--threads 1 2] [--quick]

Seconds are the median of the repetitions, by the clock and of processor time: where they differ by more than the
threads, the machine had something else to do.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from recording import machine, measured_here, write_rows
from timing import median, repeated

from rgn.config import LossConfig, ModelConfig
from rgn.data import Dataset
from rgn.method import RGNMethod
from rgn.model import RGN
from vmr_common.features.manifest import Manifest
from vmr_common.features.store import FeatureStore, write_features
from vmr_common.text.vectors import Vocabulary
from vmr_common.types import Query
from vmr_train.config import OptimConfig
from vmr_train.device import autocast, select_device
from vmr_train.flops import count_flops
from vmr_train.method import Progress, to_device
from vmr_train.optim import build_optimizer
from vmr_train.prepared import pooled_features
from vmr_train.preprocessing import Preprocessor

COLUMNS = (
    "case", "device", "threads", "precision", "batch", "clips", "frame_dim", "ms_per_query", "cpu_ms_per_query",
    "queries_per_s", "gflop_per_query", "peak_mb_per_query", "torch",
)  # fmt: skip
WORDS, WORD_DIM, CLASSES = 12, 300, 1112
NAMES = ["".join(chr(ord("a") + int(digit)) for digit in f"{n:04d}") for n in range(CLASSES - 1)]


def make_queries(count, videos):
    rng = np.random.default_rng(0)
    return [
        Query(
            id=str(n),
            video=f"v{n % videos}",
            text=" ".join(NAMES[k] for k in rng.integers(len(NAMES), size=WORDS)),
            duration=30.0,
            moments=[[5, 12]],
            glance=float(rng.uniform(5, 12)),
        )
        for n in range(count)
    ]


def make_examples(folder, *, clips, frame_dim, queries, videos):
    rng = np.random.default_rng(1)
    path = folder / f"{clips}-{frame_dim}.h5"
    if not path.exists():
        items = ((f"v{n}", rng.standard_normal((clips + 7, frame_dim), np.float32)) for n in range(videos))
        write_features(path, items, Manifest())
    vectors = np.concatenate([np.zeros((1, WORD_DIM)), rng.normal(size=(CLASSES - 1, WORD_DIM))]).astype(
        np.float32
    )
    examples = Dataset(
        make_queries(queries, videos),
        pooled_features(FeatureStore(path), clips),
        Preprocessor(Vocabulary(tuple(NAMES)), vectors),
        max_words=20,
        end_token=False,
        seed=0,
    )
    return examples, vectors


def make_task(device, frame_dim, vectors):
    torch.manual_seed(0)
    model = RGN(ModelConfig(), clip_dim=frame_dim, word_dim=WORD_DIM, classes=CLASSES)
    return RGNMethod(model.to(device), LossConfig(), Preprocessor(Vocabulary(tuple(NAMES)), vectors))


def measured(run, device, repeats, queries):
    """Milliseconds per query, by the clock and of processor time, and queries per second."""
    clock, processor = median(repeated(run, repeats, device))
    return {
        "ms_per_query": f"{1000 * clock / queries:.4g}",
        "cpu_ms_per_query": f"{1000 * processor / queries:.4g}",
        "queries_per_s": f"{queries / clock:.4g}",
    }


def model_cases(folder, device, threads, precision, batch_size, repeats):
    clips, frame_dim = 200, 1024
    examples, vectors = make_examples(folder, clips=clips, frame_dim=frame_dim, queries=batch_size, videos=8)
    task = make_task(device, frame_dim, vectors)
    optimizer = build_optimizer(task.model, OptimConfig(optimizer="cpl-adam", lr=4e-4))
    training = to_device(examples.batch(range(batch_size), 1), device)
    evaluation = to_device(examples.batch(range(batch_size), None), device)
    progress = Progress(update=0, epoch=1, epochs=30)

    def forward():
        with autocast(device, precision):
            return task.loss(training, progress)["total"]

    def step():
        optimizer.zero_grad(set_to_none=True)
        forward().backward()
        optimizer.step()

    def infer():
        with torch.no_grad(), autocast(device, precision):
            task.predict(evaluation)

    for case, train, counted, timed in (
        ("training step", True, forward, step),
        ("inference", False, infer, infer),
    ):
        task.model.train(train)
        with count_flops() as flops:
            counted()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        speed = measured(timed, device, repeats, batch_size)
        peak = torch.cuda.max_memory_allocated(device) / 2**20 / batch_size if device.type == "cuda" else None
        yield {
            "case": case,
            "threads": threads,
            "precision": precision,
            "batch": batch_size,
            "clips": clips,
            "frame_dim": frame_dim,
            **speed,
            "gflop_per_query": f"{flops() / batch_size / 1e9:.3f}",
            "peak_mb_per_query": "" if peak is None else f"{peak:.1f}",
        }


def loader_cases(folder, repeats, quick):
    """Batches from a warm cache: word masks drawn, words and pooled features collated, one core."""
    batch_size = 32
    for clips, frame_dim in ((64, 512), (64, 1024), (200, 512), (200, 1024)):
        queries = 512 if quick else 2048
        examples, _ = make_examples(folder, clips=clips, frame_dim=frame_dim, queries=queries, videos=64)

        def epoch(examples=examples, queries=queries):
            for start in range(0, queries, batch_size):
                examples.batch(range(start, start + batch_size), 1)

        yield {
            "case": "loader, warm cache",
            "threads": 1,
            "batch": batch_size,
            "clips": clips,
            "frame_dim": frame_dim,
            **measured(epoch, torch.device("cpu"), repeats, queries),
        }


def cases(folder, device, batch_size, repeats, options):
    torch.set_num_threads(1)
    yield from loader_cases(folder, repeats, options.quick)
    if options.loader_only:
        return
    for threads in options.threads if device.type == "cpu" else [1]:
        torch.set_num_threads(threads)
        for precision in options.precision:
            yield from model_cases(folder, device, threads, precision, batch_size, repeats)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument(
        "--batch", type=int, default=0, help="queries per step (default 8 on the CPU, else 32)"
    )
    parser.add_argument("--loader-only", action="store_true")
    parser.add_argument("--quick", action="store_true", help="few repetitions, nothing is written")
    options = parser.parse_args()
    device = select_device(options.device)
    batch_size = options.batch or (8 if device.type == "cpu" else 32)
    repeats = 2 if options.quick else (3 if device.type == "cpu" else 30)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for row in cases(Path(folder), device, batch_size, repeats, options):
            rows.append({"device": machine(device), "torch": torch.__version__, **row})
            print("  ".join(f"{key} {rows[-1][key]}" for key in COLUMNS if rows[-1].get(key)), flush=True)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    if not options.quick and not options.loader_only:
        write_rows(measured_here("rgn", device), rows, COLUMNS)


if __name__ == "__main__":
    main()
