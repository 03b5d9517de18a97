"""Writes a Shapes data set into a folder, whole or not at all, and tells whether one is there and intact."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vmr_common.boundary import reason
from vmr_common.errors import UserError, quoted
from vmr_common.features.manifest import creator
from vmr_common.features.store import write_features
from vmr_common.io import partial_of, read_json, sha256, write_json_lines, write_text, writing
from vmr_common.schema import conform
from vmr_common.splits.objects import canonical_row
from vmr_common.types import Query, as_moments
from vmr_common.whole_folder import held, whole_folder
from vmr_shapes.features import COLUMNS, Projection, manifest_of, statistics
from vmr_shapes.language import sentences
from vmr_shapes.render import Frames, render
from vmr_shapes.scene import held_out_combinations, make_scene
from vmr_shapes.spec import LONG, SHORT, SPLITS, PortableRandom, ShapesSpec, split_video
from vmr_shapes.vectors import word_table

GENERATOR = 3  # raised whenever the same spec gives other bytes
WORKERS = 2
SAY_EVERY_S = 20.0
"""Between log lines on progress, where there is no terminal."""
META, CHECKSUMS = "meta.json", "checksums.json"
OBJECTS, OBJECTS_NOTE = "objects.h5", "objects.json"  # made when first asked for, see `object_file`
FILES = (*(f"{split}.jsonl" for split in SPLITS), "features.h5", "words.txt", META)
logger = logging.getLogger(__name__)
Kind = TypeVar("Kind")


class Checksum(TypedDict):
    """Of a file, in ``checksums.json``."""

    sha256: str
    bytes: int


class Standardisation(TypedDict):
    """Constants of each column of the statistics."""

    mean: list[float]
    deviation: list[float]


class Meta(TypedDict):
    """Content of ``meta.json``."""

    generator: int
    creator: str
    spec: dict[str, Any]
    held_out: list[tuple[str, str, str]]
    held_out_queries: list[str]
    standardisation: Standardisation


def queries(split: str, spec: ShapesSpec = SHORT) -> list[Query]:
    """The queries of a split with their exact moments and glances, in seconds; draws no pixel.

    Query ids are ``<video>_<n>``, n from 0 by start of the moment. Glances are uniform inside the moment,
    rounded to 0.01 s.
    """
    return [query for video in spec.videos(split) for query, _ in _video_queries(video, spec)]


def _video_queries(video: str, spec: ShapesSpec) -> list[tuple[Query, tuple[str, str, str]]]:
    """Queries of a video, each with its colour, shape and action."""
    scene = make_scene(video, spec)
    split, number = split_video(video, spec)
    rows = []
    for n, sentence in enumerate(sentences(scene, spec)):
        event = sentence.event
        start, end = scene.moment(event)
        draw = PortableRandom(spec.seed, 9005, SPLITS.index(split), number, event.first, event.thing)
        query = Query(
            id=f"{video}_{n}",
            video=video,
            text=sentence.text,
            duration=scene.duration,
            moments=as_moments([[start, end]]),
            glance=min(max(round(draw.uniform(start, end), 2), start), end),
        )
        rows.append((query, scene.combination(event)))
    return rows


def ensure(folder: str | Path, spec: ShapesSpec = SHORT, *, verify: bool = False) -> Path:
    """Returns the folder with the data set of `spec`, generating it if it is not there or is damaged.

    The files are ``train.jsonl``, ``val.jsonl``, ``test.jsonl`` (canonical annotations), ``features.h5``,
    ``words.txt`` (GloVe text), ``meta.json`` (spec, held-out combinations) and ``checksums.json``. They are
    written into a hidden folder beside `folder` that takes its name when all are complete, so a killed
    process leaves nothing that looks finished; of several callers at once one generates and the others wait.

    Args:
        folder: Where it is or shall be; missing parents are made.
        spec: What it consists of.
        verify: Also compare every file's SHA-256 (sizes are always compared).

    Raises:
        UserError: if the folder holds something else, or Shapes of another spec, or cannot be written.
    """
    folder = Path(folder).resolve()
    if _problem(folder, spec, verify) is None:
        return folder
    with writing(folder), locked(folder):
        problem = _problem(folder, spec, verify)  # another process may have been faster
        if problem is not None:
            _replace(folder, spec, problem)
    return folder


def ensure_long(folder: str | Path) -> Path:
    """The folder with ``shapes-long``, see `ensure`."""
    return ensure(folder, LONG)


def _problem(folder: Path, spec: ShapesSpec, verify: bool) -> str | None:
    """The reason to generate the data set, or None if it is there and intact."""
    if not folder.exists():
        return "absent"
    if not folder.is_dir():
        raise UserError(f"{folder}: a file stands where the Shapes folder belongs")
    foreign = sorted(path.name for path in folder.iterdir() if not is_own(path.name))
    if foreign:
        raise UserError(
            f"{folder}: not a folder of Shapes data (it holds {foreign[0]}), name another or an empty one"
        )
    meta, sums = _read_own(folder / META, Meta), _read_own(folder / CHECKSUMS, dict[str, Checksum])
    if meta is None and sums is None and any(folder.iterdir()):
        raise UserError(
            f"{folder}: neither {META} nor {CHECKSUMS} says that this is Shapes data, name another or an empty folder"
        )
    if meta is None or sums is None:
        return "incomplete"
    for name in FILES:
        path = folder / name
        if not path.is_file() or name not in sums:
            return "incomplete"
        if path.stat().st_size != sums[name]["bytes"]:
            return f"{name} is damaged: not the size that {CHECKSUMS} says"
        if verify and sha256(path) != sums[name]["sha256"]:
            return f"{name} is damaged: not the SHA-256 that {CHECKSUMS} says"
    if meta["generator"] != GENERATOR:
        return "made by another version"
    found = meta["spec"]
    if found != spec.to_json():
        wanted = spec.to_json()
        other = next(name for name in {**wanted, **found} if found.get(name) != wanted.get(name))
        raise UserError(
            f"{folder}: holds Shapes with {other} {quoted(found.get(other), 60)}, asked for {wanted.get(other)}; "
            "name another folder or delete this one"
        )
    return None


def _read_own(path: Path, kind: type[Kind]) -> Kind | None:
    """Content of a file of a Shapes folder, or None if it is damaged or not there."""
    try:
        return conform(read_json(path), kind, str(path))
    except UserError:
        return None


def is_own(name: str) -> bool:
    """True for the name of a file of a Shapes folder, or of such a file that is being written."""
    return (partial_of(name) or name) in (*FILES, CHECKSUMS, OBJECTS, OBJECTS_NOTE)


def locked(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Lets one process at a time generate beside `folder`, see `held`."""
    return held(folder, is_own, "renders Shapes")


