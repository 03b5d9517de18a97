"""LEORN from Python: `train`, `load` and `load_config`, and what it can show of an answer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leorn.config import Config
from vmr_common.errors import UserError
from vmr_common.splits.sources import found_path
from vmr_train import api, given_features
from vmr_train.cli.config import DEFAULT

if TYPE_CHECKING:
    from leorn.inputs import InputFeatures
    from leorn.object_features.store import GivenObjects
    from vmr_common.types import Query

OBJECT_ARRAYS = ("features", "confidence", "boxes")


def load_config(
    config: str | os.PathLike[str] | Config = DEFAULT, changes: Mapping[str, Any] | None = None
) -> Config:
    """A configuration: a bundled name, a YAML file or one at hand, with changes by dotted name.

    Raises:
        UserError: for a file that cannot be read, an unknown key or a value that its field cannot hold.

    Example:
        >>> import leorn
        >>> leorn.load_config("shapes", {"optim.lr": 1e-4, "train.epochs": 3}).train.epochs
        3
    """
    return api.load_config("leorn", Config, config, changes)


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
    """Trains, evaluates and reports as ``leorn-train`` does, in this process.

    Args:
        config: As for `load_config`.
        data_root: Folder of the data sets (default: ``$VMR_DATA``, else ``data``).
        runs: Folder of all run folders.
        resume: Continue the run from its last checkpoint.
        overwrite: Replace an earlier run of this name, once all is done.
        allow_other_features: Features may be made in another way than the configuration, or the run before, says.
        **changes: Fields by dotted name, ``**{"train.epochs": 3}``.

    Raises:
        UserError: as ``leorn-train`` would say it.

    Example:
        >>> import leorn
        >>> run = leorn.train("shapes", name="short", **{"train.epochs": 1})
        >>> run.folder.name, run.results[0]["name"]
        ('short', 'leorn')
    """
    from leorn.training import train as run

    chosen = load_config(config, changes)
    given = {"resume": resume, "overwrite": overwrite, "allow_other_features": allow_other_features}
    return api.train("leorn", run, chosen, data_root=data_root, runs=runs, **given)


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

    A video that is not in its data is given to `predict` as a video file, as a file of object features that holds it
    alone, or as arrays by name: `features` ``(T, O, D)``, `confidence` ``(T, O)``, `boxes` ``(T, O, 4)``, and `clips`
    ``(T, C)`` to a model with two streams.

    Raises:
        UserError: if there is no checkpoint of LEORN, or it does not fit.

    Example:
        >>> import leorn
        >>> model = leorn.load("runs/leorn/shapes")
        >>> model.config.name
        'shapes'
    """
    from leorn.data import Dataset, build_dataset
    from leorn.inputs import InputFeatures
    from leorn.method import LEORNMethod

    opened = api.open_checkpoint("leorn", Config, checkpoint, data_root, changes, allow_other_features)
    config = opened.config
    method = LEORNMethod.restore(config, opened.checkpoint)
    glove = found_path(config.data.word_vectors, opened.root)

    def given(video: Any, making: api.Making) -> tuple[str, InputFeatures]:
        if given_features.is_video_file(video):
            found = InputFeatures.of_video_files(config, [Path(video)], making)
            return next(iter(found.store.durations)), found
        name, objects, features = given_objects(video, config)
        return name, InputFeatures.of(config, objects, features)

    def dataset(videos: InputFeatures, queries: Sequence[Query]) -> Dataset:
        return build_dataset(config, method.preprocessor, videos, glove, queries)

    return api.Model(
        opened,
        method,
        own=partial(InputFeatures.open, config, opened.root),
        given=given,
        dataset=dataset,
        explain=explain,
    )


