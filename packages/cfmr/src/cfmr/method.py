"""Binds CFMR's model, data and losses to the training loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cfmr import losses
from cfmr.config import LossConfig
from cfmr.data import Batch
from cfmr.losses import Nll
from cfmr.model import CFMR, Frames, Passes, Proposals, Supervision, flat_concepts
from vmr_common.timeline import centre_width_to_moments
from vmr_common.types import Prediction
from vmr_train.layers.gaussian import negative_progress
from vmr_train.layers.reconstruction import end_token_mask, reconstruction_nll
from vmr_train.method import Progress
from vmr_train.point_supervised import predictions
from vmr_train.preprocessing import Preprocessor
from vmr_train.video_cache import VideoCache


@dataclass(frozen=True)
class Ranked:
    """Proposals by descending score: `moments` ``(B, P, 2)`` normalised, `scores` ``(B, P)``."""

    moments: NDArray[np.float64]
    scores: NDArray[np.float64]


def moments_of(proposals: Proposals) -> NDArray[np.float64]:
    """The proposals as ``(..., 2)`` normalised ``[start, end]``, cut to the video."""
    return centre_width_to_moments(
        proposals.centre.double().cpu().numpy(), proposals.width.double().cpu().numpy()
    )


def rank(proposals: Proposals, scores: Tensor) -> Ranked:
    """Ranks the search proposals by score ``(B, P)``, highest first (ties by index)."""
    scores = scores.detach()
    order = scores.argsort(dim=1, descending=True, stable=True)
    return Ranked(moments_of(proposals)[order.cpu().numpy()], scores.gather(1, order).double().cpu().numpy())


class CFMRMethod:
    """What the training loop asks of CFMR.

    Args:
        model: The network.
        loss: Weights and margins.
        learned: Words, and the scale of the features.
        passes_per_chunk: See `reconstruction_nll`.
    """

    def __init__(
        self,
        model: CFMR,
        loss: LossConfig,
        learned: Preprocessor,
        passes_per_chunk: int = 0,
    ) -> None:
        self.model = model
        self.learned = learned
        self._loss = loss
        self._passes_per_chunk = passes_per_chunk
        self._encoded: VideoCache[Tensor] = VideoCache(model)

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """All weighted loss terms by name, batch means; `total` is their sum."""
        self._encoded.clear()  # the weights are about to change
        negatives_at = negative_progress(progress.epoch, progress.epochs, self.model.config.gamma)
        supervision = Supervision(
            video_of=batch.video_of,
            glance=batch.glance,
            masked=batch.masked,
            # a tensor, because a compiled model would be compiled anew for every new number
            progress=batch.glance.new_tensor(negatives_at),
            reference=self._loss.needs_reference,
        )
        output = self.model(batch.frames, batch.words, supervision)
        return losses.total(output.concepts, self.nll(output.states, batch), self._loss)

    def nll(self, states: Passes, batch: Batch) -> Nll:
        """What every pass of a training step fails to tell of the query."""
        mask = end_token_mask(batch.words.lengths, batch.targets.shape[1])

        def judge(passes: Tensor) -> Tensor:
            return reconstruction_nll(
                passes, self.model.classifier, batch.targets, mask, self._passes_per_chunk
            )

        return Nll(
            text=judge(states.text)[:, 0],
            positive=judge(states.positive),
            left=judge(states.left),
            right=judge(states.right),
            reference=None if states.reference is None else judge(states.reference)[:, 0],
        )

    def predict(self, batch: Batch) -> list[Prediction]:
        """P ranked moments per query, seconds; the score is the sum of K cosines.

        Each video is encoded once, see `VideoCache`.
        """
        videos = self.encode_videos(batch.videos, batch.frames)[batch.video_of]  # (B, P, K * D)
        queries = flat_concepts(self.model.encode_text(batch.words))  # (B, K * D)
        ranked = rank(self.model.search_proposals(), (videos @ queries[..., None])[..., 0])
        return predictions(batch.queries, ranked.moments, ranked.scores)

    def encode_videos(self, videos: tuple[str, ...], frames: Frames) -> Tensor:
        """Vectors ``(V, P, K * D)`` float32 of videos by id; only those not met before are encoded."""

        def encode(new: list[int]) -> Iterable[Tensor]:
            rows = torch.tensor(new, device=frames.mask.device)
            found = self.model.encode_video(Frames(frames.features[rows], frames.mask[rows]))
            return flat_concepts(found).detach().unbind()

        return torch.stack(self._encoded.of(videos, encode))

    def state(self) -> dict[str, list[str]]:
        """The vocabulary, by word class."""
        return self.learned.state()

    def state_tensors(self) -> dict[str, Tensor]:
        """The word vectors and, where features are standardised, their constants."""
        return self.learned.state_tensors()
