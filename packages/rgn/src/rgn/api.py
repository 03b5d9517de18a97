"""RGN from Python: `train`, `load` and `load_config`, and what it can show of an answer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from rgn.config import Config
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
        >>> import rgn
        >>> rgn.load_config("shapes", {"optim.lr": 1e-4, "train.epochs": 3}).train.epochs
        3
    """
    return api.load_config("rgn", Config, config, changes)


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
    """Trains, evaluates and reports as ``rgn-train`` does, in this process.

    Args:
        config: As for `load_config`.
        data_root: Folder of the data sets (default: ``$VMR_DATA``, else ``data``).
        runs: Folder of all run folders.
        resume: Continue the run from its last checkpoint.
        overwrite: Replace an earlier run of this name, once all is done.
        allow_other_features: Features may be made in another way than the configuration, or the run before, says.
        **changes: Fields by dotted name, ``**{"train.epochs": 3}``.

    Raises:
        UserError: as ``rgn-train`` would say it.

    Example:
        >>> import rgn
        >>> run = rgn.train("shapes", name="short", **{"train.epochs": 1})
        >>> run.folder.name, run.results[0]["name"]
        ('short', 'rgn')
    """
    from rgn.training import train as run

    chosen = load_config(config, changes)
    given = {"resume": resume, "overwrite": overwrite, "allow_other_features": allow_other_features}
    return api.train("rgn", run, chosen, data_root=data_root, runs=runs, **given)


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
        UserError: if there is no checkpoint of RGN, or it does not fit.

    Example:
        >>> import rgn
        >>> model = rgn.load("runs/rgn/shapes")
        >>> model.config.name
        'shapes'
    """
    from rgn.data import build_dataset, open_clips
    from rgn.method import RGNMethod

    opened = api.open_checkpoint("rgn", Config, checkpoint, data_root, changes, allow_other_features)
    config = opened.config
    method = RGNMethod.restore(config, opened.checkpoint)

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
    """The candidates of a query: the Gaussian of each, and how well the query is reconstructed from what it shows.

    `values` holds `moments` ``(K, 2)`` in seconds, `nll` ``(K,)``, the lowest first, and `windows` ``(K, P)`` at
    `times` ``(P,)``. Words in brackets are those that the Caption Transformer had to guess.

    Example:
        >>> import rgn
        >>> model = rgn.load("runs/rgn/shapes")
        >>> seen = model.explain("test-0000", "the orange triangle slides down")
        >>> bool(seen["nll"][0] <= seen["nll"][-1]), seen.show()[:7]
        (True, '<figure')
    """
    import torch

    from rgn.gaussians import unit_grid
    from rgn.method import rank
    from vmr_train.answers import Row, timeline
    from vmr_train.method import to_device

    network: Any = model.network
    batch = to_device(dataset.batch([0], None), network.mask_token.device)
    with torch.no_grad():
        output = network(batch.inputs, batch.targets)
    order, moments, nll = (side[0] for side in rank(output.proposals, output.nll))
    windows = output.proposals.window[0].cpu().numpy()[order]
    times = unit_grid(windows.shape[1]).double().numpy() * query.duration
    moments = moments * query.duration

    words = model.method.preprocessor.vocabulary.words
    guessed = batch.inputs.masked[0, 1:].tolist()
    text = " ".join(
        f"[{words[number - 1]}]" if hidden else words[number - 1]
        for number, hidden in zip(batch.targets[0].tolist(), guessed, strict=False)
        if number
    )
    rows = [
        Row(f"{start:.1f} - {end:.1f} s", curve=(times, window), note=f"{value:.3f}")
        for (start, end), window, value in zip(moments.tolist(), windows, nll.tolist(), strict=True)
    ]
    lines = [f"{query.video}: {text}", *(f"  {row.label:>16}  NLL {row.note}" for row in rows)]
    values = {"moments": moments, "nll": nll, "windows": windows, "times": times}
    return api.Explanation("\n".join(lines), values, timeline(query.duration, rows, "NLL"))
