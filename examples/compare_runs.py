"""Is one model better than another? The paired difference per query, with a bootstrap interval over videos.

    python examples/compare_runs.py [CONFIG]

Two runs of RGN that differ in one field; the runs of two packages compare in the same way, as long as both answered
the same queries. Wins and losses name the queries to look at.
"""

import sys

import numpy as np

import rgn
from vmr_common import format_differences, paired_differences, protocol, read_predictions
from vmr_train import load_splits

config = sys.argv[1] if len(sys.argv) > 1 else "shapes"
labels = ("4 candidates", "8 candidates")

runs = [
    rgn.train(config, overwrite=True, name=f"candidates-{count}", **{"model.candidates": count})
    for count in (4, 8)
]

model = rgn.load(runs[0])
queries = load_splits(model.config.data.splits, model.root).test.queries
rules = protocol("strict")
scored = [
    rules.per_query(queries, read_predictions(run.folder / "predictions.jsonl", queries)) for run in runs
]

differences = paired_differences(*scored, [query.video for query in queries])
print(format_differences(differences, labels))

# the queries that only one of them gets right
first, second = (np.asarray(one["R@1,IoU@0.5"]) for one in scored)
for label, better in zip(labels, (first > second, second > first), strict=True):
    print(f"\nonly {label}: {better.sum()} of {len(queries)} queries")
    for number in np.flatnonzero(better)[:5]:
        print(f"  {queries[number].id}: {queries[number].text}")
