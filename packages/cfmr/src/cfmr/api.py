"""CFMR from Python: `train`, `load` and `load_config`, and what it can show of an answer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cfmr.config import Config
from vmr_train import api
from vmr_train.cli.config import DEFAULT

if TYPE_CHECKING:
    from vmr_common.types import Query
    from vmr_train.prepared import PreparedFeatures


def load_config(
    config: str | os.PathLike[str] | Config = DEFAULT, changes: Mapping[str, Any] | None = None
) -> Config:
    """A configuration: a bundled name, a YAML file or one at hand, with changes by dotted name.

    Raises:
        UserError: for a file that cannot be read, an unknown key or a value that its field cannot hold.

    Example:
        >>> import cfmr
        >>> cfmr.load_config("shapes", {"optim.lr": 1e-4, "train.epochs": 3}).train.epochs
        3
    """
    return api.load_config("cfmr", Config, config, changes)


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
    """Trains, evaluates and reports as ``cfmr-train`` does, in this process.

    Args:
        config: As for `load_config`.
        data_root: Folder of the data sets (default: ``$VMR_DATA``, else ``data``).
        runs: Folder of all run folders.
        resume: Continue the run from its last checkpoint.
        overwrite: Replace an earlier run of this name, once all is done.
        allow_other_features: Features may be made in another way than the configuration, or the run before, says.
        **changes: Fields by dotted name, ``**{"train.epochs": 3}``.

    Raises:
        UserError: as ``cfmr-train`` would say it.

    Example:
        >>> import cfmr
        >>> run = cfmr.train("shapes", name="short", **{"train.epochs": 1})
        >>> run.folder.name, run.results[0]["name"]
        ('short', 'cfmr')
    """
    from cfmr.training import train as run

    chosen = load_config(config, changes)
    given = {"resume": resume, "overwrite": overwrite, "allow_other_features": allow_other_features}
    return api.train("cfmr", run, chosen, data_root=data_root, runs=runs, **given)


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
        UserError: if there is no checkpoint of CFMR, or it does not fit.

    Example:
        >>> import cfmr
        >>> model = cfmr.load("runs/cfmr/shapes")
        >>> model.config.name
        'shapes'
    """
    from cfmr.data import build_dataset, open_clips
    from cfmr.method import CFMRMethod

    opened = api.open_checkpoint("cfmr", Config, checkpoint, data_root, changes, allow_other_features)
    config = opened.config
    method = CFMRMethod.restore(config, opened.checkpoint)

    def given(video: Any, making: api.Making) -> tuple[str, PreparedFeatures]:
        name, store = api.given_features(video, config.data.features, making)
        return name, open_clips(config, opened.root, store)

    return api.Model(
        opened,
        method,
        own=partial(open_clips, config, opened.root),
        given=given,
        dataset=partial(build_dataset, config, method.preprocessor),
        explain=explain,
    )


def explain(model: api.Model, clips: PreparedFeatures, dataset: Any, query: Query) -> api.Explanation:
    """The likeness of a query's concepts to those of the video: each concept over time, and the best proposals.

    A proposal's score is the sum of its K cosines. `values` holds `moments` ``(P, 2)`` in seconds and `cosines`
    ``(P, K)`` of all proposals, the best first, and by `times` ``(C,)``, the centres of proposals, `concepts`
    ``(C, K)``: each concept's largest cosine there.

    Example:
        >>> import cfmr
        >>> model = cfmr.load("runs/cfmr/shapes")
        >>> seen = model.explain("test-0000", "the orange triangle slides down")
        >>> seen["cosines"].shape[1] == model.config.model.concepts, seen.show()[:7]
        (True, '<figure')
    """
    import torch

    from cfmr.method import moments_of
    from cfmr.model import unit_concepts
    from vmr_train.answers import Row, timeline
    from vmr_train.method import to_device

    network: Any = model.network
    batch = to_device(dataset.batch([0], None), network.mask_token.device)
    with torch.no_grad():
        video = unit_concepts(network.encode_video(batch.clips))[0]  # (P, K, D)
        sentence = unit_concepts(network.encode_text(batch.words))[0]  # (K, D)
        cosines = (video * sentence).sum(-1).double().cpu().numpy()  # (P, K)
        moments = moments_of(network.search_proposals()) * query.duration
    centres, widths = model.config.model.centres, model.config.model.widths
    concepts = cosines.reshape(widths, centres, -1).max(axis=0)  # (C, K)
    times = np.linspace(0, query.duration, centres)

    scores = cosines.sum(axis=1)
    order = np.argsort(-scores, kind="stable")
    rows = [
        Row(f"proposal {rank}", spans=[(*moments[number], 1.0)], note=f"{scores[number]:.3f}")
        for rank, number in enumerate(order[:3].tolist(), 1)
    ]
    # a concept's best cosine is its note; the hill spans its own range, which differs from concept to concept
    for number, curve in enumerate(concepts.T, 1):
        spread = (curve - curve.min()) / max(float(np.ptp(curve)), 1e-12)
        rows.append(Row(f"concept {number}", curve=(times, spread), note=f"{curve.max():.3f}"))
    lines = [f"{query.video}: {query.text}"]
    for rank, number in enumerate(order[:3].tolist(), 1):
        start, end = moments[number].tolist()
        each = " + ".join(f"{value:.2f}" for value in cosines[number].tolist())
        lines.append(f"  {rank}  {start:.1f} - {end:.1f} s  {scores[number]:.3f} = {each}")
    values = {"moments": moments[order], "cosines": cosines[order], "times": times, "concepts": concepts}
    return api.Explanation("\n".join(lines), values, timeline(query.duration, rows, "score, cosine"))