def _replace(folder: Path, spec: ShapesSpec, problem: str) -> None:
    """Generates beside the folder, whose place the result takes."""
    videos = sum(spec.count(split) for split in SPLITS)
    if problem == "absent":
        logger.info("generating the data set %s (%d rendered videos) in %s", folder.name, videos, folder)
    else:
        logger.warning("generating the data set in %s anew: %s", folder, problem)
    try:
        with whole_folder(folder, is_own) as fresh:
            _write(fresh, spec)
    except OSError:
        if _problem(folder, spec, verify=False) is not None:  # not a concurrent caller's finished folder
            raise


def _write(folder: Path, spec: ShapesSpec) -> None:
    held_out = held_out_combinations(spec)
    unseen: list[str] = []
    for split in SPLITS:
        rows = [row for video in spec.videos(split) for row in _video_queries(video, spec)]
        unseen += [query.id for query, combination in rows if combination in held_out]
        write_json_lines(folder / f"{split}.jsonl", ({**canonical_row(q), "split": split} for q, _ in rows))
    write_text(folder / "words.txt", word_table(spec))
    projection = _write_features(folder / "features.h5", spec)
    meta = {
        "generator": GENERATOR,
        "creator": creator(),
        "spec": spec.to_json(),
        "held_out": sorted(held_out),
        "held_out_queries": unseen,
        "standardisation": {"mean": projection.mean.tolist(), "deviation": projection.deviation.tolist()},
    }
    write_text(folder / META, json.dumps(meta, indent=1) + "\n")
    sums = {
        name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in FILES
    }
    write_text(folder / CHECKSUMS, json.dumps(sums, indent=1) + "\n")


