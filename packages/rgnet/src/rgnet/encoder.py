"""The RG-Encoder (paper section 3.2): cross attention, retrieval token, frame sampler, sparse self attention.

Shapes as in `rgnet.attention`. A *pair* is a text with a window; the paper calls windows clips.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from rgnet.attention import CrossAttention, FrameAttention, TextMemory

_ROWS_AT_ONCE = 512  # of a feed-forward net on the CPU


def sine_positions(mask: Tensor, dim: int, temperature: float) -> Tensor:
    """Positions of frames relative to their window's length, ``(..., V, D)`` float32.

    The t-th of n valid frames lies at ``2 pi t / n``; column j holds its sine (even j) or cosine (odd j) at the
    frequency ``temperature ** (-2 (j // 2) / D)``. Padding has the position of the last valid frame.

    Args:
        mask: ``(..., V)`` bool, True = valid, valid frames first, at least one.
        dim: Width D.
        temperature: Of the frequencies.
    """
    count = mask.cumsum(-1, dtype=torch.float32)
    angle = count / (count[..., -1:] + 1e-6) * (2 * math.pi)
    return sine_code(angle, dim, temperature)


def sine_code(angle: Tensor, dim: int, temperature: float) -> Tensor:
    """Sines and cosines in turn of ``(...)`` angles at falling frequencies, ``(..., dim)``."""
    column = torch.arange(dim, device=angle.device)
    frequency = temperature ** (-(2 * (column // 2)).float() / dim)
    phase = angle[..., None] * frequency
    return torch.where(column % 2 == 0, phase.sin(), phase.cos())


class InputProjection(nn.Module):
    """Features to the model's width: ``W2 drop(LN(ReLU(W1 drop(LN(x)))))``."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.linear1 = nn.LayerNorm(dim), nn.Linear(dim, hidden)
        self.norm2, self.linear2 = nn.LayerNorm(hidden), nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D_in)`` to ``(..., D)``."""
        x = self.linear1(self.dropout(self.norm1(x))).relu()
        return self.linear2(self.dropout(self.norm2(x)))


class _DroppedReLU(torch.autograd.Function):
    """``drop(ReLU(x))`` with the draws and numbers of `F.dropout`, from which all that backward needs can be read.

    An output is positive where its gradient passes, so neither the draws nor the ReLU are kept beside it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.scale = (torch.ones((), dtype=x.dtype) / (1 - p)).item()
        out = torch.empty_like(x).bernoulli_(1 - p).mul_(x).clamp_min_(0).mul_(ctx.scale)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, out, 0).mul_(ctx.scale), None


