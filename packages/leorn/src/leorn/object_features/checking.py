"""Problems of object features, video by video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from leorn.object_features.box_form import SLACK
from leorn.object_features.layouts import ASSUMED, ObjectFrames, ObjectManifest
from leorn.object_features.store import ObjectStore
from vmr_common.errors import UserError


def check_objects(
    store: ObjectStore, videos: Iterable[str], dim: int | None = None, objects: int | None = None
) -> list[str]:
    """Reads every one of `videos` and returns all problems, one line each; empty when all is well.

    Args:
        store: The objects.
        videos: Ids to check; repeated ids are checked once.
        dim: Expected width, or None.
        objects: Fewest object slots that are acceptable, or None.
    """
    return list(_problems(store, dict.fromkeys(videos), dim, objects))


def _problems(
    store: ObjectStore, videos: Iterable[str], dim: int | None, objects: int | None
) -> Iterator[str]:
    manifest = store.manifest or ASSUMED
    for video in videos:
        where = f"{store.name}: video {video!r}"
        try:
            found = store[video]
        except UserError as error:
            yield str(error)
            continue
        if dim is not None and found.features.shape[2] != dim:
            yield f"{where} has features of width {found.features.shape[2]}, expected {dim}"
        if objects is not None and found.objects < objects:
            yield f"{where} has {found.objects} objects per frame, expected at least {objects}"
        yield from (f"{where} {problem}" for problem in _box_problems(found, manifest))


def _box_problems(found: ObjectFrames, manifest: ObjectManifest) -> Iterator[str]:
    """Contradictions to the manifest's box order and units, among the slots that hold an object."""
    boxes = found.boxes[found.confidence > 0]
    if (found.confidence < 0).any():
        yield f"has a confidence of {found.confidence.min():.3g}, expected 0 or more"
    if not len(boxes):
        return
    low, high = float(boxes.min()), float(boxes.max())
    if manifest.box_units == "normalised" and not (low >= -SLACK and high <= 1 + SLACK):
        yield f"has boxes from {low:.3g} to {high:.3g}, expected fractions of the picture (0 to 1)"
    if manifest.box_order == "x1 y1 x2 y2" and (boxes[:, 2:] < boxes[:, :2]).any():
        yield "has boxes that end before they start, expected x1 y1 x2 y2"
