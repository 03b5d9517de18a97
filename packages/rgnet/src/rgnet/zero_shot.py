"""The baseline ``zero-shot`` on the features that RGNet reads, where frames and sentences share a space."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vmr_common.evaluation.zero_shot import share_space, zero_shot_predictions
from vmr_common.types import Prediction, Query

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rgnet.query_features.store import QueryFeatures
    from vmr_train.prepared import FeaturesByVideo

MOST_ROWS = 500_000_000
"""Rows of videos that all queries together are compared with, at the most: some eight minutes on one processor."""
MOMENTS = 5
logger = logging.getLogger(__name__)


def zero_shot(
    queries: Sequence[Query], frames: FeaturesByVideo, vectors: QueryFeatures, stride: float
) -> list[Prediction] | None:
    """The baseline's answers, five moments each; None where there is no common space, or it would take too long.

    Args:
        queries: Of the evaluation; those of one video are handled together.
        frames: ``(L, A)`` by video, as the matching of the model takes them.
        vectors: Of the queries.
        stride: Seconds from one row to the next.
    """
    if not queries or vectors.sentence_dim is None:
        return None
    ordered = sorted(queries, key=lambda query: query.video)
    of_frames, of_sentences = (
        getattr(holder, "manifest", None) for holder in (getattr(frames, "store", None), vectors)
    )
    width = frames[ordered[0].video].shape[1]
    if (why := share_space(of_frames, of_sentences, width, vectors.sentence_dim)) is not None:
        logger.info("no row zero-shot: %s", why)
        return None
    if sum(query.duration / stride for query in queries) > MOST_ROWS:
        logger.info(
            "no row zero-shot, which would take long; vmr-video search --features and vmr-score give it"
        )
        return None

    def sentence(query: Query) -> NDArray[np.float32]:
        found = vectors.of(query).sentence
        assert found is not None  # of a file with a width of sentences every query has one
        return found

    return zero_shot_predictions(ordered, frames.__getitem__, sentence, stride, MOMENTS)
