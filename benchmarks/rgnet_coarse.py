"""RGNet with a coarse pre-selection of windows: window recall and R@1 against seconds per query.

    uv run python benchmarks/rgnet_coarse.py --run runs/rgnet/shapes-long [--data-root data] [--looked-at 1 2 4 8 12 16]

Looks at the n windows whose frames are most like the sentence, for several n, and at all windows. The data at hand
has no sentence vectors in the space of the frames, so they are made here: a linear map (ridge regression, its strength
by leave-one-out error) from the mean of a query's word vectors to the mean of its moment's frames, learnt on the
training queries of the run. An encoder trained on pairs of pictures and texts will do better. Adds the rows of this
run's test split to benchmarks/results/rgnet-coarse-<processor>.csv.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import torch
from recording import measured_here, read_rows, write_rows
from timing import timed

from rgnet import cli
from rgnet.config import Config
from rgnet.window_recall import window_recall
from vmr_common.cli.config import make_parser, parse
from vmr_common.experiment import load_splits
from vmr_common.manifest import Manifest
from vmr_common.protocols import protocol
from vmr_common.query_features import QueryVectors, normalise, write_query_features
from vmr_common.training import load_checkpoint, load_weights, predict_all

STRENGTHS = np.logspace(-4, 4, 17)
RANKS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24)


def unit(rows):
    return rows / (np.linalg.norm(rows, axis=-1, keepdims=True) + 1e-5)


def mean_tokens(vectors, query, max_tokens):
    return normalise(vectors.of(query), max_tokens).tokens.mean(axis=0)


def moment_frames(inputs, query, seconds_per_row):
    rows = unit(inputs[query.video])
    start, end = query.moments[0] / seconds_per_row
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


def sentence_vectors(config, inputs, train, others):
    """Token and sentence vectors of `others` by query id, learnt on `train`; none where no word is known."""
    vectors, length = inputs.vectors([*train, *others]), config.data.max_tokens
    known = [query for query in train if vectors.has(query)]
    x = np.stack([mean_tokens(vectors, query, length) for query in known]).astype(np.float64)
    y = np.stack([moment_frames(inputs, query, config.data.seconds_per_row) for query in known])
    middle = x.mean(axis=0)
    weights = ridge(x - middle, y.astype(np.float64) - y.mean(axis=0))
    for query in others:
        if vectors.has(query):
            sentence = (mean_tokens(vectors, query, length) - middle) @ weights
            yield query.id, QueryVectors(vectors.of(query).tokens, sentence.astype(np.float32))


def looking_at(config, windows):
    return dataclasses.replace(config, search=dataclasses.replace(config.search, coarse_windows=windows))


def measured(checkpoint, config, root, queries):
    """One row: what is found, and how long the search took."""
    inputs = cli.Inputs(config, root)
    task = cli.restore(config, checkpoint)
    load_weights(task.model, checkpoint.weights, checkpoint.path)
    examples = cli.examples(config, task, inputs, queries)
    for query in queries:
        inputs[query.video]  # reading is not part of the search
    device = torch.device("cpu")

    def search():
        return predict_all(
            task, examples, batch_size=config.train.eval_batch, device=device, precision="fp32"
        )

    predictions, seconds = timed(search)
    scores = protocol("strict").score(queries, predictions).values
    orders = {name: found.order for name, found in task.windows.items()}
    recall = window_recall(orders, queries, config.data, RANKS)
    looked_at = config.search.coarse_windows
    return {
        "looked_at": looked_at or "all",
        "windows": f"{recall.windows:.1f}",
        "matching": config.data.queries.sentence_dim is not None,
        "ms_per_query": f"{1e3 * seconds.clock / len(queries):.1f}",
        "cpu_ms_per_query": f"{1e3 * seconds.processor / len(queries):.1f}",
        "kept_by_similarity": f"{100 * recall.found[looked_at]:.1f}" if looked_at else "100.0",
        **{f"window_R@{rank}": f"{100 * recall.found[rank]:.1f}" for rank in (1, 5)},
        **{
            f"R@{n}_{level}": f"{100 * scores[f'R@{n},IoU@{level}']:.2f}"
            for n in (1, 5)
            for level in (0.3, 0.5)
        },
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True, help="a finished run of rgnet-train")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--looked-at", type=int, nargs="+", default=[1, 2, 4, 8, 12, 16])
    options = parser.parse_args()
    threads = torch.get_num_threads()
    checkpoint = load_checkpoint(options.run, package="rgnet")
    parser = make_parser("rgnet-coarse", "")
    config = parse(
        parser, Config, [], package="rgnet", base=checkpoint.meta["describe"]["config"], base_name=options.run
    ).config
    splits = load_splits(config.data.splits, options.data_root)
    queries = splits.test.queries
    inputs = cli.Inputs(config, options.data_root)
    seed = config.train.seed
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "queries.h5"
        found = sentence_vectors(config, inputs, splits.train.queries, queries)
        write_query_features(file, found, Manifest(extractor="ridge of mean word vectors"))
        stored = dataclasses.replace(
            config.data.queries, path=str(file), word_vectors=None, sentence_dim=config.data.features.dim
        )
        with_sentences = dataclasses.replace(config, data=dataclasses.replace(config.data, queries=stored))
        cases = [config, with_sentences, *(looking_at(with_sentences, n) for n in options.looked_at)]
        rows = []
        for case in cases:
            row = measured(checkpoint, case, options.data_root, queries)
            rows.append({"split": splits.test.name, "seed": seed, "threads": threads, **row})
            print(rows[-1], flush=True)
    path = measured_here("rgnet-coarse")
    kept = read_rows(path) if path.exists() else []
    own = (splits.test.name, str(seed), str(threads))
    kept = [row for row in kept if (row["split"], row["seed"], row["threads"]) != own]
    write_rows(path, [*kept, *rows])


if __name__ == "__main__":
    main()
