"""RGNet: seconds for a query over long videos at the sizes of MAD, and the memory it takes, on this machine.

    uv run python benchmarks/rgnet_speed.py [--hours 1 2] [--threads 1 2] [--coarse 20] [--no-plain]

Writes benchmarks/results/rgnet-<processor>.csv. Every row is a process of its own, so that its peak memory is its
own; the plain form (every window padded into a batch, every window decoded, nothing kept of the video) runs in the
same process after it.
The model has random weights (time does not depend on them). Seconds are by the clock and of processor time: where
they differ by more than the threads, the machine had something else to do.
"""

import argparse
import json
import os
import resource
import subprocess
import sys

import numpy as np
import torch
from recording import measured_here, write_rows
from timing import median, timed

from rgnet.config import Config
from rgnet.model import Frames, RGNet, Tokens
from rgnet.search.search import LongVideoSearch, TextVectors
from rgnet.windows import video_windows
from vmr_train.cli.config import bundled_config

TOKENS, FOLLOWING = 12, 3


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def model_of(config: Config) -> RGNet:
    torch.manual_seed(0)
    data = config.data
    return RGNet(config.model, frame_dim=data.features.dim, token_dim=data.queries.token_dim).eval()


def query(config: Config, seed: int) -> TextVectors:
    rng = np.random.default_rng(seed)
    tokens, sentence = (
        torch.from_numpy(rng.normal(size=shape).astype(np.float32))
        for shape in ((TOKENS, config.data.queries.token_dim), config.data.features.dim)
    )
    return TextVectors(tokens / tokens.norm(dim=-1, keepdim=True), sentence / sentence.norm())


@torch.no_grad()
def plain(model: RGNet, config: Config, features: torch.Tensor, text: TextVectors) -> None:
    windows, at_once = video_windows(len(features), config.data.window), config.search.window_batch_size
    for start in range(0, len(windows), at_once):
        some = windows[start : start + at_once].tolist()
        frames = torch.zeros(len(some), config.data.window, features.shape[1])
        mask = torch.zeros(frames.shape[:2], dtype=torch.bool)
        for row, (first, length) in enumerate(some):
            frames[row, :length], mask[row, :length] = features[first : first + length], True
        model(Tokens.padded([text.tokens] * len(some)), Frames(frames, mask))


def case(hours: float, threads: int, coarse: int, with_plain: bool) -> dict:
    torch.set_num_threads(threads)
    config = bundled_config("rgnet", Config, "mad", "--search.coarse_windows", str(coarse))
    model = model_of(config)
    rows = round(hours * 3600 / config.data.stride)
    features = torch.from_numpy(
        np.random.default_rng(0).normal(size=(rows, config.data.features.dim)).astype(np.float32)
    )
    search = LongVideoSearch(
        model, config.search, window=config.data.window, feature_stride=config.data.stride
    )
    search.search(
        [(search.prepare(features[:2000], features[:2000]), query(config, 0))]
    )  # torch's own first use
    before = peak_mb()
    video, preparing = timed(lambda: search.prepare(features, features))
    _, first = timed(lambda: search.search([(video, query(config, 1))]))
    following = median(
        [timed(lambda n=n: search.search([(video, query(config, n))]))[1] for n in range(2, 2 + FOLLOWING)]
    )
    row = {
        "hours": hours,
        "rows": rows,
        "windows": len(video.windows),
        "examined": coarse or len(video.windows),
        "decoded": config.search.windows,
        "threads": threads,
        "prepare_s": round(preparing.clock, 2),
        "first_query_s": round(preparing.clock + first.clock, 2),
        "following_s": round(following.clock, 2),
        "following_cpu_s": round(following.processor, 2),
        "peak_mb_over_features": round(peak_mb() - before),
        "plain_s": "",
        "plain_cpu_s": "",
        "plain_cpu_over_following": "",
        "torch": torch.__version__,
    }
    if with_plain:
        _, whole = timed(lambda: plain(model, config, features, query(config, 1)))
        row |= {
            "plain_s": round(whole.clock, 2),
            "plain_cpu_s": round(whole.processor, 2),
            "plain_cpu_over_following": round(whole.processor / row["following_cpu_s"], 2),
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=float, nargs="+", default=[1, 2])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--coarse", type=int, nargs="*", default=[])
    parser.add_argument("--no-plain", action="store_true")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(case(*options.case)))
        return
    rows = []
    for threads in options.threads:
        for hours in options.hours:
            for coarse in (0, *options.coarse):
                wanted = json.dumps([hours, threads, coarse, not options.no_plain and not coarse])
                done = subprocess.run(
                    [sys.executable, __file__, "--case", wanted],
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                    env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                )
                rows.append(json.loads(done.stdout))
                print(rows[-1])
    write_rows(measured_here("rgnet"), rows)


if __name__ == "__main__":
    main()
