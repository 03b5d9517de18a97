"""A trained model as two functions: videos to vectors, sentences to vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cfmr.config import Config
from cfmr.data import MaskableWords, keep, maskable_words, pad_words, stack_clips
from cfmr.method import CFMRMethod, moments_of
from cfmr.model import flat_concepts
from vmr_common.errors import UserError, quoted
from vmr_common.text.tokens import tokenize
from vmr_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vmr_train.cli.config import stored_config, to_dict
from vmr_train.device import select_device
from vmr_train.method import to_device
from vmr_train.unknown_words import UnknownWords


class Encoder:
    """Both sides of a trained model.

    Args:
        checkpoint: A CFMR checkpoint.
        device: `auto`, or a torch device.

    Raises:
        UserError: if the checkpoint is not one of CFMR or does not fit its own configuration.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto") -> None:
        self.config = stored_config(checkpoint, Config, "cfmr")
        self.checkpoint = checkpoint
        self.device = select_device(device)
        method = CFMRMethod.restore(self.config, checkpoint)
        self.model = method.model.eval().to(self.device)
        self.preprocessor = method.preprocessor

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> Encoder:
        """Reads a checkpoint file or a run folder; raises as `load_checkpoint` and the constructor."""
        return cls(load_checkpoint(path, package="cfmr"), device)

    @property
    def size(self) -> int:
        """Length of a vector: concepts x model width."""
        return self.config.model.concepts * self.config.model.hidden

    @property
    def moments(self) -> NDArray[np.float64]:
        """The proposals of every video, ``(P, 2)`` fractions of its duration."""
        return moments_of(self.model.search_proposals())

    def hash(self) -> str:
        """SHA-256 over all that decides a vector: weights, words, and the configuration of model and input."""
        config = self.config
        decisive = {
            "quirks": config.quirks,
            "model": to_dict(config.model),
            "clips": config.data.clips,
            "max_words": config.data.max_words,
            "words": list(self.preprocessor.vocabulary.words),
        }
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode())
        tensors = self.checkpoint.weights | self.checkpoint.state_tensors
        for name in sorted(tensors):
            digest.update(name.encode())
            digest.update(tensors[name].contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Writes the weights and what describes them as a checkpoint of their own."""
        parts = {"model": self.checkpoint.weights, "state": self.checkpoint.state_tensors}
        save_checkpoint(path, parts, {**self.checkpoint.meta, "role": "best"})

    @torch.no_grad()
    def encode_videos(self, features: Sequence[NDArray[np.float32]]) -> Tensor:
        """Vectors ``(V, P, K * D)`` float32 on the CPU of videos by raw features ``(n, F)`` each.

        Raises:
            UserError: if rows have another width than those of the training.
        """
        width = self.model.frame_projection.in_features
        for rows in features:
            if rows.ndim != 2 or rows.shape[1] != width:
                raise UserError(f"features of shape {rows.shape}, expected (T, {width})")
        kept = [keep(rows, self.config.data.clips) for rows in features]
        if self.preprocessor.scale is not None:
            kept = [self.preprocessor.scale(rows) for rows in kept]
        return flat_concepts(self.model.encode_video(to_device(stack_clips(kept), self.device))).cpu()

    def _words(self, text: str) -> MaskableWords:
        return maskable_words(text, self.preprocessor.vocabulary, self.config.data.max_words)

    def knows(self, text: str, unknown: UnknownWords) -> bool:
        """True if the model knows a word of a sentence; `unknown` takes in those that it does not know."""
        return unknown.add(map(str.lower, tokenize(text)), self.preprocessor.vocabulary)

    def unknown_words(self, texts: Iterable[str]) -> UnknownWords:
        """The words of sentences that the model does not know."""
        unknown = UnknownWords()
        for text in texts:
            self.knows(text, unknown)
        return unknown

    @torch.no_grad()
    def encode_queries(self, texts: Sequence[str]) -> Tensor:
        """Vectors ``(Q, K * D)`` float32 on the CPU of sentences.

        Raises:
            UserError: naming the first sentence without a word that the model knows.
        """
        words = [self._words(text) for text in texts]
        for text, known in zip(texts, words, strict=True):
            if not len(known):
                raise UserError(f"the model knows no word of the query {quoted(text)}")
        padded, _ = pad_words(words, self.preprocessor.word_vectors, max(len(known) for known in words))
        return flat_concepts(self.model.encode_text(to_device(padded, self.device))).cpu()
