"""Steps of a run that concern its inputs: what is known of features, which videos have any, where all come from."""

from __future__ import annotations

import dataclasses
import logging
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from vmr_common.errors import listed, quoted
from vmr_common.features.manifest import BaseManifest
from vmr_common.features.sameness import HasManifest
from vmr_common.splits.load import Split
from vmr_common.types import Query
from vmr_train import distributed
from vmr_train.checkpoint import Checkpoint, load_meta
from vmr_train.cli.config import to_dict
from vmr_train.cli.requests import PARTS
from vmr_train.config import RunConfig
from vmr_train.feature_files import VideoStore, parts_of, with_features
from vmr_train.fingerprint import fingerprint
from vmr_train.known_features import require_known
from vmr_train.run_folder import RunFolder
from vmr_train.splits import Splits

logger = logging.getLogger(__name__)


class Inputs(Protocol):
    """Features of videos in the form that a model reads; read on first use."""

    @property
    def store(self) -> VideoStore:
        """The files that they come from."""

    def __getitem__(self, video: str, /) -> Any:
        """Features of one video."""


def of_training(
    config: RunConfig,
    given: Namespace,
    run: RunFolder,
    inputs: Inputs,
    splits: Splits,
    **further: HasManifest | None,
) -> Splits:
    """The splits of a run; training and validation without queries of videos that have no features.

    Such queries are left out only where `data.features.missing` says so, and counted; in a test they stay.

    Args:
        config: Of the run.
        given: The options of its command.
        run: The folder; the checkpoint of a run that is resumed knows its features.
        inputs: The features of videos.
        splits: The queries.
        **further: Further inputs by their part (`video_files.PARTS`).

    Raises:
        UserError: if the features are made in another way than the configuration or that checkpoint says, or lack a
            video that is needed.
    """
    resumed = run.resume and run.last.exists()
    trained = load_meta(run.last)["describe"] if resumed else None
    _require_known(config, given, inputs, trained, **further)
    train, validation = (
        None
        if split is None
        else dataclasses.replace(split, queries=_counted(config, inputs, split, "are left out"))
        for split in (splits.train, splits.validation)
    )
    assert train is not None
    _counted(config, inputs, splits.test, "count as misses")
    return Splits(train, validation, splits.test)


def of_evaluation(
    config: RunConfig,
    given: Namespace,
    checkpoint: Checkpoint,
    inputs: Inputs,
    split: Split,
    **further: HasManifest | None,
) -> list[Query]:
    """The queries of a split whose videos have features, of which a checkpoint understands the features.

    Args:
        config: Of the checkpoint, with changes.
        given: The options of the command.
        checkpoint: Knows what it was trained on.
        inputs: The features of videos.
        split: The queries.
        **further: Further inputs by their part.

    Raises:
        UserError: as `of_training`.
    """
    _require_known(config, given, inputs, checkpoint.meta["describe"], **further)
    return _counted(config, inputs, split, "count as misses")


def _require_known(
    config: RunConfig, given: Namespace, inputs: Inputs, trained: Any, **further: HasManifest | None
) -> None:
    require_known(config, inputs.store, trained, allow=given.allow_other_features, warn=_warn, **further)


def _warn(line: str) -> None:
    if distributed.rank() == 0:
        logger.warning("%s", line)


def _counted(config: RunConfig, inputs: Inputs, split: Split, become: str) -> list[Query]:
    kept = with_features(config, inputs.store, split.name, split.queries)
    gone = without_features(inputs, split.queries) if len(kept) < len(split.queries) else []
    if gone:
        videos = dict.fromkeys(query.video for query in gone)
        _warn(
            f"{split.name}: {len(gone):,} of {len(split.queries):,} queries {become}, without features of their video: "
            f"{listed([quoted(video, 60) for video in videos], 3)}"
        )
    return kept


def without_features(inputs: Inputs, queries: Sequence[Query]) -> list[Query]:
    """The queries whose videos have no features."""
    lacking = {
        video for video in dict.fromkeys(query.video for query in queries) if video not in inputs.store
    }
    return [query for query in queries if query.video in lacking]


def read_videos(inputs: Inputs, splits: Splits) -> None:
    """Reads every video of a run that has features once, so that a damaged or misshapen one is known before training.

    Raises:
        UserError: naming the file and the video.
    """
    parts = [split for part in PARTS if (split := getattr(splits, part)) is not None]
    videos = list(dict.fromkeys(query.video for split in parts for query in split.queries))
    quiet = None if distributed.rank() == 0 else True
    for video in tqdm(videos, desc="read features", unit="video", delay=2, disable=quiet, leave=False):
        if video in inputs.store:
            inputs[video]


def describe_run(
    package: str,
    config: RunConfig,
    splits: Splits,
    store: VideoStore,
    words: Iterable[Path],
    run: RunFolder,
    root: Path,
    **further: HasManifest | None,
) -> dict[str, Any]:
    """Provenance of a run, stored in its checkpoints: configuration, data root, splits and files with their hashes.

    Call it on every rank. Hashes of a run that is resumed are not computed again for files that did not change.

    Args:
        package: The paper's package.
        config: The configuration.
        splits: The queries.
        store: The features of videos.
        words: The files behind the words of queries.
        run: The folder; its last checkpoint knows the files of a run that is resumed.
        root: The data root, where later commands look for the data.
        **further: Further inputs by their part (`video_files.PARTS`); None where there are none.
    """

    def proofs() -> dict[str, Mapping[str, Any]]:
        earlier = load_meta(run.last)["describe"] if run.resume and run.last.exists() else {}

        def proof(part: str, paths: Iterable[Path]) -> Mapping[str, Any]:
            known: Any = earlier.get(part)
            whole = isinstance(known, dict) and "times" in known
            return fingerprint(list(paths), known if whole else None)

        return {"features": proof("features", store.paths), "words": proof("words", words)}

    found = distributed.from_rank_zero(proofs)
    parts: Mapping[str, HasManifest | None] = {**parts_of(store), **further}
    kept = {part: _plain(None if inputs is None else inputs.manifest) for part, inputs in parts.items()}
    return {
        "package": package,
        "config": to_dict(config),
        "data_root": str(root.absolute()),
        "splits": {part: _provenance(getattr(splits, part)) for part in PARTS},
        "features": {**found["features"], "manifest": _plain(store.manifest)},
        "words": found["words"],
        "manifests": kept,
    }


def _plain(manifest: BaseManifest | None) -> dict[str, Any] | None:
    return None if manifest is None else dataclasses.asdict(manifest)


def _provenance(split: Split | None) -> dict[str, Any] | None:
    return None if split is None else {"name": split.name, "queries": len(split.queries), "hash": split.hash}
