"""Where the constants of the baseline `zero-shot` come from: simulated similarities, and what a query costs.

    uv run python benchmarks/zero_shot.py

Prints, for several constants, how often the first moment overlaps the true one by half (and the mean overlap), for
three kinds of similarities at four lengths of videos; then seconds per query of films. No data set
has a say in the rule, and nothing is kept.
"""

import time

import numpy as np
from numpy.typing import NDArray

from vmr_common.evaluation import zero_shot
from vmr_common.metrics import iou

Array = NDArray[np.float64]
SCENES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3)
# rows, seconds per row, rows of the shortest and of the longest moment, rows that similarities last, height of a moment
VIDEOS = {
    "30 s": (30, 1.0, 5, 14, 3.0, 2.0),
    "150 s": (75, 2.0, 5, 40, 5.0, 2.0),
    "5 min": (300, 1.0, 5, 40, 10.0, 2.5),
    "12 min": (3600, 0.2, 10, 100, 25.0, 3.0),
}


def similarities(kind: str, rows: int, lasting: float, drawn: np.random.Generator) -> Array:
    """White noise; with what changes slowly; with scenes that differ."""
    white = drawn.standard_normal(rows)
    if kind == "white":
        return white
    keep, slow, value = np.exp(-1 / lasting), np.empty(rows), drawn.standard_normal()
    for row, step in enumerate(drawn.standard_normal(rows) * np.sqrt(1 - keep**2)):
        value = keep * value + step
        slow[row] = value
    if kind == "slow":
        return 0.6 * white + 0.8 * slow
    cuts = np.sort(drawn.integers(0, rows, max(2, round(rows / lasting / 2))))
    levels = drawn.standard_normal(len(cuts) + 1)
    return 0.5 * white + 0.4 * slow + 0.8 * levels[np.searchsorted(cuts, np.arange(rows), side="right")]


def overlaps(kind: str, video: tuple[int, float, int, int, float, float], count: int) -> Array:
    """Of the first moment with the true one, of `count` videos."""
    rows, stride, least, most, lasting, height = video
    drawn, found = np.random.default_rng(0), []
    for _ in range(count):
        values = similarities(kind, rows, lasting, drawn)
        length = int(drawn.integers(least, most))
        start = int(drawn.integers(0, rows - length + 1))
        values[start : start + length] += height * values.std()
        cosines = np.clip(0.25 + 0.02 * values, -1, 1)  # as CLIP's
        frames = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)
        moments, _ = zero_shot.zero_shot_moments(frames, np.array([1.0, 0.0]), stride, rows * stride, 1)
        found.append(float(iou(moments[0], [start * stride, (start + length) * stride])))
    return np.array(found)


def main() -> None:
    print(f"{'R@1 at IoU 0.5 / mIoU, %':26}" + "".join(f"{f'{scene:g}':>10}" for scene in SCENES))
    for name, video in VIDEOS.items():
        for kind in ("white", "slow", "scenes"):
            cells = []
            for scene in SCENES:
                zero_shot._SCENE = scene
                zero_shot._grid.cache_clear()
                found = overlaps(kind, video, 200 if video[0] < 1000 else 40)
                cells.append(f"{100 * (found >= 0.5).mean():.0f} / {100 * found.mean():.0f}")
            print(f"{name:10}{kind:16}" + "".join(f"{cell:>10}" for cell in cells))
    zero_shot._SCENE = 0.1
    zero_shot._grid.cache_clear()
    drawn = np.random.default_rng(0)
    for hours in (1, 3, 10):
        rows = hours * 18_000
        frames = drawn.standard_normal((rows, 512)).astype(np.float32)
        times = []
        for _ in range(6):
            begin = time.process_time()
            sentence = drawn.standard_normal(512).astype(np.float32)
            zero_shot.zero_shot_moments(frames, sentence, 0.2, rows * 0.2)
            times.append(time.process_time() - begin)
        print(
            f"{hours:2} h at 5 frames per second: {1000 * np.median(times[1:]):.0f} ms per query, one thread"
        )


if __name__ == "__main__":
    main()
