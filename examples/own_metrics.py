"""Metrics of your own on the predictions of a run, beside the official ones.

    python examples/own_metrics.py [CONFIG]

Predictions are plain arrays in seconds (`vmr_common.Prediction`); a run keeps those of the test split as JSON lines,
which `vmr_common.read_predictions` reads, from any other system as well.
"""

import sys

import numpy as np

import cdn
from vmr_common import format_table, iou, protocol, read_predictions
from vmr_train import load_splits

config = cdn.load_config(sys.argv[1] if len(sys.argv) > 1 else "shapes", {"name": "example"})
run = cdn.train(config, overwrite=True)
model = cdn.load(run)

queries = load_splits(config.data.splits, model.root).test.queries
found = {one.query: one for one in read_predictions(run.folder / "predictions.jsonl", queries)}

# an official protocol: its table, and what every query adds to it
rules = protocol("strict")
print(format_table([("cdn", rules.score(queries, list(found.values())))]))
per_query = rules.per_query(queries, list(found.values()))

# how far the borders of the first answer are off, in seconds
first = np.array([found[query.id].moments[0] for query in queries])
truth = np.array([query.moments[0] for query in queries])
print("mean error of start and end:", np.abs(first - truth).mean(axis=0).round(2).tolist(), "s")

# the answer that is best among the first five, as an oracle would choose it
oracle = [iou(found[query.id].moments[:5], query.moments).max() for query in queries]
print(f"mean IoU of the best of five: {np.mean(oracle):.3f}")

# recall by length of the moment
lengths = truth[:, 1] - truth[:, 0]
hits = np.asarray(per_query["R@1,IoU@0.5"])
for low, high in zip((0, 3, 6), (3, 6, np.inf), strict=True):
    inside = (lengths >= low) & (lengths < high)
    if inside.any():
        print(f"{low} to {high} s: R@1 at IoU 0.5 {hits[inside].mean():.3f} ({inside.sum()} queries)")
