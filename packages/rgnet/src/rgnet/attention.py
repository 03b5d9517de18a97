"""The two attentions of the RG-Encoder (paper section 3.2): frames over words, frames over frames ("sparse").

Shapes: G texts, M windows per text, V frames, T words, D model width, H heads, d = D / H, N pairs of a text and a
window, L rows of a sequence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_BLOCK_NUMBERS = 1 << 22  # logits held at once where they are formed at all: they then stay in the cache


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``(..., L, D)`` to heads ``(..., H, L, d)``."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


class PackedAttention(nn.Module):
    """The weights of a multi-head attention with one packed projection; subclasses apply them.

    Args:
        dim: Model width D, a multiple of `heads`.
        heads: Number of heads H.
        dropout: On the attention weights.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)
        self.dropout = nn.Dropout(dropout)

    def project(self, x: Tensor, part: int, *, bias: bool = True) -> Tensor:
        """Query (0), key (1) or value (2) of ``(..., D)``, all heads side by side, ``(..., D)``."""
        rows = slice(part * x.shape[-1], (part + 1) * x.shape[-1])
        return F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows] if bias else None)

    def split(self, x: Tensor) -> Tensor:
        """``(..., L, D)`` to heads ``(..., H, L, d)``."""
        return split_heads(x, self.heads)

    def query_weights(self) -> tuple[Tensor, Tensor]:
        """The query projection of each head, to fold it into the keys: weight ``(H, d, D)`` and bias ``(H, d)``."""
        dim = self.in_proj_weight.shape[1]
        weight, bias = self.in_proj_weight[:dim], self.in_proj_bias[:dim]
        return weight.unflatten(0, (self.heads, -1)), bias.unflatten(0, (self.heads, -1))

    def output_weights(self) -> Tensor:
        """The output projection of each head, ``(H, d, D)``, to fold it into the values."""
        return self.out_proj.weight.unflatten(1, (self.heads, -1)).permute(1, 2, 0)


@dataclass(frozen=True)
class TextMemory:
    """The text side of a cross-attention layer, independent of any frame.

    Attributes:
        keys: ``(G, H, d, T)`` scaled keys.
        folded_keys: ``(G, D, H * T)``: the same with the query projection folded in, so that frames need none.
        folded_offset: ``(G, 1, H * T)`` what the query's bias adds to the logits.
        folded_values: ``(G, H * T, D)`` values with the output projection folded in.
    """

    keys: Tensor
    folded_keys: Tensor
    folded_offset: Tensor
    folded_values: Tensor


class CrossAttention(PackedAttention):
    """Text-to-video attention: frames attend over the words of their text.

    A text has few words, so the query and output projections are folded into the text's side: frames are
    multiplied with D x (H * T) instead of D x D numbers, and the text's part is the same for all its windows.
    """

    def read(self, text: Tensor) -> TextMemory:
        """The text's part, from ``(G, T, D)``."""
        key = self.split(self.project(text, 1)) * self.scale  # (G, H, T, d)
        query_weight, query_bias = self.query_weights()
        return TextMemory(
            keys=key.transpose(-2, -1),
            folded_keys=(key @ query_weight).flatten(1, 2).transpose(-2, -1),
            folded_offset=(key @ query_bias[..., None]).flatten(1)[:, None],
            folded_values=(self.split(self.project(text, 2)) @ self.output_weights()).flatten(1, 2),
        )

    def forward(self, x: Tensor, text: TextMemory, words: Tensor, query: Tensor | None = None) -> Tensor:
        """The words' contribution to the frames.

        Args:
            x: ``(G or 1, M, V, D)`` frames with their positions; not read where `query` is given.
            text: From `read`.
            words: bool, True where a frame may attend to a word: ``(G, 1, 1, 1, T)``, or up to ``(G, M, V, H, T)``.
            query: ``(G or 1, M, V, D)`` projected queries where they are at hand, as in the first layer, whose
                frames have met no text yet.

        Returns:
            ``(G, M, V, D)``.
        """
        texts, places = text.keys.shape[0], text.keys.shape[-1]
        if query is None:
            grid = x.shape[1:3]
            logits = x.flatten(1, 2) @ text.folded_keys + text.folded_offset  # (G, M * V, H * T)
            logits = logits.unflatten(-1, (self.heads, places))
        else:
            grid = query.shape[1:3]
            logits = self.split(query.flatten(1, 2)) @ text.keys  # (G, H, M * V, T)
            logits = logits.transpose(1, 2)
        logits = logits.unflatten(1, grid).masked_fill(~words, float("-inf"))  # (G, M, V, H, T)
        weights = self.dropout(logits.softmax(-1)).flatten(-2).flatten(1, 2)
        mixed = weights @ text.folded_values + self.out_proj.bias  # (G, M * V, D)
        return mixed.view(texts, *grid, -1)


