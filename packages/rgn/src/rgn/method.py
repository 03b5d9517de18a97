"""RGN as the training loop knows it: the loss of a batch, predictions for a batch, and what a checkpoint keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rgn import losses
from rgn.config import Config, LossConfig
from rgn.data import Batch, build_dataset
from rgn.gaussians import negative_progress, preferred_norm, unit_grid
from rgn.model import RGN, Proposals
from vmr_common.types import Prediction, Query
from vmr_train import prepared
from vmr_train.checkpoint import Checkpoint
from vmr_train.method import Progress
from vmr_train.predict import batches_of
from vmr_train.preprocessing import Preprocessor
from vmr_train.report import Curve
from vmr_train.weights import restored

Array = NDArray[np.float64]


def rank(proposals: Proposals, nll: Tensor) -> tuple[NDArray[np.int64], Array, Array]:
    """Candidates ranked by how well they reconstruct the query, lowest NLL ``(B, K)`` first (ties by index).

    The order ``(B, K)``, and in this order the moments ``(B, K, 2)``, normalised, and their NLL ``(B, K)``.
    """
    order = nll.argsort(dim=1, stable=True)
    centre, width, ranked = (
        values.detach().gather(1, order).double().cpu().numpy()
        for values in (proposals.centre, proposals.width, nll)
    )
    moments = np.stack([np.maximum(centre - width / 2, 0), np.minimum(centre + width / 2, 1)], axis=-1)
    return order.cpu().numpy(), moments, ranked


class RGNMethod:
    """RGN with its loss and its predictions, the functions that the training loop calls (`vmr_train.method.Method`)."""

    def __init__(self, model: RGN, loss: LossConfig, preprocessor: Preprocessor) -> None:
        self.model = model
        self.preprocessor = preprocessor
        self._loss = loss

    @classmethod
    def build(cls, config: Config, preprocessor: Preprocessor) -> RGNMethod:
        """The method of a configuration, with an untrained network."""
        network = RGN(
            config.model,
            clip_dim=config.data.features.dim,
            word_dim=preprocessor.word_vectors.shape[1],
            classes=len(preprocessor.vocabulary) + 1,
            passes_per_chunk=config.passes_per_chunk,
        )
        loss, width = config.loss, config.loss.preferred_width
        if width is not None:
            norm = preferred_norm(width, config.model.sigma, config.data.clips // 4)
            loss = dataclasses.replace(loss, lambda_=norm)
        return cls(network, loss, preprocessor)

    @classmethod
    def restore(cls, config: Config, checkpoint: Checkpoint) -> RGNMethod:
        """The method of a checkpoint, with its words and weights.

        Raises:
            UserError: if the checkpoint does not hold what the configuration asks for.
        """
        columns = config.data.features.dim if config.data.standardise else None
        preprocessor = Preprocessor.restore(checkpoint, columns)
        return restored(lambda: cls.build(config, preprocessor), checkpoint)

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """The terms of `losses.total` for a batch; the training loop back-propagates `total`."""
        # how far the negatives have come in; a tensor, because a compiled model is compiled anew for every number
        inwards = negative_progress(progress.epoch, progress.epochs, self.model.config.gamma)
        output = self.model(batch.inputs, batch.targets, batch.glance, batch.glance.new_tensor(inwards))
        assert output.compared is not None
        return losses.total(output.proposals, output.compared, batch.glance, self._loss)

    def predict(self, batch: Batch) -> list[Prediction]:
        """K ranked moments per query, seconds; the score is the negative reconstruction NLL."""
        output = self.model(batch.inputs, batch.targets)
        _, moments, nll = rank(output.proposals, output.nll)
        return [
            Prediction(
                query=query.id,
                video=query.video,
                moments=found * query.duration,
                scores=scores,
                text=query.text,
            )
            for query, found, scores in zip(batch.queries, moments, -nll, strict=True)
        ]

    def evidence(self, batch: Batch, predictions: Sequence[Prediction]) -> list[float]:
        """Gain of each query's best candidate in reconstruction over a video without content, in NLL.

        Many words are guessed without any video, so the NLL alone tells more of the sentence than of the video.
        """
        nothing = dataclasses.replace(batch.inputs, clips=torch.zeros_like(batch.inputs.clips))
        embedded = self.model.embed(nothing)
        complete = batch.glance.new_ones(len(predictions), 1, nothing.clips.shape[1] // 4)  # (B, 1, P)
        nll = self.model.nll(embedded, nothing.masked, batch.targets, complete)[:, 0].tolist()
        return [blind + float(found.scores[0]) for blind, found in zip(nll, predictions, strict=True)]

    @torch.no_grad()
    def reglances(self, batch: Batch) -> list[Curve]:
        """The re-glance Gaussian of every query of the batch, over its video's seconds.

        The batch must have glances; the model should be in eval mode.
        """
        embedded = self.model.embed(batch.inputs)
        window = self.model.window(batch.glance, self.model.reglance_width(embedded), embedded)  # (B, P)
        grid = unit_grid(window.shape[1]).double().numpy()
        return [
            Curve(name="re-glance", times=grid * query.duration, values=values)
            for query, values in zip(batch.queries, window.double().cpu().numpy(), strict=True)
        ]

    def forget(self) -> None:
        """Lets go of what is kept of videos by their ids: nothing is."""

    def state(self) -> dict[str, list[str]]:
        """The vocabulary, by word class."""
        return self.preprocessor.state()

    def state_tensors(self) -> dict[str, Tensor]:
        """The word vectors and, where features are standardised, their constants."""
        return self.preprocessor.state_tensors()


def reglance_curves(
    config: Config, method: RGNMethod, clips: prepared.FeaturesByVideo, queries: Sequence[Query]
) -> dict[str, list[Curve]]:
    """The re-glance Gaussian of every query with a glance, by query id, for the report."""
    glanced = [query for query in queries if query.glance is not None]
    dataset = build_dataset(config, method.preprocessor, clips, glanced)
    method.model.eval().cpu()
    curves: dict[str, list[Curve]] = {}
    for batch in batches_of(dataset, config.train.eval_batch):
        curves |= {
            name: [curve] for name, curve in zip(batch.query_ids, method.reglances(batch), strict=True)
        }
    return curves
