"""Speed of extracting features against the bare network, and of many short videos.

    uv run python benchmarks/extraction.py

Three cases on the processor, with a CLIP ViT-B/32 of random weights (the size is what costs):

- `extraction`: frames per second of `vmr_video.pipeline.extract` over videos of 640 x 360 at 25 pictures a second, of
  which one or two a second are taken, against the bare network on frames that are in memory already, with one thread
  of the network and with two. Decoding runs in one worker process beside it.
- `decoding`: frames per second of the same decoding alone, in this process: what would be added without workers.
- `short`: videos of two seconds, a thousand by default, through the whole command with a tiny network: videos a second.

Best of several rounds taken in turns, by the clock; `processor_ratio` is that of processor time of the process that
holds the network, which a busy machine changes little, `processor_ms` that time per frame, and `load` how many
processes wanted a processor meanwhile: ratios by the clock hold where it is at most the number of processors.
Results go to ``benchmarks/results/extraction-<processor>.csv``.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from recording import measured_here, write_rows
from timing import timed

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import tiny_networks
from videos import Pictures, write_video
from vmr_video.cli.extract import main as command
from vmr_video.extractor import FEATURES, ExtractorOptions, kind_of
from vmr_video.frames import frames
from vmr_video.networks.weights import quiet
from vmr_video.pipeline import BATCH, extract

HEADER = (
    "case",
    "fps",
    "threads",
    "frames",
    "bare_per_s",
    "ours_per_s",
    "ratio",
    "processor_ratio",
    "processor_ms",
    "load",
)


def clip_b32(folder):
    with quiet():
        hf.CLIPModel(hf.CLIPConfig()).save_pretrained(folder)
    return folder


def film(path, seconds, width=640, height=360, rate=25):
    """A gradient that moves, and a little noise, so that it costs about what a real video does."""
    drawn = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    noise = drawn.integers(0, 8, (8, height, width, 3))

    def picture(n):
        base = np.stack([(x + 2 * n) % 256, (y + n) % 256, (x + y) % 256], axis=-1)
        return np.clip(base + noise[n % 8], 0, 255).astype(np.uint8)

    return write_video(path, Pictures(picture, seconds * rate), rate=rate)


def speed(folder, fps, threads, rounds, length):
    torch.set_num_threads(threads)
    extractor = kind_of("clip-vit-b32").load(
        ExtractorOptions(weights=str(folder / "clip"), fps=fps, device="cpu")
    )
    videos = [(name, folder / f"{name}.mp4") for name in ("one", "two")]
    for _, path in videos:
        if not path.exists():
            film(path, length)
    taken = {name: np.concatenate(list(frames(path, extractor.recipe))) for name, path in videos}
    count = sum(map(len, taken.values()))

    def bare():
        for whole in taken.values():
            for start in range(0, len(whole), BATCH):
                extractor(whole[start : start + BATCH], 0, 0)

    def ours():
        found = list(extract(extractor, videos, workers=1))
        assert sum(len(one.rows[FEATURES]) for one in found) == count

    bare()
    times = [[timed(run)[1] for run in (bare, ours)] for _ in range(rounds)]
    clock = [min(row[place].clock for row in times) for place in (0, 1)]
    processor = [min(row[place].processor for row in times) for place in (0, 1)]
    alone = [
        timed(lambda: [list(frames(path, extractor.recipe)) for _, path in videos])[1] for _ in range(rounds)
    ]
    common = {"fps": fps, "threads": threads, "frames": count, "load": os.getloadavg()[0]}
    return [
        common
        | {"case": "extraction", "bare_per_s": count / clock[0], "ours_per_s": count / clock[1]}
        | {"ratio": clock[0] / clock[1], "processor_ratio": processor[0] / processor[1]}
        | {"processor_ms": 1000 * processor[1] / count},
        common
        | {"case": "decoding", "ours_per_s": count / min(run.clock for run in alone)}
        | {"processor_ms": 1000 * min(run.processor for run in alone) / count},
    ]


def short(folder, count):
    tiny_networks.clip(folder / "tiny")
    (folder / "short").mkdir()
    whole = film(folder / "short" / "0000.mp4", 2, 320, 240).read_bytes()
    for n in range(1, count):
        (folder / "short" / f"{n:04d}.mp4").write_bytes(whole)
    options = ["--weights", folder / "tiny", "--device", "cpu", "--out", folder / "short.h5"]
    status, took = timed(lambda: command(list(map(str, [folder / "short", *options]))))
    assert status == 0
    return {"case": "short", "fps": 1, "threads": 1, "frames": count, "ours_per_s": count / took.clock}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fps", type=int, nargs="+", default=[1, 2], help="frames per second that are taken")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of the network")
    parser.add_argument("--seconds", type=int, default=60, help="length of a video")
    parser.add_argument("--short", type=int, default=1000, help="short videos")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip_b32(folder / "clip")
        for threads in options.threads:
            for fps in options.fps:
                rows += speed(folder, fps, threads, options.rounds, options.seconds)
                print(*rows[-2:], sep="\n", flush=True)
        torch.set_num_threads(1)
        rows.append(short(folder, options.short))
        print(rows[-1])
    rounded = [{k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    write_rows(measured_here("extraction"), rounded, HEADER)


if __name__ == "__main__":
    main()
