r"""Sentence vectors for RGNet where no encoder of pictures and texts is at hand: a file of query features.

    uv run python benchmarks/sentence_vectors.py charades-long --data-root DATA --out DATA/charades-long/queries.h5 \
        [OPTIONS OF rgnet-train]

A linear map (ridge regression, its strength by leave-one-out error) from the mean of a query's word vectors to the mean
of its moment's frames, learnt on the training queries of a configuration whose `data.queries` are word vectors. An
encoder trained on pairs of pictures and texts will do better. `rgnet-train` takes the file by `--data.queries.path`.
"""

import argparse
from pathlib import Path

import numpy as np

from rgnet.config import Config
from rgnet.data import open_frames
from rgnet.query_features.config import open_query_features
from rgnet.query_features.store import QueryVectors, normalise
from rgnet.query_features.writing import write_query_features
from vmr_common.features.manifest import Manifest
from vmr_train.cli.config import bundled_config
from vmr_train.splits import load_splits

STRENGTHS = np.logspace(-4, 4, 17)
EXTRACTOR = "ridge of mean word vectors"


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


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="bundled configuration of rgnet")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, required=True)
    options, training = parser.parse_known_args()
    config = bundled_config("rgnet", Config, options.config, *training)
    splits = load_splits(config.data.splits, options.data_root)  # what is held out is no training query
    parts = (splits.train, *([splits.validation] if splits.validation else []), splits.test)
    queries = [query for part in parts for query in part.queries]
    vectors = sentence_vectors(config, options.data_root, splits.train.queries, queries)
    write_query_features(options.out, vectors, Manifest(extractor=EXTRACTOR))
    print(f"{options.out}: {len(queries):,} queries, learnt on {len(splits.train.queries):,}")


if __name__ == "__main__":
    main()
