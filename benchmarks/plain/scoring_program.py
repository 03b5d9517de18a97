"""Evaluation as the field's own programs do it: one process, one query after the other, small arrays, plain JSON.

    python scoring_program.py proposal-map MOMENTS.txt DURATIONS.csv PREDICTIONS.jsonl
    python scoring_program.py qvhighlights ANNOTATIONS.jsonl PREDICTIONS.jsonl
    python scoring_program.py mad ANNOTATIONS.json PREDICTIONS.jsonl

Prints one JSON object of fractions, named as `vmr-score --json` names them. It trusts its input.
"""

import csv
import json
import sys

import numpy as np


def predictions_of(path):
    with open(path) as file:
        rows = [json.loads(line) for line in file]
    return {str(row["qid"]): row for row in rows}


def hull_overlap(windows, target):
    shared = np.maximum(np.minimum(windows[:, 1], target[1]) - np.maximum(windows[:, 0], target[0]), 0)
    whole = np.maximum(windows[:, 1], target[1]) - np.minimum(windows[:, 0], target[0])
    return shared / whole


def true_overlap(windows, target):
    shared = np.maximum(np.minimum(windows[:, 1], target[1]) - np.maximum(windows[:, 0], target[0]), 0)
    return shared / (windows[:, 1] - windows[:, 0] + target[1] - target[0] - shared)


def suppressed(windows, threshold, limit):
    """Ranks that stay of one query's windows, best first."""
    gone = np.zeros(len(windows), dtype=bool)
    kept = []
    for rank in range(len(windows)):
        if gone[rank]:
            continue
        kept.append(rank)
        if len(kept) == limit:
            break
        gone[rank + 1 :] |= true_overlap(windows[rank + 1 :], windows[rank]) > threshold
    return kept


def recalls(cases, ranks, thresholds):
    """Recall at n and mean overlap at rank 1 of pairs (windows, target), compared in the windows' type."""
    counts = {(rank, threshold): 0 for rank in ranks for threshold in thresholds}
    total, means = 0, []
    for windows, target in cases:
        total += 1
        overlap = hull_overlap(windows, target)
        means.append(overlap[0])
        for rank, threshold in counts:
            counts[rank, threshold] += bool((overlap[:rank] > overlap.dtype.type(threshold)).any())
    values = {f"R@{rank},IoU@{threshold:g}": count / total for (rank, threshold), count in counts.items()}
    return values, float(np.mean(means))


def proposal_map(moments, durations, predictions):
    """The programs of 2D maps: targets cut to the video, suppression, the first five."""
    with open(durations) as file:
        lengths = {row["id"]: float(row["length"]) for row in csv.DictReader(file)}
    targets, numbers = {}, {}
    with open(moments) as file:
        for line in file:
            video, start, end = line.split("##", 1)[0].split()
            numbers[video] = numbers.get(video, -1) + 1
            target = float(start), min(float(end), lengths[video])
            if target[0] < target[1]:
                targets[f"{video}_{numbers[video]}"] = target
    found = predictions_of(predictions)

    def cases():
        for name, target in targets.items():
            windows = np.array(found[name]["pred_relevant_windows"])[:, :2]
            yield windows[suppressed(windows, 0.5, 5)], target

    values, mean = recalls(cases(), (1, 5), (0.1, 0.3, 0.5, 0.7))
    return {**values, "R@1,mIoU": mean}


def mad(annotations, predictions):
    """The programs of long films: a hundred windows of each query, in single precision."""
    with open(annotations) as file:
        rows = json.load(file)
    found = predictions_of(predictions)

    def cases():
        for name, row in rows.items():
            windows = np.array(found[name]["pred_relevant_windows"], dtype=np.float32)[:, :2]
            yield windows, np.array(row["timestamps"], dtype=np.float32)

    return recalls(cases(), (1, 5, 10, 50, 100), (0.1, 0.3, 0.5))[0]