def with_progress(items: Iterable[Kind], total: int, what: str) -> Iterator[Kind]:
    """The items of so many videos, with a bar in a terminal and a log line now and then elsewhere."""
    if sys.stderr.isatty():
        yield from tqdm(items, what, total, unit="video", leave=False)
        return
    said = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        if done < total and time.monotonic() - said >= SAY_EVERY_S:
            logger.info("%s: %d of %d videos", what, done, total)
            said = time.monotonic()


def _write_features(path: Path, spec: ShapesSpec) -> Projection:
    videos = [video for split in SPLITS for video in spec.videos(split)]

    def rows(video: str) -> NDArray[np.int32]:
        return statistics(render(make_scene(video, spec)), spec.frames_per_row)

    # threads: the arrays are large enough for numpy to work on two cores, and nothing needs to be spawned
    pool = ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1))
    try:
        table = list(with_progress(pool.map(rows, videos), len(videos), "Shapes"))
    finally:
        pool.shutdown(cancel_futures=True)
    projection = Projection.fit(np.concatenate(table[: spec.train]), spec.feature_dim, spec.seed)
    source = f"Shapes, generator {GENERATOR}, seed {spec.seed}"
    manifest = dataclasses.replace(manifest_of(spec, projection), source=source)
    items = ((video, projection(t)) for video, t in zip(videos, table, strict=True))
    write_features(path, items, manifest, "float32")
    return projection


def read_spec(folder: str | Path) -> ShapesSpec:
    """The spec that a Shapes folder was generated from.

    Raises:
        UserError: if the folder holds no Shapes data set of this version.
    """
    spec = _read_meta(folder)["spec"]
    try:
        return ShapesSpec.from_json(spec)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{Path(folder) / META}: not the description of a Shapes data set ({reason(error)})"
        ) from None


def projection_of(folder: str | Path) -> Projection:
    """What turns pixel statistics into the features of a Shapes folder.

    Raises:
        UserError: if the folder holds no Shapes data set of this version.
    """
    spec, known = read_spec(folder), _read_meta(folder)["standardisation"]
    if not len(known["mean"]) == len(known["deviation"]) == len(COLUMNS):
        raise UserError(
            f"{Path(folder) / META}: standardisation: expected {len(COLUMNS)} means and deviations"
        )
    return Projection.drawn(known["mean"], known["deviation"], spec.feature_dim, spec.seed)


def held_out_queries(folder: str | Path) -> frozenset[str]:
    """Ids of the queries about a colour, shape and action that training never shows together.

    Raises:
        UserError: if the folder holds no Shapes data set of this version.
    """
    return frozenset(_read_meta(folder)["held_out_queries"])


def _read_meta(folder: str | Path) -> Meta:
    path = Path(folder) / META
    meta = read_json(path)
    if not isinstance(meta, dict) or "generator" not in meta:
        raise UserError(f"{path}: not the description of a Shapes data set")
    if meta["generator"] != GENERATOR:
        raise UserError(
            f"{path}: made by generator {quoted(meta['generator'], 60)}, this version is {GENERATOR}"
        )
    return conform(meta, Meta, str(path))


def frames(folder: str | Path, video: str) -> tuple[Frames, NDArray[np.float64]]:
    """Draws a video of a Shapes folder again.

    Args:
        folder: As returned by `ensure`.
        video: A video id, e.g. ``test-0003``.

    Returns:
        ``(F, H, W, 3)`` uint8 RGB frames and ``(F,)`` float64, the time in seconds from which each shows.

    Raises:
        UserError: if the folder holds no Shapes data set or the data set no such video.
    """
    spec = read_spec(folder)
    try:
        split_video(video, spec)
    except ValueError as error:
        raise UserError(
            f"{folder}: {error}, it has {spec.videos('train')[0]} to {spec.videos('test')[-1]}"
        ) from None
    pictures = render(make_scene(video, spec))
    return pictures, np.arange(len(pictures)) / spec.fps
