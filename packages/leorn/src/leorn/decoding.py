"""From the scores of a map to moments, as in the released evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leorn.config import DecodeConfig
from vmr_common.types import Prediction, Query
from vmr_train import map_proposals


# Same as cdn.decoding.window_seconds
def window_seconds(windows: NDArray[np.float64], clips: int, duration: float) -> NDArray[np.float64]:
    """Windows ``(K, 2)`` in clips as seconds, rounded to float32 as in the released evaluation."""
    return (windows.astype(np.float32) / np.float32(clips) * np.float32(duration)).astype(np.float64)


# Same as cdn.decoding.decode
def decode(
    scores: NDArray[np.floating],
    windows: NDArray[np.float64],
    clips: int,
    queries: Sequence[Query],
    config: DecodeConfig,
) -> list[Prediction]:
    """The best moments of each query after greedy suppression.

    Overlaps are those of the moments in seconds: on a map many lie exactly at the threshold, and what then happens
    depends on how the times were rounded.

    Args:
        scores: ``(B, P)`` of the valid cells; of equal ones the first cell comes first.
        windows: ``(P, 2)``, see `map_proposals.cell_windows`.
        clips: Clips N of the map.
        queries: B queries.
        config: Suppression threshold and number of moments.
    """
    found = []
    for row, query in zip(scores.astype(np.float64), queries, strict=True):
        moments = window_seconds(windows, clips, query.duration)
        kept, best = map_proposals.top_proposals(row[None], moments, config.nms, limit=config.moments)
        chosen = kept[0] >= 0
        found.append(
            Prediction(
                query=query.id,
                video=query.video,
                moments=moments[kept[0][chosen]],
                scores=best[0][chosen],
                text=query.text,
            )
        )
    return found
