"""RGNet as the training loop knows it: the loss of a batch, predictions for a batch, and what a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rgnet import losses
from rgnet.config import Config
from rgnet.data import Batch, Video, build_dataset
from rgnet.losses import Negative
from rgnet.matching import moment_similarities
from rgnet.model import RGNet
from rgnet.search import ranking
from rgnet.search.result import SearchResult
from rgnet.search.search import LongVideoSearch, PreparedVideo, TextVectors
from vmr_common.types import Prediction, Query
from vmr_train import checkpoint, prepared, preprocessing, weights
from vmr_train.caches import LRUCache
from vmr_train.method import Progress, to_device
from vmr_train.presence import log_odds
from vmr_train.report import Curve


@dataclass(frozen=True, eq=False)
class WindowScores:
    """The ranking of a video's windows for a query.

    Attributes:
        video: The video.
        order: ``(M,)`` int64 window numbers, best first.
        retrieval: ``(M,)`` score by window number; not-a-number where the network did not score the window.
        centres: ``(M,)`` seconds.
        moments: ``(R, 5)`` the final list with its scores (see `ranking`).
        moment_windows: ``(R,)`` window number of each moment.
    """

    video: str
    order: NDArray[np.int64]
    retrieval: NDArray[np.float64]
    centres: NDArray[np.float64]
    moments: NDArray[np.float64]
    moment_windows: NDArray[np.int64]


class RGNetMethod:
    """RGNet with its loss and its predictions (`vmr_train.method.Method`).

    Args:
        model: The network.
        config: Of the run.
        scale: Standardises the features that the network reads, or None.

    Attributes:
        windows: The ranked windows of every query predicted since the weights changed, by query id.
    """

    def __init__(self, model: RGNet, config: Config, scale: prepared.FeatureNormalizer | None) -> None:
        self.model, self.config, self.scale = model, config, scale
        self.windows: dict[str, WindowScores] = {}
        self._searcher: LongVideoSearch | None = None
        self._prepared: LRUCache[str, PreparedVideo] = LRUCache(config.search.cached_videos)
        model.register_load_state_dict_post_hook(lambda *_: self.forget())

    @classmethod
    def build(cls, config: Config, scale: prepared.FeatureNormalizer | None) -> RGNetMethod:
        """The method of a configuration, with an untrained network."""
        network = RGNet(
            config.model,
            frame_dim=config.data.features.dim,
            token_dim=config.data.queries.token_dim,
            sentence_dim=config.data.queries.sentence_dim or 0,
            released_mask=config.quirks == "released",
        )
        return cls(network, config, scale)

    @classmethod
    def restore(cls, config: Config, stored: checkpoint.Checkpoint) -> RGNetMethod:
        """The method of a checkpoint, with its weights.

        Raises:
            UserError: if the checkpoint does not hold what the configuration asks for.
        """
        scale = preprocessing.stored_scale(
            stored, config.data.features.dim if config.data.standardise else None
        )
        return weights.restored(lambda: cls.build(config, scale), stored)

    def start_from(self, path: str) -> None:
        """Loads the weights of another RGNet: a checkpoint, or a run folder.

        Raises:
            UserError: if they cannot be read or do not fit.
        """
        start = checkpoint.load_checkpoint(path, package="rgnet")
        weights.load_weights(self.model, start.weights, start.path)

    def forget(self) -> None:
        """Invalidates everything that depends on the weights."""
        self._searcher = None
        self._prepared.clear()
        self.windows.clear()

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """All weighted loss terms by name; `total` is their sum."""
        self.forget()  # the weights are about to change
        train = batch.train
        assert train is not None
        # contrastive clip sampling: every text meets every window; else each text also meets a negative window
        output = self.model(batch.tokens, train.windows, contrast=train.negatives is None)
        negative = similarity = None
        if train.negatives is not None:
            negative = Negative(self.model(batch.tokens, train.negatives), train.negatives.mask)
        if train.matched is not None and batch.sentences is not None:
            frames = train.targets.frames
            similarity = moment_similarities(train.matched, batch.sentences, frames, self.model.adapter)
        return losses.total(
            output,
            train.targets,
            negative,
            similarity,
            self.config.loss,
            masked_max=self.config.quirks == "fixed",
        )

    def predict(self, batch: Batch) -> list[Prediction]:
        """Ranked moments per query, seconds; see `search`."""
        found = self.search(batch)
        return [self._prediction(query, one) for query, one in zip(batch.queries, found, strict=True)]

    def search(self, batch: Batch) -> list[SearchResult]:
        """The windows and candidates of each query of an evaluation batch.

        A video is prepared once and kept until `SearchConfig.cached_videos` others have come, a training step is
        taken, or other weights are loaded.
        """
        searcher = self._current_searcher()
        videos = [self._prepare(searcher, video) for video in batch.videos]
        lengths = batch.tokens.mask.sum(1).tolist()
        texts = [
            TextVectors(tokens[:length], None if batch.sentences is None else batch.sentences[row])
            for row, (tokens, length) in enumerate(zip(batch.tokens.vectors, lengths, strict=True))
        ]
        return searcher.search(
            [(videos[place], text) for place, text in zip(batch.video_of, texts, strict=True)]
        )

    def _current_searcher(self) -> LongVideoSearch:
        device = self.model.retrieval_head.weight.device
        data, known = self.config.data, self._searcher
        if known is not None and (known.device, known.feature_stride) != (device, data.stride):
            self._searcher = None
        if self._searcher is None:
            self._prepared.clear()
            self._searcher = LongVideoSearch(
                self.model, self.config.search, window=data.window, feature_stride=data.stride
            )
        return self._searcher

    def _prepare(self, searcher: LongVideoSearch, video: Video) -> PreparedVideo:
        found = self._prepared.get(video.id)
        if found is None:
            found = self._prepared[video.id] = searcher.prepare(video.features, video.frames)
        return found

    def _prediction(self, query: Query, found: SearchResult) -> Prediction:
        rows, windows = found.ranked(self.config.search)
        half, stride = self.config.data.window // 2, self.config.data.stride
        centres = np.arange(len(found.order), dtype=np.float64) * half * stride
        self.windows[query.id] = WindowScores(
            query.video, found.order, found.retrieval, centres, rows, windows
        )
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

    def evidence(self, batch: Batch, predictions: Sequence[Prediction]) -> list[float]:
        """The log odds of each query's best window: the fused score of moments only compares those of one video."""
        return [log_odds(float(np.nanmax(self.windows[found.query].retrieval))) for found in predictions]

    def state(self) -> dict[str, list[str]]:
        """Nothing beyond the configuration."""
        return {}

    def state_tensors(self) -> dict[str, Tensor]:
        """The constants of the features, where these are standardised."""
        return preprocessing.scale_tensors(self.scale)


def window_curves(
    config: Config,
    method: RGNetMethod,
    frames: prepared.FeaturesByVideo,
    root: Path,
    queries: Sequence[Query],
) -> dict[str, list[Curve]]:
    """The retrieval score of every window over the whole video, by query id, from its lowest to its highest."""
    known = {(name, found.video) for name, found in method.windows.items()}
    missing = [query for query in queries if (query.id, query.video) not in known]
    if missing:
        method.model.eval()
        dataset = build_dataset(config, method.scale, frames, root, missing)
        device = method.model.retrieval_head.weight.device
        with torch.no_grad():
            for index in range(len(dataset)):
                method.predict(to_device(dataset.batch([index], None), device))
    curves = {}
    for query in queries:
        found = method.windows.get(query.id)
        if found is not None:
            scores = ranking.spread(np.nan_to_num(found.retrieval, nan=np.nanmin(found.retrieval)))
            curves[query.id] = [Curve(name="windows", times=found.centres, values=scores)]
    return curves
