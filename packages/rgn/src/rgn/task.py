"""Binds RGN's model, data and losses to the training loop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rgn import losses
from rgn.config import LossConfig, ModelConfig
from rgn.data import Batch
from rgn.losses import Nll
from rgn.model import RGN, Proposals
from vmr_common.nn.gaussian import negative_progress
from vmr_common.nn.reconstruction import reconstruction_nll
from vmr_common.records import Prediction
from vmr_common.text import Vocabulary
from vmr_common.timeline import centre_width_to_moments, to_seconds
from vmr_common.training.task import Progress


@dataclass(frozen=True)
class Ranked:
    """Candidates by ascending NLL: `order` ``(B, K)`` int64, `moments` ``(B, K, 2)`` normalised, `nll` ``(B, K)``."""

    order: Tensor
    moments: NDArray[np.float64]
    nll: NDArray[np.float64]


def rank(proposals: Proposals, nll: Tensor) -> Ranked:
    """Ranks candidates by how well they reconstruct the query, lowest NLL ``(B, K)`` first (ties by index)."""
    order = nll.argsort(dim=1, stable=True)
    moments = centre_width_to_moments(
        proposals.centre.gather(1, order).double().cpu().numpy(),
        proposals.width.gather(1, order).double().cpu().numpy(),
    )
    return Ranked(order, moments, nll.gather(1, order).double().cpu().numpy())


class RGNTask:
    """What the training loop asks of RGN.

    Args:
        model: The network.
        loss: Weights and margins.
        vocabulary: The words behind the model's word classes 1, 2, ...
        word_vectors: ``(V, E)`` float32 by word class, row 0 zeros.
        passes_per_chunk: See `reconstruction_nll`.
    """

    def __init__(
        self,
        model: RGN,
        loss: LossConfig,
        vocabulary: Vocabulary,
        word_vectors: NDArray[np.float32],
        passes_per_chunk: int = 0,
    ) -> None:
        self.model = model
        self.vocabulary = vocabulary
        self.word_vectors = word_vectors
        self._loss = loss
        self._passes_per_chunk = passes_per_chunk

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """All loss terms by name, batch means; `total` is their weighted sum."""
        negatives_at = negative_progress(progress.epoch, progress.epochs, self.model.config.gamma)
        proposals, told = self.model.forward_train(batch.inputs, batch.glance, negatives_at)
        nll = Nll(
            candidates=self._nll(told.candidates, batch),
            left=self._nll(told.left, batch),
            right=self._nll(told.right, batch),
            complete=self._nll(told.complete, batch)[:, 0],
            reglance=self._nll(told.reglance, batch)[:, 0],
        )
        return losses.total(proposals, nll, batch.glance, told.reglance_window, self._loss)

    def _nll(self, states: Tensor, batch: Batch) -> Tensor:
        # the start token counts as a word: the end token is a target wherever the batch leaves room for it
        length = batch.targets.shape[1]
        mask = torch.arange(length, device=states.device) < batch.inputs.words_len[:, None] + 1
        return reconstruction_nll(states, self.model.classifier, batch.targets, mask, self._passes_per_chunk)

    def predict(self, batch: Batch) -> list[Prediction]:
        """K ranked moments per query, seconds; the score is the negative reconstruction NLL."""
        proposals, states = self.model(batch.inputs)
        ranked = rank(proposals, self._nll(states, batch))
        return [
            Prediction(
                query=query.id,
                video=query.video,
                moments=to_seconds(moments, query.duration),
                scores=-nll,
                text=query.text,
            )
            for query, moments, nll in zip(batch.queries, ranked.moments, ranked.nll, strict=True)
        ]

    def state(self) -> dict[str, list[str]]:
        """The vocabulary, by word class."""
        return {"words": list(self.vocabulary.words)}

    def state_tensors(self) -> dict[str, Tensor]:
        """The word vectors ``(V, E)``."""
        return {"word_vectors": torch.from_numpy(self.word_vectors)}