class FeedForward(nn.Module):
    """``W2 drop(ReLU(W1 x))``."""

    def __init__(self, dim: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(dim, inner), nn.Linear(inner, dim)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` to ``(..., D)``."""
        rows = x.reshape(-1, x.shape[-1])
        if torch.is_grad_enabled() or not rows.is_cpu:
            return self.linear2(self._inner(rows)).view(x.shape)
        # some rows at a time, so that the inner numbers stay in the processor's cache
        parts = [self.linear2(self._inner(part)) for part in rows.split(_ROWS_AT_ONCE)]
        return torch.cat(parts).view(x.shape)

    def _inner(self, rows: Tensor) -> Tensor:
        inner, p = self.linear1(rows), self.dropout.p
        if not (self.training and 0 < p < 1 and inner.is_cpu) or torch.compiler.is_compiling():
            return self.dropout(inner.relu_())
        dropped: Tensor = _DroppedReLU.apply(inner, p)
        return dropped


@dataclass(frozen=True)
class Texts:
    """G texts as the encoder reads them.

    Attributes:
        mask: ``(G, T)`` bool, True = word.
        layers: One per cross-attention layer.
    """

    mask: Tensor
    layers: tuple[TextMemory, ...]


@dataclass(frozen=True)
class Windows:
    """Projected frames, before any text. The first axis is 1 where all texts share the windows.

    Attributes:
        x: ``(G or 1, M, V, D)``.
        positions: As `x`, or ``(1, 1, V, D)`` for windows of one length.
        mask: ``(G or 1, M, V)`` bool, True = valid; None where no window is padded.
        query: ``(1, M, V, D)`` queries of the first cross-attention layer where texts share the windows, or None to
            have them folded into the text.
    """

    x: Tensor
    positions: Tensor
    mask: Tensor | None
    query: Tensor | None = None


@dataclass(frozen=True)
class Encoded:
    """N = G * M pairs (text-major) before the last self-attention layer.

    Attributes:
        states: ``(N, 1 + V, D)``, the retrieval token first.
        positions: ``(P, 1 + V, D)``, of pair n those of number n mod P: 1 or M or N.
        mask: ``(N, 1 + V)`` bool, or None.
        gate: ``(N, V)`` 0 or 1 per frame; in training its gradient is that of the soft gate.
        lowered: ``(N, 1 + V)`` 1 at unselected frames, no gradient.
    """

    states: Tensor
    positions: Tensor
    mask: Tensor | None
    gate: Tensor
    lowered: Tensor

    def placed(self) -> Tensor:
        """The states with their positions, ``(N, 1 + V, D)``."""
        return (self.states.unflatten(0, (-1, len(self.positions))) + self.positions).flatten(0, 1)

    def pick(self, rows: Tensor) -> Encoded:
        """Some of the pairs."""
        return Encoded(
            self.states[rows],
            self.positions if len(self.positions) == 1 else self.positions[rows % len(self.positions)],
            None if self.mask is None else self.mask[rows],
            self.gate[rows],
            self.lowered[rows],
        )


@dataclass(frozen=True)
class Gate:
    """The decisions of the frame sampler: `hard` ``(N, 1 + V)`` 0 or 1, `weight` the same with the soft gradient."""

    hard: Tensor
    weight: Tensor


class CrossLayer(nn.Module):
    """Cross-attention layer; the residual is taken before the first norm and the second one closes the layer."""

    def __init__(self, dim: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention = CrossAttention(dim, heads, dropout)
        self.feed_forward = FeedForward(dim, inner, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, windows: Windows, text: TextMemory, hidden: Tensor) -> Tensor:
        """``(G, M, V, D)`` frames that have read their text; see `CrossAttention.forward` for `hidden`."""
        with_positions = windows.x if windows.query is not None else windows.x + windows.positions
        read = self.attention(with_positions, text, hidden, windows.query)
        x = windows.x + self.dropout(read)  # (G or 1, M, V, D) to (G, M, V, D)
        return self.norm2(x + self.dropout(self.feed_forward(self.norm1(x))))


class SelfLayer(nn.Module):
    """Post-norm encoder layer over the retrieval token and the frames; it can compute some rows alone."""

    def __init__(self, dim: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention = FrameAttention(dim, heads, dropout)
        self.feed_forward = FeedForward(dim, inner, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Encoded, first: int = 0) -> Tensor:
        """Rows `first` and following of the layer's output, ``(N, 1 + V - first, D)``."""
        mixed = self.attention(x.states, x.placed(), mask=x.mask, lowered=x.lowered, first=first)
        return self._rest(x.states[:, first:], mixed)

    def token(self, x: Encoded) -> Tensor:
        """Row 0 of the layer's output alone, ``(N, D)``."""
        return self._rest(x.states[:, 0], self.attention.from_first(x.states, x.placed(), mask=x.mask))

    def _rest(self, states: Tensor, mixed: Tensor) -> Tensor:
        states = self.norm1(states + self.dropout(mixed))
        return self.norm2(states + self.dropout(self.feed_forward(states)))


class RGEncoder(nn.Module):
    """Cross attention, retrieval token, frame sampler and sparse self attention (paper section 3.2).

    Its result is taken in two steps, because most pairs are needed for their retrieval token only: `encode` runs
    all layers but the last, `summarise` the last one for the token, `complete` the last one for the frames.

    Args:
        dim: Model width D.
        heads: Attention heads.
        inner: Width inside feed-forward nets.
        cross_layers: Layers in which frames read the text.
        self_layers: Layers in which frames read each other, at least 1.
        dropout: After and inside every sub-block.
        temperature: Of the soft gate in training.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        inner: int,
        *,
        cross_layers: int,
        self_layers: int,
        dropout: float,
        temperature: float,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.token, self.token_position = nn.Parameter(torch.randn(dim)), nn.Parameter(torch.randn(dim))
        self.cross_layers = nn.ModuleList(CrossLayer(dim, heads, inner, dropout) for _ in range(cross_layers))
        self.gate = nn.Linear(dim, 1)
        nn.init.xavier_uniform_(self.gate.weight)
        self.self_layers = nn.ModuleList(SelfLayer(dim, heads, inner, dropout) for _ in range(self_layers))

    @property
    def _cross(self) -> list[CrossLayer]:
        return cast("list[CrossLayer]", list(self.cross_layers))

    @property
    def _own(self) -> list[SelfLayer]:
        return cast("list[SelfLayer]", list(self.self_layers))

    def read(self, text: Tensor, mask: Tensor) -> Texts:
        """The text side of all cross-attention layers, from projected texts ``(G, T, D)`` with ``(G, T)`` masks."""
        return Texts(mask, tuple(layer.attention.read(text) for layer in self._cross))

    def first_query(self, x: Tensor, *, bias: bool) -> Tensor:
        """The first layer's query projection of ``(..., D)``; positions and frames may be projected apart."""
        return self._cross[0].attention.project(x, 0, bias=bias)

    def fuse(self, texts: Texts, windows: Windows, words: Tensor | None = None) -> Tensor:
        """Frames that have read their text, ``(G, M, V, D)``.

        Args:
            texts: G texts.
            windows: M windows each.
            words: Words that a frame may attend to (see `CrossAttention.forward`); None: all of its text.
        """
        hidden = ~(texts.mask[:, None, None, None] if words is None else words)
        for layer, text in zip(self._cross, texts.layers, strict=True):
            windows = Windows(layer(windows, text, hidden), windows.positions, windows.mask)
        return windows.x

    def sample(self, states: Tensor, uniform: Tensor | None) -> Gate:
        """The frame sampler: frames whose linear gate is not negative are selected; in training with logistic noise.

        The gradient is that of the soft gate (straight-through Gumbel, here for two classes).

        Args:
            states: ``(N, 1 + V, D)``.
            uniform: ``(N, 1 + V)`` draws from [0, 1) in training; None draws them.
        """
        logits = self.gate(states)[..., 0]  # (N, 1 + V)
        if not self.training:
            hard = (logits >= 0).to(states.dtype)
            return Gate(hard, hard)
        drawn = torch.rand_like(logits) if uniform is None else uniform
        # logistic noise: the difference of two Gumbel draws
        noise = (drawn + 1e-8).log() - (1 - drawn + 1e-8).log()
        soft = ((logits + noise) / self.temperature).sigmoid()
        hard = (soft >= 0.5).to(soft.dtype)
        return Gate(hard, (hard - soft).detach() + soft)

    def encode(
        self, texts: Texts, windows: Windows, *, words: Tensor | None = None, uniform: Tensor | None = None
    ) -> Encoded:
        """All pairs of G texts with M windows each, up to but without the last layer; arguments as above."""
        # cross attention: X <- X + MHA(X + P, Y, Y), X <- LN2(X + FFN(LN1(X)))
        fused = self.fuse(texts, windows, words).flatten(0, 1)  # (N, V, D)
        # retrieval token and sampler: S = [g; X], a = [gate(S) >= 0]
        x = self.with_token(fused, windows, uniform)  # (N, 1 + V, D)
        # sparse self attention: S <- LN1(S + MHA(S + P, S + P, S)), S <- LN2(S + FFN(S))
        for layer in self._own[:-1]:
            x = Encoded(layer(x), x.positions, x.mask, x.gate, x.lowered)
        return x

    def with_token(self, fused: Tensor, windows: Windows, uniform: Tensor | None) -> Encoded:
        """The sequences of N pairs, the retrieval token before the frames, with the frames that the sampler selects."""
        pairs, dim = len(fused), fused.shape[-1]
        states = torch.cat([self.token.expand(pairs, 1, dim), fused], 1)  # (N, 1 + V, D)
        where = windows.positions.flatten(0, 1)
        positions = torch.cat([self.token_position.expand(len(where), 1, dim), where], 1)
        mask = windows.mask
        if mask is not None:
            mask = mask.flatten(0, 1)
            mask = mask.repeat(pairs // len(mask), 1)
            mask = torch.cat([mask.new_ones(pairs, 1), mask], 1)
        gate = self.sample(states, uniform)
        lowered = 1 - gate.hard.detach()
        lowered = torch.cat([torch.zeros_like(lowered[:, :1]), lowered[:, 1:]], 1)
        return Encoded(states, positions, mask, gate.weight[:, 1:], lowered)

    def summarise(self, x: Encoded) -> Tensor:
        """The encoded retrieval token r ``(N, D)``: the last layer for row 0 alone."""
        return self._own[-1].token(x)

    def complete(self, x: Encoded, token: Tensor) -> Tensor:
        """The memory ``M = S + a r``, ``(N, V, D)``: the last layer's frames, the token r added to selected ones."""
        return self._own[-1](x, 1) + x.gate[..., None] * token[:, None]