class FrameAttention(PackedAttention):
    """The paper's sparse attention as it is released: an unselected frame's own logit is lowered by one.

    The released mask adds one to every *other* logit of the frame's row. That is the same under softmax, but needs
    L x L numbers per pair; nothing is hidden either way.
    """

    def keys_values(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values ``(N, H, L, d)`` of a sequence ``(N, L, D)``."""
        return self.split(self.project(x + positions, 1)), self.split(self.project(x, 2))

    def forward(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        mask: Tensor | None,
        lowered: Tensor | None,
        first: int = 0,
    ) -> Tensor:
        """Attends from some rows of the sequence.

        Args:
            x: ``(N, R, D)`` rows `first` to `first` + R of the sequence, with their positions.
            keys: ``(N, H, L, d)``.
            values: ``(N, H, L, d)``.
            mask: ``(N, L)`` bool, True = valid key, or None where all are.
            lowered: ``(N, R)``, 1 where the row's own logit is lowered, else 0; None where none is.
            first: Number of the first row.

        Returns:
            ``(N, R, D)``.
        """
        query = self.split(self.project(x, 0)) * self.scale  # (N, H, R, d)
        plain = not self.training or self.dropout.p == 0
        if mask is None and plain and not torch.is_grad_enabled() and _has_fused(query):
            mixed = _fused(query, keys, values, lowered, first)
        else:
            mixed = self._blocks(query, keys, values, mask, lowered, first)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def _blocks(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        lowered: Tensor | None,
        first: int,
    ) -> Tensor:
        rows, columns = query.shape[2], keys.shape[2]
        step = rows
        if not torch.is_grad_enabled():
            step = max(16, _BLOCK_NUMBERS // (query.shape[0] * self.heads * columns))
        hidden = None if mask is None else ~mask[:, None, None]
        mixed = []
        for start in range(0, rows, step):
            logits = query[:, :, start : start + step] @ keys.transpose(-2, -1)  # (N, H, r, L)
            if lowered is not None:
                diagonal = logits.diagonal(offset=first + start, dim1=-2, dim2=-1)
                diagonal.sub_(lowered[:, None, start : start + step])
            if hidden is not None:
                logits = logits.masked_fill(hidden, float("-inf"))
            mixed.append(self.dropout(logits.softmax(-1)) @ values)
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed, 2)


def _has_fused(query: Tensor) -> bool:
    name = "_scaled_dot_product_flash_attention_for_cpu"
    return query.device.type == "cpu" and query.dtype == torch.float32 and hasattr(torch.ops.aten, name)


def _fused(query: Tensor, keys: Tensor, values: Tensor, lowered: Tensor | None, first: int) -> Tensor:
    """Attention by torch's own kernel, with the row's own weight corrected afterwards; exact.

    With P the row's own weight of an ordinary softmax, lowering its logit by one changes the row's sum to
    ``1 + (1/e - 1) P``, and the mixture by ``(1/e - 1) P v``.
    """
    mixed, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, keys, values, 0.0, False, attn_mask=None, scale=1.0
    )
    if lowered is None:
        return mixed
    rows = slice(first, first + query.shape[2])
    own = torch.exp((query * keys[:, :, rows]).sum(-1) - log_sum)  # (N, H, R)
    change = (math.exp(-1) - 1) * own * lowered[:, None]
    return (mixed + change[..., None] * values[:, :, rows]) / (1 + change)[..., None]