THRESHOLDS = [round(0.5 + 0.05 * step, 2) for step in range(10)]
LENGTHS = {"": (-np.inf, np.inf), "short ": (0, 10), "middle ": (10, 30), "long ": (30, 150)}
LEVELS = {"Fair": 2, "Good": 3, "VeryGood": 4}


def windows_precision(windows, targets):
    """Average precision of ranked windows at every threshold; each target is claimed once."""
    overlaps = np.stack([true_overlap(windows, target) for target in targets], axis=1)
    precisions = []
    for threshold in THRESHOLDS:
        taken, correct = set(), []
        for row in overlaps:
            hit = False
            for target in np.argsort(row)[::-1].tolist():
                if row[target] < threshold:
                    break
                if target not in taken:
                    taken.add(target)
                    hit = True
                    break
            correct.append(hit)
        found = np.cumsum(correct)
        precision = found / np.arange(1, len(correct) + 1)
        for rank in range(len(precision) - 2, -1, -1):
            precision[rank] = max(precision[rank], precision[rank + 1])
        precisions.append(precision[np.array(correct, dtype=bool)].sum() / len(targets))
    return precisions


def clips_precision(scores, relevant):
    """Precision of ranked clips, averaged over the steps of its recall; 0 where no clip is relevant."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(relevant[order])[ends]
    precision = hits / (ends + 1)
    for rank in range(len(precision) - 2, -1, -1):
        precision[rank] = max(precision[rank], precision[rank + 1])
    rises = np.diff(hits, prepend=0) > 0
    return precision[rises].mean() if rises.any() else 0.0


def qvhighlights(annotations, predictions):
    """The program of QVHighlights: moments of four lengths, then highlights at three levels."""
    with open(annotations) as file:
        rows = [json.loads(line) for line in file]
    found = predictions_of(predictions)
    values = {}
    for name, (low, high) in LENGTHS.items():
        values.update(moments_of_length(rows, found, name, low, high))
    for name, level in LEVELS.items():
        values.update(highlights(rows, found, name, level))
    return {key: round(100 * float(value), 2) / 100 for key, value in values.items()}


def moments_of_length(rows, found, name, low, high):
    best, precisions = [], []
    for row in rows:
        targets = [target for target in row["relevant_windows"] if low < target[1] - target[0] <= high]
        if not targets:
            continue
        windows = found[str(row["qid"])]["pred_relevant_windows"]
        first = np.array(windows[:1])
        best.append(max(hull_overlap(first, target)[0] for target in targets))
        ranked = np.array(sorted(windows, key=lambda window: window[2], reverse=True)[:10])
        precisions.append(windows_precision(ranked, targets))
    means = np.mean(precisions, axis=0)
    values = {f"{name}R@1,IoU@{m:g}": np.mean([one >= m for one in best]) for m in THRESHOLDS}
    values |= {f"{name}mAP,IoU@{m:g}": mean for m, mean in zip(THRESHOLDS, means, strict=True)}
    return {**values, f"{name}mAP,mean": means.mean()}


def highlights(rows, found, name, level):
    precisions, best = [], []
    for row in rows:
        clips = int(row["duration"] / 2)
        scores = np.array(found[str(row["qid"])]["pred_saliency_scores"])
        labels = np.zeros((clips, 3))
        labels[row["relevant_clip_ids"]] = row["saliency_scores"]
        relevant = labels >= level
        best.append(relevant[scores.argmax()].any())
        precisions.append(np.mean([clips_precision(scores, relevant[:, one]) for one in range(3)]))
    return {f"HL-{name},mAP": np.mean(precisions), f"HL-{name},Hit@1": np.mean(best)}


if __name__ == "__main__":
    program = {"proposal-map": proposal_map, "mad": mad, "qvhighlights": qvhighlights}[sys.argv[1]]
    print(json.dumps(program(*sys.argv[2:])))
