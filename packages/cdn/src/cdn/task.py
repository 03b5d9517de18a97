"""Binds CDN's model, data and losses to the training loop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cdn import losses
from cdn.config import DecodeConfig, LossConfig
from cdn.data import Batch
from cdn.model import CDN
from vmr_common.metrics import top_proposals
from vmr_common.records import Prediction
from vmr_common.training.map_supervised import MapInputs
from vmr_common.training.task import Progress


class CDNTask:
    """What the training loop asks of CDN.

    Args:
        model: The network.
        loss: The objective.
        decode: From a score map to moments.
        learned: Words, and the scale of the features.
        over_steps: See `losses.attention_distance`.
    """

    def __init__(
        self,
        model: CDN,
        loss: LossConfig,
        decode: DecodeConfig,
        learned: MapInputs,
        *,
        over_steps: bool = False,
    ) -> None:
        self.model = model
        self.learned = learned
        self._loss, self._decode, self._over_steps = loss, decode, over_steps
        self._encoded: dict[str, Tensor] = {}
        self._windows = cell_windows(model.map.cells)
        model.register_load_state_dict_post_hook(lambda *_: self._encoded.clear())

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """All weighted loss terms by name, batch means; `total` is their sum."""
        self._encoded.clear()  # the weights are about to change
        output = self.model(batch.features, batch.video_of, batch.words)
        return losses.total(
            output.logits,
            self.cell_rows(batch.overlaps),
            output.attention.index_select(0, batch.video_of),
            self._loss,
            over_steps=self._over_steps,
        )

    def cell_rows(self, maps: Tensor) -> Tensor:
        """The valid cells ``(P, B)`` of maps ``(B, N, N)``."""
        return maps.flatten(1).T.index_select(0, self.model.map.index)

    def predict(self, batch: Batch) -> list[Prediction]:
        """The best moments per query after suppression, seconds; the score is a probability.

        Each video is encoded once, until a training step is taken or other weights are loaded.
        """
        proposals = self.encode_videos(batch.videos, batch.features).index_select(1, batch.video_of)
        scores = self.model.score(proposals, batch.words).float().sigmoid().T  # (B, P)
        decoded = decode(
            scores.detach().double().cpu().numpy(),
            self._windows,
            self.model.map.clips,
            [query.duration for query in batch.queries],
            self._decode,
        )
        return [
            Prediction(query=query.id, video=query.video, moments=moments, scores=best, text=query.text)
            for query, (moments, best) in zip(batch.queries, decoded, strict=True)
        ]

    def encode_videos(self, videos: tuple[str, ...], features: Tensor) -> Tensor:
        """Projected proposals ``(P, V, H)`` of videos by id; only those not met before are encoded."""
        new = [row for row, video in enumerate(videos) if video not in self._encoded]
        if new:
            found = self.model.encode_videos(features[torch.tensor(new, device=features.device)])
            encoded = found.proposals.detach().unbind(1)
            self._encoded |= dict(zip((videos[row] for row in new), encoded, strict=True))
        return torch.stack([self._encoded[video] for video in videos], dim=1)

    def state(self) -> dict[str, list[str]]:
        """The words of the training queries."""
        return self.learned.state()

    def state_tensors(self) -> dict[str, Tensor]:
        """The word vectors and, where features are standardised, their constants."""
        return self.learned.state_tensors()


def cell_windows(cells: Tensor) -> NDArray[np.float64]:
    """The windows ``[i, j + 1]`` of valid cells ``(N, N)``, in clips, ``(P, 2)``."""
    corners = np.argwhere(cells.cpu().numpy()).astype(np.float64)
    corners[:, 1] += 1
    return corners


def seconds(windows: NDArray[np.float64], clips: int, duration: float) -> NDArray[np.float64]:
    """Windows ``(K, 2)`` in clips as seconds, rounded to float32 as in the released evaluation."""
    times = windows.astype(np.float32) / np.float32(clips) * np.float32(duration)
    return times.astype(np.float64)


def decode(
    scores: NDArray[np.float64],
    windows: NDArray[np.float64],
    clips: int,
    durations: Sequence[float],
    config: DecodeConfig,
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The best moments of each query after suppression.

    Overlaps are those of the moments in seconds: on a map many lie exactly at the threshold, and what then
    happens depends on how the times were rounded.

    Args:
        scores: ``(B, P)``.
        windows: ``(P, 2)``, see `cell_windows`.
        clips: Clips N of the map.
        durations: ``B`` durations, seconds.
        config: Suppression threshold and number of moments.

    Returns:
        Per query the moments ``(K, 2)``, best first (of equal scores the first cell), and their scores ``(K,)``.
    """
    found = []
    for row, duration in zip(scores, durations, strict=True):
        moments = seconds(windows, clips, duration)
        kept, best = top_proposals(row[None], moments, config.nms, limit=config.moments)
        chosen = kept[0] >= 0
        found.append((moments[kept[0][chosen]], best[0][chosen].astype(np.float64)))
    return found
