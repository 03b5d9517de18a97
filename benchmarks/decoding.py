"""Speed and memory of taking frames from video files, against PyAV's bare loop of decoding.

    uv run python benchmarks/decoding.py [--files a.mp4 b.mp4]

- `speed`: seconds of PyAV's loop that decodes every picture, over those of taking one frame a second at 224 pixels by
  `vmr_video.frames`, both with one thread and in turns; `pictures` is the same without the scaling of the frames that
  are taken. Videos are made on the spot (1280 x 720, with and without B-frames), or named.
- `memory`: the most resident MB of the process that decodes and of the one that takes the frames, after the first
  thousand seconds of a video of three hours and at its end.
- `short`: milliseconds per video of a second, a thousand of them, with one process that decodes.

Results go to ``benchmarks/results/decoding-<processor>.csv``.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from recording import measured_here, write_rows
from timing import timed

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from videos import Pictures, pictures, write_video
from vmr_video.decoding import Failed, decode_all
from vmr_video.frames import FrameReader
from vmr_video.media import opened
from vmr_video.recipe import FrameRecipe
from vmr_video.scaling import Scaler

HEADER = ("case", "video", "what", "median", "least", "most")
RECIPE = FrameRecipe(fps=1)


def again(frames, count):
    """So many pictures, the same few over and over."""
    return Pictures(lambda place: frames[place % len(frames)], count)


def bare(path):
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        stream.codec_context.thread_count = 1
        return sum(1 for _ in file.decode(stream))


def ours(path):
    with opened(path) as video:
        return sum(len(part) for part in FrameReader(video, RECIPE, 32))


def unscaled(path):
    """Ours, with one frame for all pictures."""
    scale, one = Scaler.__call__, np.zeros((224, 224, 3), np.uint8)
    Scaler.__call__ = lambda self, picture: one
    try:
        return ours(path)
    finally:
        Scaler.__call__ = scale


def speed(path, rounds):
    bare(path), ours(path)
    ratios = {"speed": [], "pictures": []}
    for _ in range(rounds):
        base = timed(lambda: bare(path))[1]
        ratios["speed"].append(base.processor / timed(lambda: ours(path))[1].processor)
        ratios["pictures"].append(base.processor / timed(lambda: unscaled(path))[1].processor)
    for case, found in ratios.items():
        yield row(case, path.name, "bare / ours, processor time", found)


def row(case, video, what, found):
    figures = {"median": statistics.median(found), "least": min(found), "most": max(found)}
    return {"case": case, "video": video, "what": what} | {k: round(v, 3) for k, v in figures.items()}


def resident(process):
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def decoders():
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if words[1] == str(os.getpid()):
            found.append(int(status.parent.name))
    return found


def memory(path):
    seen = {"taking": [], "decoding": []}
    for piece in decode_all([("long", path)], RECIPE, workers=1, chunk=32, time_limit=60):
        seen["taking"].append(resident(os.getpid()))
        seen["decoding"] += [resident(process) for process in decoders()]
        assert not isinstance(piece, Failed), piece
    for name, found in seen.items():
        part = len(found) * 1000 // 10_800
        yield row("memory", path.name, f"MB, {name}, first 1,000 s", found[:part])
        yield row("memory", path.name, f"MB, {name}, the rest", found[part:])


def short(folder, count, rounds):
    whole = write_video(folder / "second.mp4", pictures(10), rate=10).read_bytes()
    videos = [(f"{n:04d}", folder / f"{n:04d}.mp4") for n in range(count)]
    for _, path in videos:
        path.write_bytes(whole)
    found = []
    for _ in range(rounds):
        pieces = decode_all(videos, RECIPE, workers=1, chunk=32, time_limit=60)
        found.append(timed(lambda pieces=pieces: list(pieces))[1].clock / count * 1000)
    return row("short", "1 s", "ms per video, clock", found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--files", type=Path, nargs="*", default=[], help="videos beside those that are made")
    parser.add_argument("--short", type=int, default=1000, help="short videos")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder, large = Path(name), again(pictures(50, 1280, 720), 300)
        made = {
            "b-frames.mp4": {"preset": "veryfast", "crf": "28"},
            "no-b-frames.mp4": {"preset": "ultrafast"},
        }
        for title, coded in made.items():
            options.files.append(write_video(folder / title, large, rate=25, options=coded))
        for path in options.files:
            rows += speed(path, options.rounds)
            print(*rows[-2:], sep="\n", flush=True)
        low = {"preset": "ultrafast", "crf": "35"}
        hours = write_video(
            folder / "three-hours.mp4", again(pictures(60, 320, 240), 10_800), rate=1, options=low
        )
        rows += memory(hours)
        rows.append(short(folder, options.short, 3))
        print(*rows[-5:], sep="\n")
    write_rows(measured_here("decoding"), rows, HEADER)


if __name__ == "__main__":
    main()
