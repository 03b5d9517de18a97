"""CDN as a method: the model, its loss on a batch, its predictions, and what a checkpoint keeps beside the weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from cdn import losses
from cdn.config import Config, DecodeConfig, LossConfig
from cdn.data import Batch, Preprocessor
from cdn.decoding import decode
from cdn.model import CDN
from vmr_common.types import Prediction
from vmr_train import map_proposals
from vmr_train.caches import VideoCache
from vmr_train.checkpoint import Checkpoint
from vmr_train.method import Progress
from vmr_train.presence import log_odds
from vmr_train.weights import restored


class CDNMethod:
    """The model, its loss and its predictions.

    Args:
        model: The network.
        loss: The objective.
        decode: From a score map to moments.
        preprocessor: Words, and the scale of the features.
        released: Whether the loss is that of the released code, see `losses.total`.
    """

    def __init__(
        self,
        model: CDN,
        loss: LossConfig,
        decode: DecodeConfig,
        preprocessor: Preprocessor,
        *,
        released: bool = False,
    ) -> None:
        self.model = model
        self.preprocessor = preprocessor
        self._loss, self._decode, self._released = loss, decode, released
        self._encoded: VideoCache[Tensor] = VideoCache(model)
        self._windows = map_proposals.cell_windows(model.map.cells.cpu().numpy())

    @classmethod
    def build(cls, config: Config, preprocessor: Preprocessor) -> CDNMethod:
        """The method of a configuration, with an untrained network."""
        network = CDN(config.model, frame_dim=config.data.features.dim, word_dim=preprocessor.words.dim)
        released = config.quirks == "released"
        return cls(network, config.loss, config.decode, preprocessor, released=released)

    @classmethod
    def restore(cls, config: Config, checkpoint: Checkpoint) -> CDNMethod:
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
        output = self.model(batch.features, batch.video_of, batch.words)
        return losses.total(
            output.logits,
            self.model.map.gather(batch.overlaps),
            output.attention.index_select(0, batch.video_of),
            self._loss,
            released=self._released,
        )

    def predict(self, batch: Batch) -> list[Prediction]:
        """The best moments per query after suppression, seconds; the score is a probability.

        Each video is encoded once, see `VideoCache`.
        """
        proposals = self.encode_videos(batch.videos, batch.features).index_select(1, batch.video_of)
        scores = self.model.score(proposals, batch.words).float().sigmoid().T  # (B, P)
        rows = scores.detach().cpu().numpy()
        return decode(rows, self._windows, self.model.map.clips, batch.queries, self._decode)

    def evidence(self, batch: Batch, predictions: Sequence[Prediction]) -> list[float]:
        """The log odds of the best moment of each query: whether the video shows it, from the model's own score."""
        return [log_odds(float(found.scores[0])) for found in predictions]

    def encode_videos(self, videos: tuple[str, ...], features: Tensor) -> Tensor:
        """Projected proposals ``(P, V, H)`` of videos by id; only those not met before are encoded."""

        def encode(new: list[int]) -> Iterable[Tensor]:
            proposals, _ = self.model.encode_videos(features[torch.tensor(new, device=features.device)])
            return proposals.detach().unbind(1)

        return torch.stack(self._encoded.of(videos, encode), dim=1)

    def forget(self) -> None:
        """Lets go of what is kept of videos by their ids."""
        self._encoded.clear()

    def state(self) -> dict[str, list[str]]:
        """The words of the training queries."""
        return self.preprocessor.state()

    def state_tensors(self) -> dict[str, Tensor]:
        """The word vectors and, where features are standardised, their constants."""
        return self.preprocessor.state_tensors()
