"""RGNet from Python: `train`, `load` and `load_config`, and what it can show of an answer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rgnet.config import DEFAULT, Config
from vmr_train import api

if TYPE_CHECKING:
    from rgnet.data import Dataset
    from rgnet.query_features.new_sentences import NewSentences
    from vmr_common.types import Query
    from vmr_train.prepared import PreparedFeatures


def load_config(
    config: str | os.PathLike[str] | Config = DEFAULT, changes: Mapping[str, Any] | None = None
) -> Config:
    """A configuration: a bundled name, a YAML file or one at hand, with changes by dotted name.

    Raises:
        UserError: for a file that cannot be read, an unknown key or a value that its field cannot hold.

    Example:
        >>> import rgnet
        >>> rgnet.load_config("shapes-long", {"optim.lr": 1e-4, "train.epochs": 3}).train.epochs
        3
    """
    return api.load_config("rgnet", Config, config, changes)


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
    """Trains, evaluates and reports as ``rgnet-train`` does, in this process.

    Args:
        config: As for `load_config`.
        data_root: Folder of the data sets (default: ``$VMR_DATA``, else ``data``).
        runs: Folder of all run folders.
        resume: Continue the run from its last checkpoint.
        overwrite: Replace an earlier run of this name, once all is done.
        allow_other_features: Features may be made in another way than the configuration, or the run before, says.
        **changes: Fields by dotted name, ``**{"train.epochs": 3}``.

    Raises:
        UserError: as ``rgnet-train`` would say it.

    Example:
        >>> import rgnet
        >>> run = rgnet.train("shapes-long", name="short", **{"train.epochs": 1})
        >>> run.folder.name, run.results[0]["name"]
        ('short', 'rgnet')
    """
    from rgnet.training import train as run

    chosen = load_config(config, changes)
    given = {"resume": resume, "overwrite": overwrite, "allow_other_features": allow_other_features}
    return api.train("rgnet", run, chosen, data_root=data_root, runs=runs, **given)


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

    A model that reads query features from a file (`data.queries.path`) takes the id of an entry as the sentence, or a
    new one, whose vectors are made as that file's were.

    Raises:
        UserError: if there is no checkpoint of RGNet, or it does not fit.

    Example:
        >>> import rgnet
        >>> model = rgnet.load("runs/rgnet/shapes-long")
        >>> model.config.name
        'shapes-long'
    """
    from rgnet.data import build_dataset, open_frames, query_store
    from rgnet.method import RGNetMethod
    from rgnet.stride import with_stride

    opened = api.open_checkpoint("rgnet", Config, checkpoint, data_root, changes, allow_other_features)
    config = opened.config
    method = RGNetMethod.restore(config, opened.checkpoint)
    file = config.data.queries.path

    def dataset(
        frames: PreparedFeatures, queries: Sequence[Query], vectors: NewSentences | None = None
    ) -> Dataset:
        if vectors is None:
            opened.require_known(frames.store, queries=query_store(config, opened.root))
        # given features may state their own stride
        method.config = with_stride(
            config, frames.store, queries, allow=allow_other_features, warn=opened.warn
        )
        return build_dataset(method.config, method.scale, frames, opened.root, queries, vectors)

    def asked(frames: PreparedFeatures, queries: Sequence[Query], making: api.Making) -> Dataset:
        if file is None:
            return dataset(frames, queries)
        from rgnet.query_features.new_sentences import of_texts

        return dataset(
            frames, queries, of_texts([query.text for query in queries], config.data.queries, making)
        )

    def query_id(text: str, number: int) -> str:
        # a model that reads a file of query features knows its queries by their ids
        return str(number) if file is None else text

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
        query_id=query_id,
        asked=asked,
    )


def explain(model: api.Model, frames: PreparedFeatures, dataset: Any, query: Query) -> api.Explanation:
    """The ranked windows of a query in its video, and the moments that were found in the best of them.

    `values` holds `order` ``(M,)``, window numbers from the best on, by window number `retrieval` ``(M,)`` and
    `spans` ``(M, 2)`` in seconds, and `moments` ``(R, 5)``: start, end, proposal, matching and fused score.

    Example:
        >>> import rgnet
        >>> model = rgnet.load("runs/rgnet/shapes-long")
        >>> seen = model.explain("test-0000", "the red star wobbles")
        >>> len(seen["order"]) == len(seen["spans"]), seen.show()[:7]
        (True, '<figure')
    """
    import torch

    from rgnet.search import ranking
    from rgnet.windows import video_windows
    from vmr_train.answers import Row, timeline
    from vmr_train.clock import format_hours
    from vmr_train.method import to_device

    network: Any = model.network
    with torch.no_grad():
        model.method.predict(to_device(dataset.batch([0], None), network.retrieval_head.weight.device))
    known, data = model.method.windows[query.id], model.method.config.data
    windows = video_windows(len(frames[query.video]), data.window) * data.stride
    spans = np.stack([windows[:, 0], windows.sum(axis=1)], axis=1)

    curve = ranking.spread(np.nan_to_num(known.retrieval, nan=np.nanmin(known.retrieval)))
    rows = [Row("windows", curve=(spans.mean(axis=1), curve))]
    lines = [f"{query.video}: {query.text}", f"  {len(known.order)} windows; the best:"]
    for rank, number in enumerate(known.order[:5].tolist(), 1):
        start, end = spans[number].tolist()
        inside = int((known.moment_windows == number).sum())
        rows.append(Row(f"window {rank}", spans=[(start, end, 0.4)], note=f"{known.retrieval[number]:.3f}"))
        lines.append(
            f"  {rank}  {format_hours(start)} - {format_hours(end)}  retrieval {known.retrieval[number]:.3f}, "
            f"{inside} of the moments found"
        )
    for rank, (start, end, *scores) in enumerate(known.moments[:3].tolist(), 1):
        rows.append(Row(f"moment {rank}", spans=[(start, end, 1.0)], note=f"{scores[-1]:.3f}"))
    values = {
        "order": known.order,
        "retrieval": known.retrieval,
        "spans": spans,
        "moments": known.moments,
    }
    return api.Explanation("\n".join(lines), values, timeline(query.duration, rows, "score"))
