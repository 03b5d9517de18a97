"""The interface of a retriever: vectors of windows of videos and of sentences whose inner product ranks a corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, quoted

if TYPE_CHECKING:
    from vmr_common.features.manifest import Manifest
    from vmr_common.features.store import FeatureStore

GROUP = "vmr.retrievers"
"""Entry points: name of a retriever -> a `Load`."""


class Retriever(Protocol):
    """Both sides of a corpus search.

    Attributes:
        name: Of its entry point.
        size: Length of a vector.
        facts: What `open_retriever` needs beside the model's file to open it again, JSON.
    """

    name: str
    size: int
    facts: Mapping[str, Any]

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of the features that it understands, so that those of files are made alike; None: not known."""

    def identity(self) -> str:
        """SHA-256 over all that decides a vector."""

    def save(self, path: Path) -> bool:
        """Writes what the model is to a file, atomically; False if `facts` say all."""

    def require_features(self, store: FeatureStore, *, allow_other: bool = False) -> None:
        """Raises `UserError` if the features are made in another way than the model's; with `allow_other` logs it."""

    def windows(
        self, features: Sequence[NDArray[np.float32]], durations: Sequence[float]
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float32]]]:
        """Windows ``(W, 2)`` in seconds and their vectors ``(W, size)`` of videos by their raw features ``(T, F)``."""

    def unsearchable(self, texts: Sequence[str]) -> list[str | None]:
        """For each sentence why it cannot be searched for (no word of it is known), or None."""

    def sentences(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors ``(Q, size)`` of sentences.

        Raises:
            UserError: naming the first one that cannot be searched for.
        """


class Load(Protocol):
    """The object behind an entry point."""

    def __call__(self, model: Path | None, facts: Mapping[str, Any], device: str = "auto") -> Retriever:
        """The retriever of a model's file (a checkpoint, a run folder, or what `Retriever.save` wrote) and facts."""


def retrievers() -> list[str]:
    """The names of all that are installed."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def open_retriever(
    name: str, model: Path | None, facts: Mapping[str, Any], device: str = "auto"
) -> Retriever:
    """Opens a retriever by name.

    Raises:
        UserError: if none of that name is installed, or as its own loading.
    """
    for point in entry_points(group=GROUP):
        if point.name == name:
            load: Load = point.load()
            return load(model, facts, device)
    raise UserError(
        f"retriever {quoted(name)}: no installed package brings it (found: {', '.join(retrievers()) or 'none'})"
    )