def given_objects(
    video: Any, config: Config
) -> tuple[str, GivenObjects, given_features.GivenFeatures | None]:
    """The objects of one video that is not in the model's files, and its clip features; see `load`."""
    from leorn.object_features.layouts import ObjectFrames
    from leorn.object_features.store import GivenObjects, ObjectStore

    wanted, arrays, manifest = config.data.objects, video, None
    if isinstance(video, str | os.PathLike):
        store = ObjectStore(Path(video), objects=wanted.objects, dim=wanted.dim)
        names = store.videos()
        if len(names) != 1:
            raise UserError(f"{store.name}: holds {len(names):,} videos, expected one")
        frames, manifest = store[names[0]], store.manifest
        arrays = {"features": frames.features, "confidence": frames.confidence, "boxes": frames.boxes}
    if not isinstance(arrays, Mapping):
        raise given_features.unknown_form(video, f"arrays by name ({', '.join(OBJECT_ARRAYS)})")
    needed = [*OBJECT_ARRAYS] + ["clips"] * (config.data.features is not None)
    lacking = [name for name in needed if name not in arrays]
    if lacking:
        raise UserError(
            f"video: LEORN reads objects, found no {', '.join(lacking)}; expected arrays by name: {', '.join(needed)}"
        )
    parts = {name: np.asarray(arrays[name], dtype=np.float32) for name in OBJECT_ARRAYS}
    rows, slots = (*parts["features"].shape, 0, 0)[:2]
    frame = (max(rows, 1), max(slots, wanted.objects))
    shapes = {"features": (*frame, wanted.dim), "confidence": frame, "boxes": (*frame, 4)}
    for name, part in parts.items():
        if part.shape != shapes[name] or not np.isfinite(part).all():
            raise UserError(f"video: {name}: found {part.shape}, expected finite numbers {shapes[name]}")
    name = f"objects-{given_features.content_hash(*parts.values())}"
    features = None
    if config.data.features is not None:
        _, clips = given_features.given_features(arrays["clips"], config.data.features)
        features = given_features.GivenFeatures(
            dict.fromkeys([name], next(iter(clips.arrays.values()))), clips.manifest
        )
    kept = [part[:, : wanted.objects] for part in parts.values()]
    return name, GivenObjects({name: ObjectFrames(*kept)}, manifest), features


def explain(
    model: api.Model,
    videos: InputFeatures,
    dataset: Any,
    query: Query,
    frames: str | os.PathLike[str] | None = None,
) -> api.Explanation:
    """The attention over the objects of the video, drawn on the frames of the best moment where they are at hand.

    `values` holds `weights` ``(F, O)``, `sentinel` ``(F,)``, `boxes` ``(F, O, 4)`` and `times` ``(F,)``, see
    `leorn.explain.View`. Frames of Shapes are rendered, those of a video file read; of other videos `frames` names
    their folder, as ``--frames`` of ``leorn-predict`` does.

    Example:
        >>> import leorn
        >>> model = leorn.load("runs/leorn/shapes")
        >>> seen = model.explain("test-0000", "the orange triangle slides down")
        >>> seen["weights"].shape == seen["boxes"].shape[:2], seen.show()[:7]
        (True, '<figure')
    """
    from leorn.explain import frames_of, moment_picture, views
    from vmr_train.answers import Row, image, timeline
    from vmr_train.cli.predict import predict

    (found,) = predict(model.config, model.method, dataset)
    view = views(model.config, model.method, videos, dataset)[query.id]
    most = view.weights.max(axis=1)
    rows = [
        Row("moment", spans=[(*found.moments[0].tolist(), 1.0)], note=f"{found.scores[0]:.3f}"),
        Row("objects", curve=(view.times, view.weights.sum(axis=1))),
        Row("sentinel", curve=(view.times, view.sentinel)),
    ]
    picture = timeline(query.duration, rows, "score")
    start, end = found.moments[0].tolist()
    lines = [f"{query.video}: {query.text}", f"  {start:.1f} - {end:.1f} s"]
    folder = None if frames is None else Path(frames)
    known = frames_of(model.config, model.root, videos, query, found.moments[0], folder)
    if known is None:
        best = np.argsort(-most, kind="stable")[:5]
        lines += [
            f"  {view.times[row]:.1f} s: object {view.weights[row].argmax()} has {most[row]:.0%} of the attention"
            for row in np.sort(best)
        ]
    else:
        png, line = moment_picture(view, found.moments[0], *known)
        lines.append(f"  {line}")
        picture = image(png, "objects that the model attended to") + picture
    values = {
        "weights": view.weights,
        "sentinel": view.sentinel,
        "boxes": view.boxes,
        "times": view.times,
        "moment": found.moments[0],
    }
    return api.Explanation("\n".join(lines), values, picture)
