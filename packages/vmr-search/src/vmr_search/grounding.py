"""The interface of the second stage: a method finds the moment in videos that a retriever found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vmr_search.engine.moment_index import FoundVideo


@dataclass(frozen=True, eq=False)
class Grounded:
    """The moments that a method found in one video.

    Attributes:
        moments: ``(M, 2)`` float64, seconds of the video, best first.
        scores: ``(M,)`` float64 in the method's own unit.
        presence: Probability that the video shows the sentence at all, where the method tells it.
    """

    moments: NDArray[np.float64]
    scores: NDArray[np.float64]
    presence: float | None = None


class Grounder(Protocol):
    """A trained method of an installed paper, over the features of a corpus."""

    def ground(self, text: str, found: Sequence[FoundVideo]) -> list[Grounded | None]:
        """The moments of a sentence in each of some videos, in their order; None: it cannot say (no features)."""

    def fuse(
        self, text: str, found: Sequence[FoundVideo], grounded: Sequence[Grounded]
    ) -> list[NDArray[np.float64]]:
        """The scores by which moments are ranked over the whole corpus, from both stages, ``(M,)`` by video."""
