"""CFMR as the training loop knows it: the loss of a batch, predictions for a batch, and what a checkpoint keeps."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cfmr import losses
from cfmr.config import Config, LossConfig
from cfmr.data import Batch
from cfmr.gaussians import negative_progress
from cfmr.losses import CorpusRows
from cfmr.model import CFMR, Clips, Output, Proposals, flat_concepts
from vmr_common.types import Prediction
from vmr_train.caches import VideoCache
from vmr_train.checkpoint import Checkpoint
from vmr_train.layers.rows_of_all import rows_of_all
from vmr_train.method import Progress
from vmr_train.preprocessing import Preprocessor
from vmr_train.weights import restored


def moments_of(proposals: Proposals) -> NDArray[np.float64]:
    """The proposals as ``(..., 2)`` normalised ``[start, end]``, cut to the video."""
    centre, half = (side.double().cpu().numpy() for side in (proposals.centre, proposals.width / 2))
    return np.stack([np.maximum(centre - half, 0), np.minimum(centre + half, 1)], axis=-1)


class CFMRMethod:
    """CFMR with its loss and its predictions, as `vmr_train.method.Method` asks for them."""

    def __init__(self, model: CFMR, loss: LossConfig, preprocessor: Preprocessor) -> None:
        self.model = model
        self.preprocessor = preprocessor
        self._loss = loss
        self._encoded: VideoCache[Tensor] = VideoCache(model)

    @classmethod
    def build(cls, config: Config, preprocessor: Preprocessor) -> CFMRMethod:
        """The method of a configuration, with an untrained network."""
        network = CFMR(
            config.model,
            clip_dim=config.data.features.dim,
            word_dim=preprocessor.word_vectors.shape[1],
            classes=len(preprocessor.vocabulary) + 1,
            learned_summary=config.quirks == "fixed",
            passes_per_chunk=config.passes_per_chunk,
        )
        return cls(network, config.loss, preprocessor)

    @classmethod
    def restore(cls, config: Config, checkpoint: Checkpoint) -> CFMRMethod:
        """The method of a checkpoint, with its words and weights.

        Raises:
            UserError: if the checkpoint does not hold what the configuration asks for.
        """
        columns = config.data.features.dim if config.data.standardise else None
        preprocessor = Preprocessor.restore(checkpoint, columns)
        return restored(lambda: cls.build(config, preprocessor), checkpoint)

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """All weighted loss terms by name, batch means; `total` is their sum."""
        self._encoded.clear()  # the weights are about to change
        # how far the negatives have come in; a tensor, because a compiled model is compiled anew for every number
        inwards = negative_progress(progress.epoch, progress.epochs, self.model.config.gamma)
        corpus, searched = self._loss.corpus, None
        if corpus.weight and corpus.proposals:
            searched = self.model.some_search_proposals(corpus.proposals, progress.update)
        output = self.model(
            batch.clips,
            batch.words,
            batch.targets,
            video_of=batch.video_of,
            masked=batch.masked,
            glance=batch.glance,
            progress=batch.glance.new_tensor(inwards),
            reference=self._loss.reference_contrast or self._loss.reference_alignment,
            searched=searched,
        )
        rows = self._corpus_rows(batch, output, searched) if corpus.weight else None
        return losses.total(output.concepts, output.proposals, output.nll, self._loss, rows)

    def _corpus_rows(self, batch: Batch, output: Output, searched: Proposals | None) -> CorpusRows:
        """The rows of the contrast between videos: of this batch, and of those of the other processes."""
        scale = self.model.config.concepts**-0.5
        text, best, left, right = (
            flat_concepts(getattr(output.concepts, name)) * scale
            for name in ("text", "best", "left", "right")
        )  # (B, S)
        around = flat_concepts(output.proposals) * scale  # (B, M, S)
        own, wrong = torch.stack([left, right], dim=1), batch.glance.new_ones(len(text), 2, dtype=torch.bool)
        everyone = rows_of_all(batch.video_key[batch.video_of])  # (N,)
        proposals = [rows_of_all(around).flatten(0, 1)]
        videos = [everyone.repeat_interleave(around.shape[1])]
        if output.searched is not None and searched is not None:
            found = flat_concepts(output.searched) * scale  # (V, P', S)
            beside = (batch.glance[:, None] - searched.centre).abs() > searched.width / 2  # (B, P')
            own, wrong = torch.cat([own, found[batch.video_of]], dim=1), torch.cat([wrong, beside], dim=1)
            key = rows_of_all(batch.video_key)
            first = ~(key[:, None] == key).tril(-1).any(dim=1)  # what several processes hold counts once
            proposals.append(rows_of_all(found)[first].flatten(0, 1))
            videos.append(key[first].repeat_interleave(found.shape[1]))
        return CorpusRows(
            text=text,
            best=best,
            own=own,
            is_wrong=wrong,
            sentence=batch.sentence_key,
            texts=rows_of_all(text),
            sentences=rows_of_all(batch.sentence_key),
            videos=everyone,
            proposals=torch.cat(proposals),
            proposal_videos=torch.cat(videos),
        )

    def predict(self, batch: Batch) -> list[Prediction]:
        """P ranked moments per query, seconds; the score is the sum of K cosines. Each video is encoded once."""
        videos = self.encode_videos(batch.videos, batch.clips)[batch.video_of]  # (B, P, K * D)
        queries = flat_concepts(self.model.encode_text(batch.words))  # (B, K * D)
        scores = (videos @ queries[..., None])[..., 0].detach()  # (B, P)
        order = scores.argsort(dim=1, descending=True, stable=True)
        ranked = scores.gather(1, order).double().cpu().numpy()
        moments = moments_of(self.model.search_proposals())[order.cpu().numpy()]  # (B, P, 2)
        return [
            Prediction(
                query=query.id,
                video=query.video,
                moments=moments[row] * query.duration,
                scores=ranked[row],
                text=query.text,
            )
            for row, query in enumerate(batch.queries)
        ]

    def encode_videos(self, videos: tuple[str, ...], clips: Clips) -> Tensor:
        """Vectors ``(V, P, K * D)`` float32 of videos by id; only those not met before are encoded."""

        def encode(new: list[int]) -> Tensor:
            rows = torch.tensor(new, device=clips.mask.device)
            return flat_concepts(
                self.model.encode_video(Clips(clips.features[rows], clips.mask[rows]))
            ).detach()

        return torch.stack(self._encoded.of(videos, encode))

    def forget(self) -> None:
        """Lets go of what is kept of videos by their ids."""
        self._encoded.clear()

    def state(self) -> dict[str, list[str]]:
        """The vocabulary, by word class."""
        return self.preprocessor.state()

    def state_tensors(self) -> dict[str, Tensor]:
        """The word vectors and, where features are standardised, their constants."""
        return self.preprocessor.state_tensors()
