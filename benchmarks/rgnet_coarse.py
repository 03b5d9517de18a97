"""RGNet with a coarse pre-selection of windows: window recall and R@1 against seconds per query.

    uv run python benchmarks/rgnet_coarse.py --run runs/rgnet/shapes-long [runs/rgnet/other-seed ...] [--data-root data]

Scores the n windows whose frames are most like the sentence, for several n, and all windows. The data at hand
has no sentence vectors in the space of the frames, so they are made here: a linear map (ridge regression, its strength
by leave-one-out error) from the mean of a query's word vectors to the mean of its moment's frames, learnt on the
training queries of the run. An encoder trained on pairs of pictures and texts will do better. Figures are means over
the runs; they replace the rows of this test split in benchmarks/results/coarse-windows-<processor>.csv.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import torch
from recording import measured_here, read_rows, write_rows
from timing import timed

from rgnet.config import Config
from rgnet.data import build_dataset, open_frames
from rgnet.method import RGNetMethod
from rgnet.query_features.config import open_query_features
from rgnet.query_features.store import QueryVectors, normalise, write_query_features
from rgnet.search.window_recall import window_recall
from vmr_common.evaluation import protocol
from vmr_common.features.manifest import Manifest
from vmr_train.checkpoint import load_checkpoint
from vmr_train.cli.config import stored_config
from vmr_train.predict import predict_all
from vmr_train.splits import load_splits

STRENGTHS = np.logspace(-4, 4, 17)
RANKS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24)


def unit(rows):
    return rows / (np.linalg.norm(rows, axis=-1, keepdims=True) + 1e-5)


def mean_tokens(vectors, query, max_tokens):
    return normalise(vectors.of(query), max_tokens).tokens.mean(axis=0)


def moment_frames(frames, query, feature_stride):
    rows = unit(frames[query.video])
    start, end = query.moments[0] / feature_stride
    first = min(int(start), len(rows) - 1)
    return rows[first : max(int(np.ceil(end)), first + 1)].mean(axis=0)


def ridge(x, y):
    """Weights ``(E, A)`` of centred data, at the strength with the least leave-one-out error."""
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    projected = u.T @ y
    errors = []
    for strength in STRENGTHS:
        shrink = s**2 / (s**2 + strength)
        leverage = (u**2 * shrink).sum(axis=1)
        residual = (y - u @ (shrink[:, None] * projected)) / (1 - leverage[:, None])
        errors.append((residual**2).mean())
    strength = STRENGTHS[int(np.argmin(errors))]
    return vt.T @ ((s / (s**2 + strength))[:, None] * projected)


def sentence_vectors(config, root, train, others):
    """Token and sentence vectors of `others` by query id, learnt on `train`; none where no word is known."""
    texts = [query.text for query in (*train, *others)]
    vectors = open_query_features(config.data.queries, root, texts)
    frames, length = open_frames(config, root), config.data.max_tokens
    known = [query for query in train if vectors.has(query)]
    x = np.stack([mean_tokens(vectors, query, length) for query in known]).astype(np.float64)
    y = np.stack([moment_frames(frames, query, config.data.stride) for query in known])
    middle = x.mean(axis=0)
    weights = ridge(x - middle, y.astype(np.float64) - y.mean(axis=0))
    for query in others:
        if vectors.has(query):
            sentence = (mean_tokens(vectors, query, length) - middle) @ weights
            yield query.id, QueryVectors(vectors.of(query).tokens, sentence.astype(np.float32))


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
        return predict_all(
            method, dataset, batch_size=config.train.eval_batch, device=device, precision="fp32"
        )

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
        write_query_features(file, vectors, Manifest(extractor="ridge of mean word vectors"))
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
