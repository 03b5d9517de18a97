"""The result of a search: the windows of a video by their retrieval scores, and candidate moments in the best ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rgnet.config import SearchConfig
from rgnet.search import ranking

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SearchResult:
    """Ranked windows and candidate moments of one query.

    Attributes:
        order: ``(M,)`` int64 window numbers, best first.
        retrieval: ``(M,)`` retrieval score in (0, 1) by window number; not-a-number where the network did not score
            the window.
        rows: ``(K * Q, 4)`` candidates of the best K windows in their order (see `ranking`).
        row_windows: ``(K * Q,)`` int64 window number of each.
        matched: True where there are matching scores.
    """

    order: Integers
    retrieval: Floats
    rows: Floats
    row_windows: Integers
    matched: bool

    def ranked(self, config: SearchConfig) -> tuple[Floats, Integers]:
        """The final list ``(R, 5)`` (start s, end s, proposal, matching, fused), best first, and its window numbers.

        Ranked by the fused score, which is the proposal score where there is no matching score.

        Args:
            config: Of the suppression.
        """
        fused = ranking.fuse(self.rows) if self.matched else self.rows[:, ranking.PROPOSAL]
        rows, kept = ranking.rank(
            np.concatenate([self.rows, fused[:, None]], axis=1),
            by=ranking.FUSED,
            limit=config.pre_nms_top_k,
            threshold=config.nms,
            keep=config.post_nms_top_k,
        )
        return rows, self.row_windows[kept]


def search_result(
    logits: Floats,
    rest: Integers,
    decoded: Mapping[int, Floats],
    windows: Integers,
    *,
    stride: float,
    matched: bool,
    matching_by_retrieval: bool,
) -> SearchResult:
    """The result of one query in a video of M windows.

    Args:
        logits: ``(M,)`` retrieval logits by window number; not-a-number where the network did not score the window.
        rest: Numbers of the windows without a score, by falling similarity.
        decoded: ``(Q, 4)`` centre, width, foreground probability and matching score of candidates, by window number,
            of the K best windows.
        windows: ``(M, 2)`` first row and length of each window.
        stride: Seconds between two feature rows.
        matched: Whether there are matching scores.
        matching_by_retrieval: Multiply the matching score with the window's retrieval score.
    """
    by_score = np.argsort(-logits, kind="stable")  # windows without a score sort last
    order = np.concatenate([by_score[: len(by_score) - len(rest)], rest])
    retrieval = 1 / (1 + np.exp(-logits))
    best = order[: len(decoded)]
    candidates = np.stack([decoded[number] for number in best.tolist()])  # (K, Q, 4)
    score = retrieval[best, None]
    rows = ranking.candidate_rows(
        candidates[..., :2],
        candidates[..., 2] * score,
        candidates[..., 3] * (score if matching_by_retrieval else 1.0),
        windows[best],
        stride,
    )
    return SearchResult(order, retrieval, rows, np.repeat(best, candidates.shape[1]), matched)
