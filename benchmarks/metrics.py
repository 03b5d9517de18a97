"""Speed of the evaluation protocols against loops over queries that follow the same conventions.

    uv run python benchmarks/metrics.py            # every case, about two minutes
    uv run python benchmarks/metrics.py --quick    # a tenth of the queries

Each loop handles one query at a time with small numpy arrays, as the field's evaluation programs do, and must
give the same figures as `vmr_common`. Seconds are processor time of one thread, so that a busy machine
does not matter; set OMP_NUM_THREADS=1. Ours starts from the same arrays; the rows
"from records" start from lists of `Query` and `Prediction`, as `vmr-score` does. Results go to
``benchmarks/results/metrics-<processor>.csv``.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
from plain.scoring_program import clips_precision, hull_overlap, suppressed, true_overlap, windows_precision
from recording import measured_here, write_rows
from timing import timed

from rgnet import window_metrics
from vmr_common import evaluation as protocols
from vmr_common import metrics
from vmr_common.evaluation.qvhighlights import AVERAGED
from vmr_common.types import Prediction, Query
from vmr_train import map_proposals

COLUMNS = ("case", "queries", "windows", "loop_s", "ours_s", "ratio", "peak_mb")


def packed(rng, queries, windows, targets=1, duration=150.0):
    """Random targets, and windows scattered around them, best first."""
    truth = np.sort(rng.random((queries, targets, 2)), axis=-1) * duration
    noise = rng.normal(scale=12.0, size=(queries, windows, 2)) * np.linspace(0.3, 3, windows)[:, None]
    moments = np.sort(truth[:, :1] + noise, axis=-1)
    return protocols.Packed(
        truth=truth,
        num_truth=np.full(queries, targets),
        duration=np.full(queries, duration),
        moments=moments,
        scores=np.tile(np.linspace(1, 0, windows), (queries, 1)),
        counts=np.full(queries, windows),
        given=np.ones(queries, dtype=bool),
    )


def records(arrays):
    queries = [
        Query(id=str(n), video="v", text="", duration=float(duration), moments=moments)
        for n, (duration, moments) in enumerate(zip(arrays.duration, arrays.truth, strict=True))
    ]
    predictions = [
        Prediction(query=str(n), video="v", moments=moments, scores=scores)
        for n, (moments, scores) in enumerate(zip(arrays.moments, arrays.scores, strict=True))
    ]
    return queries, predictions


def loop_recall(arrays, protocol, dtype=np.float64):
    """Recall at n of the hull family, query by query."""
    counts = {(rank, threshold): 0 for rank in protocol.ranks for threshold in protocol.thresholds}
    for moments, truth, duration in zip(arrays.moments, arrays.truth, arrays.duration, strict=True):
        windows, target = moments.astype(dtype), truth[0].astype(dtype)
        if protocol.clamp_gt:
            target = np.clip(target, 0, duration)
        if protocol.nms is not None:
            windows = windows[suppressed(windows, protocol.nms, max(protocol.ranks))]
        overlap = hull_overlap(windows, target)
        for rank, threshold in counts:
            counts[rank, threshold] += bool((overlap[:rank] > dtype(threshold)).any())
    return {f"R@{n},IoU@{m:g}": count / len(arrays) for (n, m), count in counts.items()}


def loop_qvhighlights(arrays, thresholds, low=-np.inf, high=np.inf):
    """Recall at 1 and average precision over targets of one length, query by query."""
    recalls, precisions, queries = np.zeros(len(thresholds)), np.zeros(len(thresholds)), 0
    for windows, truth in zip(arrays.moments, arrays.truth, strict=True):
        length = truth[:, 1] - truth[:, 0]
        truth = truth[(length > low) & (length <= high)]
        if not len(truth):
            continue
        queries += 1
        best = max(true_overlap(windows[:1], target)[0] for target in truth)
        recalls += [best >= threshold for threshold in thresholds]
        precisions += windows_precision(windows, truth)
    return recalls / queries, precisions / queries


def loop_highlights(scores, labels):
    """Step-averaged precision, query by query and annotator by annotator."""
    found = np.zeros(labels.shape[:2])
    for row, (values, annotators) in enumerate(zip(scores, labels, strict=True)):
        for column, relevant in enumerate(annotators):
            found[row, column] = clips_precision(values, relevant)
    return found


def loop_map(scores, cells, windows, limit, threshold):
    """Best proposals of score maps ``(N, T, T)``, query by query: sort all, then suppress."""
    kept = []
    for score in scores:
        values = score[cells[:, 0], cells[:, 1]]
        order = np.argsort(-values, kind="stable")
        kept.append(order[suppressed(windows[order], threshold, limit)])
    return np.array(kept)


def measured(function, repeats=3):
    """The median of its seconds, and what it gives."""
    results, runs = zip(*(timed(function) for _ in range(repeats)), strict=True)
    return statistics.median(run.processor for run in runs), results[-1]


def same(ours, theirs):
    for key, value in theirs.items():
        assert abs(ours[key] - value) < 1e-6, (key, ours[key], value)


def recall_case(name, protocol, queries, windows, dtype=np.float64):
    arrays = packed(np.random.default_rng(0), queries, windows)
    loop, expected = measured(lambda: loop_recall(arrays, protocol, dtype), 1)
    ours, found = measured(lambda: protocol.score_packed(arrays))
    same(found.values, expected)
    lists = records(arrays)
    from_records, _ = measured(lambda: protocol.score(*lists))
    yield name, queries, windows, loop, ours
    yield f"{name}, from records", queries, windows, loop, from_records


def qvhighlights_case(queries):
    protocol = protocols.protocol("qvhighlights")
    arrays = packed(np.random.default_rng(1), queries, 10, targets=3)
    spans = {"": (), "short ": (0, 10), "middle ": (10, 30), "long ": (30, 150)}

    def loops():
        return {name: loop_qvhighlights(arrays, AVERAGED, *span) for name, span in spans.items()}

    loop, expected = measured(loops, 1)
    ours, found = measured(lambda: protocol.per_query_packed(arrays))
    for name, (recalls, precisions) in expected.items():
        for column, threshold in enumerate(AVERAGED):
            assert abs(np.nanmean(found[f"{name}R@1,IoU@{threshold:g}"]) - recalls[column]) < 1e-9
            assert abs(np.nanmean(found[f"{name}mAP,IoU@{threshold:g}"]) - precisions[column]) < 1e-9
    yield "QVHighlights moments, four lengths", queries, 10, loop, ours
    rng = np.random.default_rng(2)
    scores, labels = rng.random((queries, 75)), rng.random((queries, 9, 75)) < 0.3
    loop, expected = measured(lambda: loop_highlights(scores, labels), 1)
    ours, found = measured(lambda: metrics.step_precision(scores, labels))
    np.testing.assert_allclose(found, expected)
    yield "QVHighlights highlights, 3 annotators x 3", queries, 75, loop, ours


def map_case(queries, size=128, limit=5):
    rng = np.random.default_rng(3)
    cells, windows = map_proposals.map_proposals(size)
    # smooth maps with a few peaks, as a trained network gives them, and 64 distinct ones
    place = np.arange(size)
    base = np.zeros((64, size, size), dtype=np.float32)
    for peak in rng.integers(size, size=(6, 64, 2)):
        near = (place[:, None] - peak[:, :1, None]) ** 2 + (place - peak[:, 1:, None]) ** 2
        base += np.exp(-near / rng.uniform(20, 400)) * rng.random((64, 1, 1))
    scores = base[rng.integers(64, size=queries)] + rng.random((queries, size, size), dtype=np.float32) * 1e-3
    loop, expected = measured(lambda: loop_map(scores, cells, windows, limit, 0.5), 1)

    def ours():
        return map_proposals.top_proposals(scores, windows, 0.5, limit=limit, cells=cells)[0]

    seconds, found = measured(ours)
    np.testing.assert_array_equal(found, expected)
    yield f"{size} x {size} map, {limit} kept", queries, len(cells), loop, seconds


def window_case(queries):
    rng = np.random.default_rng(4)
    ranked = np.argsort(rng.random((queries, 75)), axis=1)
    moments = np.sort(rng.random((queries, 2)), axis=1) * 2000
    options = {"clip_length": 16 / 30, "window_clips": 90}
    ranks = (1, 5, 10, 20, 30, 50)

    def loop():
        counts = dict.fromkeys(ranks, 0)
        for order, (start, end) in zip(ranked.tolist(), moments.tolist(), strict=True):
            first, last = int(start / (16 / 30) // 45), -int(-end / (16 / 30) // 45)
            for rank in ranks:
                counts[rank] += any(first <= window <= last for window in order[:rank])
        return [count / queries for count in counts.values()]

    def ours():
        return window_metrics.window_recall(
            ranked, window_metrics.positive_windows(moments, **options), ranks
        )

    slow, expected = measured(loop, 1)
    fast, found = measured(ours)
    np.testing.assert_allclose(found, expected)
    yield "window recall", queries, 75, slow, fast


def whole_mad(queries=72_044, windows=100):
    """Seconds and peak memory of the whole MAD test split, in a process of its own."""
    arrays = packed(np.random.default_rng(5), queries, windows, duration=6000.0)
    lists = records(arrays)
    del arrays
    begin = time.perf_counter()
    protocols.protocol("mad").score(*lists)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{seconds:.3f} {peak:.0f}")


def cases(scale):
    yield from recall_case("proposal-map, NMS 0.5", protocols.protocol("proposal-map"), scale(17_031), 10)
    yield from recall_case(
        "ego4d-nlq", replace(protocols.protocol("ego4d-nlq"), ranks=(1, 5, 10, 50, 100)), scale(4_001), 100
    )
    yield from recall_case("mad", protocols.protocol("mad"), scale(4_001), 100, np.float32)
    yield from qvhighlights_case(scale(1_550))
    yield from map_case(scale(4_000))
    yield from window_case(scale(4_001))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the queries")
    parser.add_argument("--whole-mad", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.whole_mad:
        whole_mad()
        return
    rows = []
    print(f"{'case':40} {'queries':>8} {'windows':>8} {'loop s':>8} {'ours s':>8} {'ratio':>6}")
    for name, queries, windows, loop, ours in cases(lambda n: n // 10 if options.quick else n):
        rows.append([name, queries, windows, f"{loop:.4f}", f"{ours:.4f}", f"{loop / ours:.1f}", ""])
        print(f"{name:40} {queries:8} {windows:8} {loop:8.3f} {ours:8.4f} {loop / ours:6.1f}", flush=True)
    command = [sys.executable, __file__, "--whole-mad"]
    seconds, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    rows.append(["mad, whole test split, from records", 72_044, 100, "", seconds, "", peak])
    print(f"mad, 72,044 queries of 100 windows, from records: {seconds} s, peak {peak} MB")
    if not options.quick:
        write_rows(measured_here("metrics"), [dict(zip(COLUMNS, row, strict=True)) for row in rows])


if __name__ == "__main__":
    main()
