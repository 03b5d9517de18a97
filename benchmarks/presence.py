"""How well each model tells whether a sentence of Shapes is in a video at all, and what its probabilities are worth.

    uv run python benchmarks/presence.py runs/rgn/shapes runs/cfmr/shapes runs/rgnet/shapes-long --data-root data

For every run folder a row: AUROC with its 95 % interval over videos and recall at 5 % false alarms on test, where
nothing is chosen; AUROC on validation, where the probability is made; and on test also both figures without the pairs
that are none, because the other video happens to show the sentence too, and how far probabilities are off (the mean
over 10 classes of equal width). Nothing is trained, and checkpoints stay as they are. The table goes to the terminal
and to ``benchmarks/results/presence.csv``.

The scenes of Shapes are known, so is what they show: that is the column `shown`, the share of sentences of other videos
that these show as well. A data set of real videos has such pairs too, and nobody knows how many.
"""

import argparse
import functools
import importlib
import time
from pathlib import Path

import numpy as np
import torch
from recording import RESULTS, write_rows

from vmr_common.cli.entrypoint import echo
from vmr_common.metrics import auroc, recall_at_false_alarms
from vmr_shapes.generate import read_spec
from vmr_shapes.scene import make_scene
from vmr_shapes.truth import meanings, satisfying
from vmr_train.checkpoint import load_checkpoint
from vmr_train.cli.predict import predict
from vmr_train.cli.presence import Elsewhere
from vmr_train.cli.requests import named_split
from vmr_train.presence import FALSE_ALARMS, Calibration, draw_pairs, evidence_of, separation


def sides(model, part):
    """Name of a split of the model's run, and its predictions for sentences in their own and in other videos."""
    split = named_split(part, model.config.data.splits, model.root)
    dataset = model._dataset(model.inputs, split.queries)  # as `Model.evaluate`
    pairs = draw_pairs(dataset.queries, split.queries)
    both = (
        predict(model.config, model.method, Elsewhere(dataset, side), evidence=True)
        for side in (pairs.own, pairs.other)
    )
    return split.name, *both


def off(chances, truth):
    """Mean distance of probabilities from what is so, over classes of probability."""
    classes = np.minimum((chances * 10).astype(int), 9)
    return sum(
        (classes == number).mean() * abs(chances[classes == number].mean() - truth[classes == number].mean())
        for number in np.unique(classes)
    )


def row(folder, data_root):
    """The figures of a run."""
    package = load_checkpoint(folder).meta["package"]
    model = importlib.import_module(package).load(folder, data_root=data_root)
    known = Calibration.fit(*sides(model, "validation"))
    started = time.perf_counter()
    name, own, other = sides(model, "test")
    seconds = time.perf_counter() - started
    found = separation(own, other)

    spec = read_spec(model.root / name.partition("/")[0])
    scene = functools.cache(lambda video: make_scene(video, spec))
    meaning_of = meanings(list(dict.fromkeys(one.video for one in own)), spec)
    assert all(satisfying(scene(one.video), meaning_of[one.query]) for one in own)
    shown = np.array([bool(satisfying(scene(one.video), meaning_of[one.query])) for one in other])
    high, low = (np.array([evidence_of(one) for one in side]) for side in (own, other))
    chances = np.array([known.probability(value) for value in (*high, *low)])
    return {
        "model": package,
        "split": name,
        "pairs": f"{len(own)} + {len(other)}",
        "validation AUROC": f"{known.figures.auroc:.3f}",
        "AUROC": f"{found.auroc:.3f}",
        "low": f"{found.low:.3f}",
        "high": f"{found.high:.3f}",
        "recall": f"{found.recall:.3f}",
        "shown": f"{shown.mean():.3f}",
        "AUROC without": f"{auroc(high, low[~shown]):.3f}",
        "recall without": f"{recall_at_false_alarms(high, low[~shown], FALSE_ALARMS):.3f}",
        "off": f"{off(chances, np.repeat([1.0, 0.0], [len(high), len(low)])):.3f}",
        "probability": "yes" if known.figures.works else "no",
        "seconds": f"{seconds:.1f}",
        "threads": torch.get_num_threads(),
    }


def main():
    """Measures the run folders that are named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--data-root", default="data", help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=RESULTS / "presence.csv", help="the table")
    given = parser.parse_args()
    rows = [row(folder, given.data_root) for folder in given.runs]
    write_rows(given.out, rows)
    for found in rows:
        echo("  ".join(f"{name} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
