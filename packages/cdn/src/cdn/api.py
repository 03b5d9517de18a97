"""CDN from Python: `train`, `load` and `load_config`, and what it can show of an answer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cdn.config import Config
from vmr_common.splits.sources import found_path
from vmr_train import api
from vmr_train.cli.config import DEFAULT

if TYPE_CHECKING:
    from cdn.data import Dataset
    from vmr_common.types import Query
    from vmr_train.prepared import PreparedFeatures


def load_config(
    config: str | os.PathLike[str] | Config = DEFAULT, changes: Mapping[str, Any] | None = None
) -> Config:
    """A configuration: a bundled name, a YAML file or one at hand, with changes by dotted name.

    Raises:
        UserError: for a file that cannot be read, an unknown key or a value that its field cannot hold.

    Example:
        >>> import cdn
        >>> cdn.load_config("shapes", {"optim.lr": 1e-4, "train.epochs": 3}).train.epochs
        3
    """
    return api.load_config("cdn", Config, config, changes)


def train(
    config: str | os.PathLike[str] | Config = DEFAULT,
    *,
    data_root: str | os.PathLike[str] | None = None,
    runs: str | os.PathLike[str] = "runs",
    resume: bool = False,
    overwrite: bool = False,
    allow_other_features: bool = False,
    **changes: Any,
) -> api.Run:
    """Trains, evaluates and reports as ``cdn-train`` does, in this process.

    Args:
        config: As for `load_config`.
        data_root: Folder of the data sets (default: ``$VMR_DATA``, else ``data``).
        runs: Folder of all run folders.
        resume: Continue the run from its last checkpoint.
        overwrite: Replace an earlier run of this name, once all is done.
        allow_other_features: Features may be made in another way than the configuration, or the run before, says.
        **changes: Fields by dotted name, ``**{"train.epochs": 3}``.

    Raises:
        UserError: as ``cdn-train`` would say it.

    Example:
        >>> import cdn
        >>> run = cdn.train("shapes", name="short", **{"train.epochs": 1})
        >>> run.folder.name, run.results[0]["name"]
        ('short', 'cdn')
    """
    from cdn.training import train as run

    chosen = load_config(config, changes)
    given = {"resume": resume, "overwrite": overwrite, "allow_other_features": allow_other_features}
    return api.train("cdn", run, chosen, data_root=data_root, runs=runs, **given)


def load(
    checkpoint: str | os.PathLike[str],
    *,
    data_root: str | os.PathLike[str] | None = None,
    allow_other_features: bool = False,
    **changes: Any,
) -> api.Model:
    """A trained model with its data.

    Args:
        checkpoint: A checkpoint file, a run folder, or a `Run`.
        data_root: Folder of the data sets (default: ``$VMR_DATA``, else the one it was trained with, else ``data``).
        allow_other_features: Features may be made in another way than those that it was trained on.
        **changes: Fields of its configuration by dotted name, ``**{"train.device": "cpu"}``.

    Raises:
        UserError: if there is no checkpoint of CDN, or it does not fit.

    Example:
        >>> import cdn
        >>> model = cdn.load("runs/cdn/shapes")
        >>> model.config.name
        'shapes'
    """
    from cdn.data import build_dataset, open_frames
    from cdn.method import CDNMethod

    opened = api.open_checkpoint("cdn", Config, checkpoint, data_root, changes, allow_other_features)
    config = opened.config
    method = CDNMethod.restore(config, opened.checkpoint)
    glove = found_path(config.data.word_vectors, opened.root)

    def dataset(frames: PreparedFeatures, queries: Sequence[Query]) -> Dataset:
        return build_dataset(config, method.preprocessor, frames, glove, queries)

    def given(video: Any, making: api.Making) -> tuple[str, PreparedFeatures]:
        name, store = api.given_features(video, config.data.features, making)
        return name, open_frames(config, opened.root, store)

    return api.Model(
        opened,
        method,
        own=partial(open_frames, config, opened.root),
        given=given,
        dataset=dataset,
        explain=explain,
    )


def explain(model: api.Model, frames: PreparedFeatures, dataset: Any, query: Query) -> api.Explanation:
    """The proposal map of a query: the probability of every moment from one clip to another.

    `values` holds `map` ``(N, N)``, the first clip by the last one, NaN where there is no proposal, and `edges`
    ``(N + 1,)``, the seconds between clips.

    Example:
        >>> import cdn
        >>> model = cdn.load("runs/cdn/shapes")
        >>> seen = model.explain("test-0000", "the orange triangle slides down")
        >>> seen["map"].shape == (model.config.model.clips,) * 2, seen.show()[:7]
        (True, '<figure')
    """
    import torch

    from vmr_train.answers import heat_map
    from vmr_train.method import to_device

    network: Any = model.network
    batch = to_device(dataset.batch([0], None), network.map.cells.device)
    with torch.no_grad():
        proposals = model.method.encode_videos(batch.videos, batch.features)
        scores = network.score(proposals, batch.words).float().sigmoid()[:, 0]
    cells = network.map.cells.cpu().numpy()
    found = np.full(cells.shape, np.nan)
    found[cells] = scores.double().cpu().numpy()  # valid cells in the order of their rows
    edges = np.linspace(0, query.duration, len(cells) + 1)

    best = np.argsort(-np.nan_to_num(found, nan=-1.0), axis=None, kind="stable")[:5]
    lines = [
        f"{query.video}: {query.text}",
        f"  {cells.sum():,} proposals; the likeliest, before suppression:",
    ]
    for first, last in zip(*np.unravel_index(best, found.shape), strict=True):
        lines.append(f"  {edges[first]:.1f} - {edges[last + 1]:.1f} s  {found[first, last]:.3f}")
    return api.Explanation("\n".join(lines), {"map": found, "edges": edges}, heat_map(found, query.duration))
