"""The object features of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmr_common.splits.sources import found_path
from vmr_train.feature_files import Missing, require_missing
from vmr_train.ranges import Layers, Margin, PathText, Width, require_ranges

if TYPE_CHECKING:
    from leorn.object_features.store import ObjectStore

SHAPES_OBJECTS = Path("shapes/objects.h5")
"""Those of the embedded data set, made on first use."""


@dataclass(frozen=True, kw_only=True)
class ObjectsConfig:
    """The object features of a run."""

    path: PathText
    """HDF5 file of object features (relative to the data root); shapes/objects.h5 is made on first use."""
    dim: Width
    """Width of an object's feature."""
    objects: Layers
    """Object slots per frame, the first ones."""
    threshold: Margin = 0.0
    """An object counts where the detector's confidence is above this."""
    expected_manifest: dict[str, Any] = field(default_factory=dict)
    """Manifest fields that this configuration expects, e.g. {box_units: normalised}."""
    missing: Missing = "error"
    """`drop`: queries of videos without objects are left out of training and validation, and count as misses in a
    test."""

    def __post_init__(self) -> None:
        require_ranges(self, "data.objects")
        require_missing("data.objects", self.missing)


def open_objects(config: ObjectsConfig, data_root: str | Path) -> ObjectStore:
    """Opens the object features; those of the embedded data set are made when they are opened for the first time.

    Raises:
        UserError: if the file is missing, or no file of objects.
    """
    # here, so that a configuration is read without h5py
    from leorn.object_features.shapes_file import ensure_objects
    from leorn.object_features.store import ObjectStore

    path = found_path(config.path, data_root)
    if Path(config.path) == SHAPES_OBJECTS:
        path = ensure_objects(Path(data_root) / SHAPES_OBJECTS.parent)
    return ObjectStore(path, objects=config.objects, dim=config.dim)
