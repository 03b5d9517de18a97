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


def by_head(x: Tensor, weight: Tensor) -> Tensor:
    """Each head's rows times that head's matrix: ``(N, H, R, a)`` with ``(H, a, b)`` to ``(N, H, R, b)``.

    One product per head for all N: broadcasting would copy the matrices N times.
    """
    rows = x.transpose(0, 1).flatten(1, 2) @ weight  # (H, N * R, b)
    return rows.unflatten(1, (len(x), -1)).transpose(0, 1)


def attend(logits: Tensor, hidden: Tensor | None, dropout: nn.Dropout) -> Tensor:
    """Attention weights of ``(..., L)`` logits, which are overwritten: softmax where not `hidden`, then dropout.

    Hidden logits are set outside of the graph: their weight is zero, and so is their gradient by the softmax.
    """
    if hidden is not None:
        logits.detach().masked_fill_(hidden, float("-inf"))
    weights: Tensor = dropout(logits.softmax(-1))
    return weights


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

    def head_weights(self, part: int) -> tuple[Tensor, Tensor]:
        """A projection (see `project`) of each head, to fold it elsewhere: weight ``(H, d, D)``, bias ``(H, d)``."""
        dim = self.in_proj_weight.shape[1]
        rows = slice(part * dim, (part + 1) * dim)
        weight, bias = self.in_proj_weight[rows], self.in_proj_bias[rows]
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
        query_weight, query_bias = self.head_weights(0)
        return TextMemory(
            keys=key.transpose(-2, -1),
            folded_keys=by_head(key, query_weight).flatten(1, 2).transpose(-2, -1),
            folded_offset=(key @ query_bias[..., None]).flatten(1)[:, None],
            folded_values=by_head(self.split(self.project(text, 2)), self.output_weights()).flatten(1, 2),
        )

    def forward(self, x: Tensor, text: TextMemory, hidden: Tensor, query: Tensor | None = None) -> Tensor:
        """The words' contribution to the frames.

        Args:
            x: ``(G or 1, M, V, D)`` frames with their positions; not read where `query` is given.
            text: From `read`.
            hidden: bool, True where a frame must not attend to a word: ``(G, 1, 1, 1, T)``, or up to
                ``(G, M, V, H, T)``.
            query: ``(1, M, V, D)`` projected queries where they are at hand, as in the first layer, whose frames
                have met no text yet.

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
            # all texts in one product: (H, M * V, d) with (H, d, G * T)
            logits = self.split(query[0].flatten(0, 1)) @ text.keys.permute(1, 2, 0, 3).flatten(2)
            logits = logits.unflatten(2, (texts, places)).permute(2, 1, 0, 3)  # (G, M * V, H, T)
        weights = attend(logits.unflatten(1, grid), hidden, self.dropout)  # (G, M, V, H, T)
        weights = weights.flatten(-2).flatten(1, 2)
        mixed = weights @ text.folded_values + self.out_proj.bias  # (G, M * V, D)
        return mixed.view(texts, *grid, -1)


class FrameAttention(PackedAttention):
    """The paper's sparse attention as it is released: an unselected frame's own logit is lowered by one.

    The released mask adds one to every *other* logit of the frame's row. That is the same under softmax, but needs
    L x L numbers per pair; nothing is hidden either way.
    """

    def forward(
        self, x: Tensor, placed: Tensor, *, mask: Tensor | None, lowered: Tensor, first: int = 0
    ) -> Tensor:
        """Attends from row `first` of the sequence on.

        Args:
            x: ``(N, L, D)``.
            placed: ``(N, L, D)``, the same with positions.
            mask: ``(N, L)`` bool, True = valid key, or None where all are.
            lowered: ``(N, L)``, 1 where the row's own logit is lowered, else 0.
            first: Number of the first row.

        Returns:
            ``(N, L - first, D)``.
        """
        query = self.split(self.project(placed[:, first:], 0)) * self.scale  # (N, H, R, d)
        keys, values = self.split(self.project(placed, 1)), self.split(self.project(x, 2))
        lowered, hidden = lowered[:, None, first:], None if mask is None else ~mask[:, None, None]
        if torch.is_grad_enabled() or not _has_fused(query):
            mixed = self._blocks(query, keys, values, hidden, lowered, first)
        else:
            mixed = _fused(query, keys, values, hidden, lowered, first)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def from_first(self, x: Tensor, placed: Tensor, *, mask: Tensor | None) -> Tensor:
        """Row 0 of `forward`, which is never lowered, ``(N, D)``.

        The projections of keys and values are folded into this one row's side: the sequence itself is never
        projected. The keys' bias adds the same to all logits of a row, which changes nothing.
        """
        query = self.split(self.project(placed[:, :1], 0)) * self.scale  # (N, H, 1, d)
        folded = by_head(query, self.head_weights(1)[0])[:, :, 0]  # (N, H, D)
        hidden = None if mask is None else ~mask[:, None]
        weights = attend(folded @ placed.transpose(1, 2), hidden, self.dropout)  # (N, H, L)
        value_weight, value_bias = self.head_weights(2)
        mixed = by_head((weights @ x)[:, :, None], value_weight.transpose(1, 2))[:, :, 0]  # (N, H, d)
        # with dropout the weights of a row do not sum to one
        return self.out_proj((mixed + weights.sum(-1, keepdim=True) * value_bias).flatten(1))

    def _blocks(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        hidden: Tensor | None,
        lowered: Tensor,
        first: int,
    ) -> Tensor:
        rows, columns = query.shape[2], keys.shape[2]
        step = rows
        if not torch.is_grad_enabled():
            step = max(16, _BLOCK_NUMBERS // (query.shape[0] * self.heads * columns))
        mixed = []
        for start in range(0, rows, step):
            logits = query[:, :, start : start + step] @ keys.transpose(-2, -1)  # (N, H, r, L)
            # outside of the graph: what is subtracted has no gradient
            own = logits.detach().diagonal(offset=first + start, dim1=-2, dim2=-1)
            own.sub_(lowered[..., start : start + step])
            mixed.append(attend(logits, hidden, self.dropout) @ values)
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed, 2)


def _has_fused(query: Tensor) -> bool:
    name = "_scaled_dot_product_flash_attention_for_cpu"
    known = query.dtype in (torch.float32, torch.bfloat16)
    return query.device.type == "cpu" and known and hasattr(torch.ops.aten, name)


def _fused(
    query: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None, lowered: Tensor, first: int
) -> Tensor:
    """Attention by torch's own kernel, with the row's own weight corrected afterwards; exact.

    With P the row's own weight of an ordinary softmax, lowering its logit by one changes the row's sum to
    ``1 + (1/e - 1) P``, and the mixture by ``(1/e - 1) P v``.
    """
    bias = (
        None if hidden is None else torch.zeros_like(hidden, dtype=query.dtype).masked_fill(hidden, -math.inf)
    )
    mixed, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, keys, values, 0.0, False, attn_mask=bias, scale=1.0
    )
    logit = (query * keys[:, :, first:]).sum(-1, dtype=torch.float32)  # (N, H, R)
    if hidden is not None:
        logit = logit.masked_fill(hidden[..., first:].squeeze(-2), -math.inf)
    change = (math.exp(-1) - 1) * torch.exp(logit - log_sum) * lowered
    mixed = torch.addcmul(mixed, change[..., None].to(mixed.dtype), values[:, :, first:])
    return mixed / (1 + change)[..., None].to(mixed.dtype)
