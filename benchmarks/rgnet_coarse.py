"""RGNet with a coarse pre-selection of windows: window recall and R@1 against seconds per query.

    uv run python benchmarks/rgnet_coarse.py --run runs/rgnet/shapes-long [runs/rgnet/other-seed ...] [--data-root data]

Scores the n windows whose frames are most like the sentence, for several n, and all windows. The data at hand
has no sentence vectors in the space of the frames, so `sentence_vectors.py` makes them, learnt on the training queries
of the run. Figures are means over the runs; they replace the rows of this test split in
benchmarks/results/coarse-windows-<processor>.csv.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import torch
from recording import measured_here, read_rows, write_rows
from sentence_vectors import EXTRACTOR, sentence_vectors
from timing import timed

from rgnet.config import Config
from rgnet.data import build_dataset, open_frames
from rgnet.method import RGNetMethod
from rgnet.query_features.writing import write_query_features
from rgnet.search.window_recall import window_recall
from vmr_common.evaluation import protocol
from vmr_common.features.manifest import Manifest
from vmr_train.checkpoint import load_checkpoint
from vmr_train.cli.config import stored_config
from vmr_train.predict import Evaluator
from vmr_train.splits import load_splits

RANKS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24)


def examining(config, windows):
    return dataclasses.replace(config, search=dataclasses.replace(config.search, coarse_windows=windows))


def measured(checkpoint, config, root, queries):
    """Recall of moments and windows, and the processor time of the search."""
    frames, method = open_frames(config, root), RGNetMethod.restore(config, checkpoint)
    dataset = build_dataset(config, method.scale, frames, root, queries)
    for query in queries:
        frames[query.video]  # reading is not part of the search
    device = torch.device("cpu")

    def search():
        return Evaluator(method, dataset, batch_size=config.train.eval_batch, device=device).predict()

    predictions, seconds = timed(search)
    scores = protocol("strict").score(queries, predictions).values
    orders = {name: found.order for name, found in method.windows.items()}
    recall = window_recall(orders, queries, config.data, RANKS)
    examined = config.search.coarse_windows
    return {
        "windows": recall.windows,
        "cpu_ms_per_query": 1e3 * seconds.processor / len(queries),
        "kept": 100 * recall.found[examined] if examined else 100.0,
        **{f"window_R@{rank}": 100 * recall.found[rank] for rank in (1, 5)},
        **{f"R@{n}_{level}": 100 * scores[f"R@{n},IoU@{level}"] for n in (1, 5) for level in (0.3, 0.5)},
        "mIoU": 100 * scores["R@1,mIoU"],
    }


def of_run(run, root, examined):
    """The test split's name, and the figures of a run by windows examined and whether moments are matched."""
    checkpoint = load_checkpoint(run, package="rgnet")
    config = stored_config(checkpoint, Config, "rgnet")
    splits = load_splits(config.data.splits, root)
    queries, figures = splits.test.queries, {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "queries.h5"
        vectors = sentence_vectors(config, root, splits.train.queries, queries)
        write_query_features(file, vectors, Manifest(extractor=EXTRACTOR))
        stored = dataclasses.replace(
            config.data.queries, path=str(file), word_vectors=None, sentence_dim=config.data.features.dim
        )
        matched = dataclasses.replace(config, data=dataclasses.replace(config.data, queries=stored))
        for name, case in {
            ("all", "no"): config,
            ("all", "yes"): matched,
            **{(str(n), "yes"): examining(matched, n) for n in examined},
        }.items():
            figures[name] = measured(checkpoint, case, root, queries)
            print(run, *name, {key: round(value, 2) for key, value in figures[name].items()}, flush=True)
    test = config.data.splits.test
    return test.split or test.annotations, figures


def means(split, runs):
    """The rows of a split: every figure's mean over the runs."""
    for examined, matching in runs[0]:
        found = [figures[examined, matching] for figures in runs]
        yield {
            "split": split,
            "examined": examined,
            "matching": matching,
            "runs": len(runs),
            **{key: f"{np.mean([one[key] for one in found]):.1f}" for key in found[0]},
        }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", required=True, nargs="+", help="finished runs of rgnet-train that differ by seed"
    )
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--examined", type=int, nargs="+", default=[1, 2, 4, 8, 12, 16])
    options = parser.parse_args()
    found = [of_run(run, options.data_root, options.examined) for run in options.run]
    split = found[0][0]
    path = measured_here("coarse-windows")
    others = [row for row in (read_rows(path) if path.exists() else []) if row["split"] != split]
    write_rows(path, [*others, *means(split, [figures for _, figures in found])])


if __name__ == "__main__":
    main()
