"""CDN's speed: training step and inference at the size of Charades-STA, and the ways to convolve a sparse map.

    uv run python benchmarks/cdn_speed.py [--device cuda] [--threads 1] [--quick]

Seconds are the median of the repetitions, by the clock and of processor time: where they differ by more than the
threads, the machine had something else to do. The layer is one of the size of TACoS (128 x 128 cells, 512 channels,
kernel 5), forward; "plain" is ``conv2d`` over the full map.
"""

import argparse
import os
from itertools import pairwise

import numpy as np
import torch
from recording import machine, measured_here, write_rows
from timing import median, repeated
from torch.nn import functional as F

from cdn.config import DecodeConfig, LossConfig, ModelConfig
from cdn.data import Dataset, Preprocessor
from cdn.method import CDNMethod
from cdn.model import CDN
from cdn.proposal_map import valid_cells
from vmr_common.text.vectors import WordVectors
from vmr_common.types import Query
from vmr_train.config import OptimConfig
from vmr_train.device import autocast, select_device
from vmr_train.layers.sparse_map_conv import convolve_rows, kernel_rows
from vmr_train.layers.sparse_map_plan import SparseMapIndex, map_weights, needed_cells
from vmr_train.method import Progress, to_device
from vmr_train.optim import build_optimizer
from vmr_train.word_lookup import WordLookup

COLUMNS = ("case", "device", "threads", "precision", "batch", "ms", "cpu_ms", "torch")
WORDS = WordVectors(tuple("abcdefgh"), np.random.default_rng(0).normal(size=(8, 300)).astype(np.float32))


def measured(run, device, repeats):
    clock, processor = median(repeated(run, repeats, device))
    return {"ms": f"{1000 * clock:.4g}", "cpu_ms": f"{1000 * processor:.4g}"}


def layer_cases(device, precision, repeats, quick):
    clips, scales, dim = (64, [16, 8, 8], 64) if quick else (128, [16, 8, 8, 8], 512)
    cells = valid_cells(clips, scales)
    weights = map_weights(cells, 5, 8)
    live = [cells, *(weights > 0)]
    needed = [cells, *needed_cells(cells, weights, 5, {0, 1, 2})]
    weight = torch.randn(dim, dim, 5, 5, device=device)
    full = torch.randn(1, dim, clips, clips, device=device)
    for mode, sets in (("training", live), ("evaluation", needed)):
        for way in ("plain", "gather", "tiles"):
            plans = (
                []
                if way == "plain"
                else [
                    SparseMapIndex(inputs, outputs, 5, way=way).to(device)
                    for inputs, outputs in pairwise(sets)
                ]
            )
            rows = [full.permute(2, 3, 0, 1)[plan.inputs] for plan in plans]

            def run(plans=plans, rows=rows):
                with torch.no_grad(), autocast(device, precision):
                    for plan, given in zip(plans, rows, strict=True):
                        convolve_rows(given, kernel_rows(weight), plan)
                    for _ in range(0 if plans else len(weights)):
                        F.conv2d(full, weight, padding=2)

            if way == "plain" and mode == "evaluation":
                continue
            yield {"case": f"8 map layers, {mode}: {way}", "batch": 1, **measured(run, device, repeats)}


def make_method(device, batch_size, quick):
    rng = np.random.default_rng(1)
    queries = [
        Query(
            id=str(n),
            video=f"v{n % max(batch_size // 2, 1)}",
            text="a b c d e f",
            duration=30.0,
            moments=[[5, 12]],
        )
        for n in range(batch_size)
    ]
    features = {query.video: rng.normal(size=(256, 4096)).astype(np.float32) for query in queries}
    torch.manual_seed(0)
    config = ModelConfig(hidden=64) if quick else ModelConfig()
    model = CDN(config, frame_dim=4096, word_dim=300).to(device)
    method = CDNMethod(model, LossConfig(beta=0.1), DecodeConfig(), Preprocessor(WORDS))
    return method, Dataset(queries, features, WordLookup(WORDS), clips=16).batch(range(batch_size), 1)


def model_cases(device, precision, batch_size, repeats, quick):
    method, batch = make_method(device, batch_size, quick)
    given, progress = to_device(batch, device), Progress(update=0, epoch=1, epochs=1)
    optimizer = build_optimizer(method.model, OptimConfig())

    def step():
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, precision):
            loss = method.loss(given, progress)["total"]
        loss.backward()
        optimizer.step()

    def predict():
        with torch.no_grad(), autocast(device, precision):
            method.predict(given)

    method.model.train()
    yield {"case": "training step, Charades-STA", "batch": batch_size, **measured(step, device, repeats)}
    method.model.eval()
    predict()
    yield {
        "case": "inference, videos known, Charades-STA",
        "batch": batch_size,
        **measured(predict, device, repeats),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--precision", nargs="+", default=["fp32"])
    parser.add_argument("--batch", type=int, default=0, help="queries (default 4 on the CPU, else 32)")
    parser.add_argument("--repeats", type=int, default=0, help="repetitions (default 3 on the CPU, else 20)")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing is written")
    options = parser.parse_args()
    device = select_device(options.device)
    batch_size = options.batch or (4 if device.type == "cpu" else 32)
    repeats = options.repeats or (1 if options.quick else 3 if device.type == "cpu" else 20)
    rows = []
    for threads in options.threads if device.type == "cpu" else [1]:
        torch.set_num_threads(threads)
        for precision in options.precision:
            for cases in (
                layer_cases(device, precision, repeats, options.quick),
                model_cases(device, precision, batch_size, repeats, options.quick),
            ):
                for row in cases:
                    about = {"device": machine(device), "threads": threads, "precision": precision}
                    rows.append({**about, "torch": torch.__version__, **row})
                    print(
                        "  ".join(f"{key} {rows[-1][key]}" for key in COLUMNS if rows[-1].get(key)),
                        flush=True,
                    )
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    if not options.quick:
        write_rows(measured_here("cdn", device), rows, COLUMNS)


if __name__ == "__main__":
    main()
