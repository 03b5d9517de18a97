"""Sentence encoders."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn


class LastWordLSTM(nn.Module):
    """A unidirectional LSTM whose top state at the last word stands for the sentence (2D-TAN, CDN).

    Args:
        word_dim: Word vector size E.
        hidden: State size H.
        layers: Number of layers.
    """

    def __init__(self, word_dim: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(word_dim, hidden, layers, batch_first=True)
        # on a processor without half precision, torch's library has no such LSTM
        mkldnn = torch.backends.mkldnn.is_available()
        self._whole_on_cpu = mkldnn and not torch.ops.mkldnn._is_mkldnn_bf16_supported()

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Sentence features ``(B, H)``.

        Args:
            words: ``(B, L, E)``, padded at the end; causal, so padding reaches no real word.
            lengths: ``(B,)`` int64 words per sentence, at least 1.
        """
        whole = self._whole_on_cpu and words.device.type == "cpu"
        with torch.autocast("cpu", enabled=False) if whole else contextlib.nullcontext():
            states, _ = self.lstm(words)  # (B, L, H)
        return states[torch.arange(len(states), device=states.device), lengths - 1]
