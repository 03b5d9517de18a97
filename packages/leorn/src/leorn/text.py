"""Attentive query feature extraction: the words of a query, their mean, and their attentive mean.

Shapes: B queries, L words of the longest, E word vector size, H model width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from leorn.data import QueryWords
from leorn.linear import FactoredLinear


class QueryFeatures(NamedTuple):
    """B queries.

    Attributes:
        sentence: f^S ``(B, H)``, the mean of the word features: meets the map.
        relational: f^RS ``(B, H)``, their attentive mean: meets the objects.
    """

    sentence: Tensor
    relational: Tensor


class QueryEncoder(nn.Module):
    """Bidirectional GRU over the words, their mean, and their mean weighted by attention of the sentence.

    Args:
        word_dim: Word vector size E.
        hidden: Width H, also of each direction of the GRU.
        layers: Layers of the GRU.
    """

    def __init__(self, word_dim: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.gru = nn.GRU(word_dim, hidden, layers, batch_first=True, bidirectional=True)
        self.sentence = nn.Linear(hidden, hidden)
        self.energy_hidden = FactoredLinear((hidden, hidden), hidden // 2)
        self.energy = nn.Linear(hidden // 2, 1)

    def words(self, words: QueryWords) -> Tensor:
        """Word features ``(B, L, H)``, the mean of both directions; zeros behind the last word."""
        packed = pack_padded_sequence(
            words.vectors, words.lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        states, _ = pad_packed_sequence(
            self.gru(packed)[0], batch_first=True, total_length=words.vectors.shape[1]
        )
        forward, backward = states.chunk(2, dim=-1)
        return (forward + backward) / 2

    def forward(self, words: QueryWords) -> QueryFeatures:
        """Encodes queries of at least one word each."""
        w = self.words(words)  # (B, L, H)
        sentence = w.sum(dim=1) / words.lengths[:, None]  # f^S, (B, H)
        u = F.relu(self.sentence(sentence))
        hidden = self.energy_hidden.project(0, w) + self.energy_hidden.project(1, u)[:, None]  # of [w; u]
        energy = self.energy(F.relu(hidden))[..., 0]  # (B, L)
        valid = torch.arange(w.shape[1], device=w.device) < words.lengths[:, None]
        weights = energy.float().masked_fill(~valid, -torch.inf).softmax(dim=1)
        return QueryFeatures(sentence, torch.einsum("bl,blh->bh", weights, w.float()))
