"""Binds RGN's model, data and losses to the training loop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rgn import losses
from rgn.config import LossConfig
from rgn.data import Batch
from rgn.losses import Nll
from rgn.model import RGN, Proposals, Supervision
from vmr_common.timeline import centre_width_to_moments, to_seconds
from vmr_common.types import Prediction
from vmr_train.layers.gaussian import negative_progress, unit_grid
from vmr_train.layers.reconstruction import end_token_mask, reconstruction_nll
from vmr_train.learned_inputs import Preprocessor
from vmr_train.method import Progress
from vmr_train.point_supervised import predictions
from vmr_train.report import Curve


@dataclass(frozen=True)
class Ranked:
    """Candidates by ascending NLL: `order` ``(B, K)`` int64, `moments` ``(B, K, 2)`` normalised, `nll` ``(B, K)``."""

    order: Tensor
    moments: NDArray[np.float64]
    nll: NDArray[np.float64]


def rank(proposals: Proposals, nll: Tensor) -> Ranked:
    """Ranks candidates by how well they reconstruct the query, lowest NLL ``(B, K)`` first (ties by index)."""
    centre, width, nll = (values.detach() for values in (proposals.centre, proposals.width, nll))
    order = nll.argsort(dim=1, stable=True)
    moments = centre_width_to_moments(
        centre.gather(1, order).double().cpu().numpy(),
        width.gather(1, order).double().cpu().numpy(),
    )
    return Ranked(order, moments, nll.gather(1, order).double().cpu().numpy())


class RGNMethod:
    """What the training loop asks of RGN.

    Args:
        model: The network.
        loss: Weights and margins.
        learned: Words, and the scale of the features.
        passes_per_chunk: See `reconstruction_nll`.
    """

    def __init__(
        self,
        model: RGN,
        loss: LossConfig,
        learned: Preprocessor,
        passes_per_chunk: int = 0,
    ) -> None:
        self.model = model
        self.learned = learned
        self._loss = loss
        self._passes_per_chunk = passes_per_chunk

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """All loss terms by name, batch means; `total` is their weighted sum."""
        negatives_at = negative_progress(progress.epoch, progress.epochs, self.model.config.gamma)
        # a tensor, because a compiled model would be compiled anew for every new number
        output = self.model(batch.inputs, Supervision(batch.glance, batch.glance.new_tensor(negatives_at)))
        references = output.references
        assert references is not None
        nll = Nll(
            candidates=self._nll(output.states, batch),
            left=self._nll(references.left, batch),
            right=self._nll(references.right, batch),
            complete=self._nll(references.complete, batch)[:, 0],
            reglance=self._nll(references.reglance, batch)[:, 0],
        )
        return losses.total(output.proposals, nll, batch.glance, references.reglance_window, self._loss)

    def _nll(self, states: Tensor, batch: Batch) -> Tensor:
        mask = end_token_mask(batch.inputs.words_len, batch.targets.shape[1])
        return reconstruction_nll(states, self.model.classifier, batch.targets, mask, self._passes_per_chunk)

    def predict(self, batch: Batch) -> list[Prediction]:
        """K ranked moments per query, seconds; the score is the negative reconstruction NLL."""
        output = self.model(batch.inputs)
        ranked = rank(output.proposals, self._nll(output.states, batch))
        return predictions(batch.queries, ranked.moments, -ranked.nll)

    @torch.no_grad()
    def reglances(self, batch: Batch) -> list[Curve]:
        """The re-glance Gaussian of every query of the batch, over its video's seconds.

        The batch must have glances; the model should be in eval mode.
        """
        embedded = self.model.embed(batch.inputs)
        window = self.model.window(batch.glance, self.model.reglance_width(embedded), embedded)  # (B, P)
        grid = unit_grid(window.shape[1]).double().numpy()
        return [
            Curve(name="re-glance", times=to_seconds(grid, query.duration), values=values)
            for query, values in zip(batch.queries, window.double().cpu().numpy(), strict=True)
        ]

    def state(self) -> dict[str, list[str]]:
        """The vocabulary, by word class."""
        return self.learned.state()

    def state_tensors(self) -> dict[str, Tensor]:
        """The word vectors and, where features are standardised, their constants."""
        return self.learned.state_tensors()
