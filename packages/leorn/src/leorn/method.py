"""LEORN as a method: the model, its loss on a batch, its predictions, what a checkpoint keeps beside the weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leorn import losses
from leorn.config import Config, DecodeConfig, LossConfig
from leorn.data import Batch, Preprocessor, Videos
from leorn.decoding import decode
from leorn.model import LEORN, Output, VideoEncoding, joined
from vmr_common.types import Prediction
from vmr_train import map_proposals
from vmr_train.caches import VideoCache
from vmr_train.checkpoint import Checkpoint
from vmr_train.method import Progress
from vmr_train.presence import log_odds
from vmr_train.weights import restored


class LEORNMethod:
    """The model, its loss and its predictions.

    Args:
        model: The network.
        loss: The objective.
        decode: From a score map to moments.
        preprocessor: Words, and the scale of the clip features.
        released: Whether the loss is that of the released code, see `losses.total`.
    """

    def __init__(
        self,
        model: LEORN,
        loss: LossConfig,
        decode: DecodeConfig,
        preprocessor: Preprocessor,
        *,
        released: bool = False,
    ) -> None:
        self.model = model
        self.preprocessor = preprocessor
        self._loss, self._decode, self._released = loss, decode, released
        self._encoded: VideoCache[VideoEncoding] = VideoCache(model)
        self._windows = map_proposals.cell_windows(model.map.cells.numpy())

    @classmethod
    def build(cls, config: Config, preprocessor: Preprocessor) -> LEORNMethod:
        """The method of a configuration, with an untrained network."""
        data = config.data
        network = LEORN(
            config.model,
            object_dim=data.objects.dim,
            word_dim=preprocessor.words.dim,
            clip_dim=None if data.features is None else data.features.dim,
        )
        released = config.quirks == "released"
        return cls(network, config.loss, config.decode, preprocessor, released=released)

    @classmethod
    def restore(cls, config: Config, checkpoint: Checkpoint) -> LEORNMethod:
        """The method of a checkpoint, with its words and weights.

        Raises:
            UserError: if the checkpoint does not hold what the configuration asks for.
        """
        clips = config.data.features if config.data.standardise else None
        preprocessor = Preprocessor.restore(checkpoint, None if clips is None else clips.dim)
        return restored(lambda: cls.build(config, preprocessor), checkpoint)

    def loss(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """The loss of a batch, its mean over queries and cells, as `overlap` and `total`."""
        self._encoded.clear()  # the weights are about to change
        output = self.model(batch.features, batch.video_of, batch.words)
        overlaps = self.model.map.gather(batch.overlaps)
        return losses.total(output.logits, overlaps, self._loss, released=self._released)

    def output(self, batch: Batch) -> Output:
        """Scores and attention of a batch; every video is encoded once, see `VideoCache`."""
        encoded = self.encode_videos(batch.videos, batch.features)
        if len(batch.videos) < len(batch.queries):
            encoded = encoded.rows(batch.video_of)
        return self.model.fuse_and_predict(encoded, self.model.encode_text(batch.words))

    def predict(self, batch: Batch) -> list[Prediction]:
        """The best moments per query after suppression, seconds; the score is a probability."""
        scores = self.output(batch).logits.float().sigmoid().T.cpu().numpy()  # (B, P)
        return decode(scores, self._windows, self.model.map.clips, batch.queries, self._decode)

    def evidence(self, batch: Batch, predictions: Sequence[Prediction]) -> list[float]:
        """The log odds of the best moment of each query: whether the video shows it, from the model's own score."""
        return [log_odds(float(found.scores[0])) for found in predictions]

    def encode_videos(self, videos: tuple[str, ...], features: Videos) -> VideoEncoding:
        """Videos by id up to where the query comes in; only those not met before are encoded."""

        def encode(new: list[int]) -> Iterable[VideoEncoding]:
            rows = torch.tensor(new, device=features.objects.mask.device)
            found = self.model.encode_video(features.rows(rows))
            return [found.rows(rows.new_tensor([place])) for place in range(len(new))]

        return joined(self._encoded.of(videos, encode))

    def attention(self, batch: Batch) -> NDArray[np.float32]:
        """Weight of each slot of a frame, ``(B, F, S)``; slot 0 is the sentinel where there is one."""
        return self.output(batch).attention.float().cpu().numpy()

    def forget(self) -> None:
        """Lets go of what is kept of videos by their ids."""
        self._encoded.clear()

    def state(self) -> dict[str, list[str]]:
        """The words of the training queries."""
        return self.preprocessor.state()

    def state_tensors(self) -> dict[str, Tensor]:
        """The word vectors and, where clip features are standardised, their constants."""
        return self.preprocessor.state_tensors()
