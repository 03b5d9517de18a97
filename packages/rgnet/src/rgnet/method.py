"""Binds RGNet's model, data, losses and search to the training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rgnet import losses
from rgnet.config import Config
from rgnet.data import Batch, TrainTargets, Video
from rgnet.losses import Negative
from rgnet.matching import moment_similarities
from rgnet.model import RGNet
from rgnet.search import ranking
from rgnet.search.search import LongVideoSearch, PreparedVideo, SearchResult, TextVectors
from vmr_common.features.last_used import LRUCache
from vmr_common.features.pooling import FeatureNormalizer
from vmr_common.types import Prediction, Query
from vmr_train.method import Progress
from vmr_train.preprocessing import scale_tensors


@dataclass(frozen=True, eq=False)
class WindowScores:
    """How the windows of a video were ranked for a query.

    Attributes:
        order: ``(M,)`` int64 window numbers, best first.
        retrieval: ``(M,)`` score by window number; not-a-number where the window was not looked at.
        centres: ``(M,)`` seconds.
        moments: ``(R, 5)`` the final list with its scores (see `ranking`).
        moment_windows: ``(R,)`` window number of each moment.
    """

    order: NDArray[np.int64]
    retrieval: NDArray[np.float64]
    centres: NDArray[np.float64]
    moments: NDArray[np.float64]
    moment_windows: NDArray[np.int64]


class RGNetMethod:
    """What the training loop asks of RGNet.

    Args:
        model: The network.
        config: Of the run.
        scale: Standardises the features that the network reads, or None.
    """

    def __init__(self, model: RGNet, config: Config, scale: FeatureNormalizer | None) -> None:
        self.model, self.config, self.scale = model, config, scale
        self.windows: dict[str, WindowScores] = {}  # of every query predicted since the weights changed
        self._searcher: LongVideoSearch | None = None
        self._prepared: LRUCache[str, PreparedVideo] = LRUCache(config.search.cached_videos)
        self._device: torch.device | None = None
        model.register_load_state_dict_post_hook(lambda *_: self.forget())

    def forget(self) -> None:
        """Lets go of everything that depends on the weights."""
        self._searcher = None
        self._prepared.clear()
        self.windows.clear()

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """All weighted loss terms by name; `total` is their sum."""
        self.forget()  # the weights are about to change
        assert batch.lesson is not None
        lesson, config = batch.lesson, self.config.loss
        output = self.model(batch.tokens, lesson.frames, contrast=lesson.negative is None)
        negative = None
        if lesson.negative is not None:
            negative = Negative(self.model(batch.tokens, lesson.negative), lesson.negative.mask)
        return losses.total(
            output,
            lesson.targets,
            negative,
            self._similarity(batch, lesson),
            config,
            masked_max=self.config.quirks == "fixed",
        )

    def _similarity(self, batch: Batch, lesson: TrainTargets) -> Tensor | None:
        if lesson.matched is None or batch.sentences is None:
            return None
        return moment_similarities(lesson.matched, batch.sentences, lesson.targets.frames, self.model.adapter)

    def predict(self, batch: Batch) -> list[Prediction]:
        """Ranked moments per query, seconds; see `search`."""
        return [
            self._prediction(query, found)
            for query, found in zip(batch.queries, self.search(batch), strict=True)
        ]

    def search(self, batch: Batch) -> list[SearchResult]:
        """What is found for each query of an evaluation batch.

        A video is prepared once and kept until `SearchConfig.cached_videos` others have come, a training step is
        taken, or other weights are loaded.
        """
        searcher = self._search()
        videos = [self._prepare(searcher, video) for video in batch.videos]
        lengths = batch.tokens.mask.sum(1).tolist()
        requests = [
            (
                videos[place],
                TextVectors(
                    batch.tokens.vectors[row, : lengths[row]],
                    None if batch.sentences is None else batch.sentences[row],
                ),
            )
            for row, place in enumerate(batch.video_of)
        ]
        return searcher.search(requests)

    def _search(self) -> LongVideoSearch:
        device = self.model.retrieval_head.weight.device
        if self._searcher is None or device != self._device:
            self._prepared.clear()
            self._device = device
            data = self.config.data
            self._searcher = LongVideoSearch(
                self.model, self.config.search, window=data.window, seconds_per_row=data.seconds_per_row
            )
        return self._searcher

    def _prepare(self, searcher: LongVideoSearch, video: Video) -> PreparedVideo:
        found = self._prepared.get(video.id)
        if found is None:
            found = self._prepared[video.id] = searcher.prepare(video.features, video.frames)
        return found

    def _prediction(self, query: Query, found: SearchResult) -> Prediction:
        rows, windows = found.ranked(self.config.search)
        half, seconds = self.config.data.window // 2, self.config.data.seconds_per_row
        centres = np.arange(len(found.order), dtype=np.float64) * half * seconds
        self.windows[query.id] = WindowScores(found.order, found.retrieval, centres, rows, windows)
        moments = rows[:, [ranking.START, ranking.END]]
        if self.config.quirks == "fixed":
            moments = moments.clip(0.0, query.duration)
        return Prediction(
            query=query.id,
            video=query.video,
            moments=moments,
            scores=rows[:, ranking.FUSED],
            text=query.text,
        )

    def state(self) -> dict[str, Any]:
        """Nothing beyond the configuration."""
        return {}

    def state_tensors(self) -> dict[str, Tensor]:
        """Where features are standardised, their constants."""
        return scale_tensors(self.scale)
