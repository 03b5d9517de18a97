"""The network (paper section 3): projections, RG-Encoder, grounding decoder and heads.

The paper's clips are called windows. Shapes: b items of a batch, V frames, T words, D model width, Q candidates per
window, L decoder layers. Spans are (centre, width) fractions of the window's true length; class 0 is the foreground.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from rgnet.config import ModelConfig
from rgnet.decoder import MLP, Decoded, Decoder, logit
from rgnet.encoder import Encoded, InputProjection, RGEncoder, Texts, Windows, sine_positions


@dataclass(frozen=True)
class Tokens:
    """Texts: `vectors` ``(b, T, E)`` float32, unit length, zero padded; `mask` ``(b, T)`` bool, True = word."""

    vectors: Tensor
    mask: Tensor

    @classmethod
    def padded(cls, texts: Sequence[Tensor]) -> Tokens:
        """Texts ``(n, E)`` padded to the longest."""
        return cls(*padded(texts))


@dataclass(frozen=True)
class Frames:
    """Windows: `features` ``(b, V, F)`` float32, zero padded at the end; `mask` ``(b, V)`` bool, True = valid."""

    features: Tensor
    mask: Tensor

    @classmethod
    def padded(cls, windows: Sequence[Tensor]) -> Frames:
        """Windows ``(n, F)`` padded to the longest."""
        return cls(*padded(windows))


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Tensors ``(n, ...)`` zero padded to the longest, ``(b, N, ...)``, and the mask of what is valid, ``(b, N)``."""
    lengths = torch.tensor([len(one) for one in rows], device=rows[0].device)
    values = pad_sequence(list(rows), batch_first=True)
    return values, torch.arange(values.shape[1], device=values.device) < lengths[:, None]


@dataclass(frozen=True)
class Output:
    """Output of a pass over b texts with their windows.

    Attributes:
        logits: ``(L, b, Q, 2)`` class logits of every decoder layer, last one last.
        spans: ``(L, b, Q, 2)``.
        retrieval: ``(b,)`` retrieval logits; ``(b, b)`` (text, window) where every text met every window.
        saliency: ``(b, V)`` frame saliency; values at padding mean nothing.
        selected: ``(N, V)`` hard frame gate of every pair, 0 or 1.
    """

    logits: Tensor
    spans: Tensor
    retrieval: Tensor
    saliency: Tensor
    selected: Tensor


def released_words(frames: Tensor, words: Tensor, heads: int) -> Tensor:
    """Words that a frame may attend to in the released model, for N pairs, ``(N, V, H, T)`` bool.

    Beyond its own padding, head k of pair n is also kept from the words that are padding in pair
    ``(n * H + k) mod N``, at the frames that are padding there: a mask laid out head by head but read pair by
    pair.

    Args:
        frames: ``(N, V)`` bool, valid frames of the pairs.
        words: ``(N, T)`` bool, their words.
        heads: Heads H.
    """
    pairs = len(frames)
    number = torch.arange(pairs * heads, device=frames.device).view(pairs, heads) % pairs  # (N, H)
    hidden = ~frames[number][..., None] & ~words[number][:, :, None]  # (N, H, V, T)
    return (words[:, None, None] & ~hidden).transpose(1, 2)


class RGNet(nn.Module):
    """One network that retrieves a window and grounds in it.

    Args:
        config: Sizes.
        frame_dim: Width F of a frame feature.
        token_dim: Width E of a token.
        sentence_dim: Width of sentence vectors (for the adapter).
        released_mask: The cross attention reads the padding of other pairs (`released_words`).
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        frame_dim: int,
        token_dim: int,
        sentence_dim: int = 0,
        released_mask: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.released_mask = config, released_mask
        dim = config.hidden
        self.video_projection = InputProjection(frame_dim, dim, config.input_dropout)
        self.text_projection = InputProjection(token_dim, dim, config.input_dropout)
        self.encoder = RGEncoder(
            dim,
            config.heads,
            config.inner,
            cross_layers=config.cross_layers,
            self_layers=config.self_layers,
            dropout=config.dropout,
            temperature=config.gate_temperature,
        )
        self.decoder = Decoder(
            dim,
            config.heads,
            config.inner,
            layers=config.decoder_layers,
            queries=config.queries,
            dropout=config.dropout,
        )
        self.class_head = nn.Linear(dim, 2)
        self.span_head = MLP(dim, dim, dim, 2)
        self.saliency_frames, self.saliency_token = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.retrieval_head = nn.Linear(dim, 1)
        self.adapter = MLP(sentence_dim, dim, sentence_dim) if config.adapter else None

    def read_texts(self, tokens: Tokens) -> Texts:
        """Texts as the encoder reads them, the same for all windows."""
        return self.encoder.read(self.text_projection(tokens.vectors), tokens.mask)

    def positions(self, mask: Tensor) -> Tensor:
        """Sine positions ``(..., V, D)`` of windows with valid frames ``(..., V)``."""
        return sine_positions(mask, self.config.hidden, self.config.position_temperature)

    def read_windows(self, frames: Frames, *, shared: bool) -> Windows:
        """Windows as the encoder reads them.

        Args:
            frames: b windows.
            shared: Every text meets every window; else text i meets window i.
        """
        x, positions = self.video_projection(frames.features), self.positions(frames.mask)  # (b, V, D)
        if not shared:
            return Windows(x[:, None], positions[:, None], frames.mask[:, None])
        query = self.encoder.first_query(x + positions, bias=True)[None]
        return Windows(x[None], positions[None], frames.mask[None], query)

    def forward(
        self, tokens: Tokens, frames: Frames, *, contrast: bool = False, uniform: Tensor | None = None
    ) -> Output:
        """Candidates, retrieval logits and saliency of b texts with b windows, as training needs them.

        Contrastive clip sampling (section 3.4) reads the retrieval logits of all b * b pairs; everything beyond them
        is computed for the b pairs that belong together.

        Args:
            tokens: b texts.
            frames: Their windows.
            contrast: Compute the retrieval logits of all b * b pairs, and the rest for text i with window i alone.
            uniform: ``(N, 1 + V)`` draws of the frame gate, N = b or b * b (text-major); None draws them.
        """
        count = len(tokens.mask)
        # projections: (b, V, F) and (b, T, E) to width D
        windows, texts = self.read_windows(frames, shared=contrast), self.read_texts(tokens)
        # RG-Encoder (section 3.2): N = b pairs, or b * b where every text meets every window
        words = self.pair_words(tokens, frames, contrast)
        encoded = self.encoder.encode(texts, windows, words=words, uniform=uniform)
        summary = self.encoder.summarise(encoded)  # (N, D), the retrieval token r
        # retrieval: one logit per pair
        retrieval, selected = self.retrieval_head(summary)[:, 0], encoded.gate.detach()
        if contrast:
            own = torch.arange(count, device=summary.device) * (count + 1)
            encoded, summary, retrieval = encoded.pick(own), summary[own], retrieval.view(count, count)
        # gated merge: the memory M = S + a r, (b, V, D)
        memory = self.encoder.complete(encoded, summary)
        # grounding (section 3.3): (L, b, Q, 2) class logits and spans
        logits, spans = self.moments(self.decode(memory, encoded))
        return Output(logits, spans, retrieval, self.saliency(memory, summary), selected)

    def pair_words(self, tokens: Tokens, frames: Frames, contrast: bool) -> Tensor | None:
        """Words that each frame of each pair may attend to, ``(G, M, V, H, T)`` bool; None: all of its text."""
        if not self.released_mask:
            return None
        count = len(tokens.mask)
        if not contrast:
            return released_words(frames.mask, tokens.mask, self.config.heads)[:, None]
        words = released_words(
            frames.mask.repeat(count, 1), tokens.mask.repeat_interleave(count, 0), self.config.heads
        )
        return words.unflatten(0, (count, count))

    def decode(self, memory: Tensor, encoded: Encoded) -> Decoded:
        """Candidates of pairs with frames ``(N, V, D)``."""
        mask = None if encoded.mask is None else encoded.mask[:, 1:]
        return self.decoder(memory, encoded.positions[:, 1:], mask)

    def moments(self, decoded: Decoded) -> tuple[Tensor, Tensor]:
        """Class logits and spans ``(L, N, Q, 2)`` each; spans are refined from the layer's anchors."""
        logits = self.class_head(decoded.states)
        return logits, (self.span_head(decoded.states) + logit(decoded.anchors)).sigmoid()

    def saliency(self, memory: Tensor, summary: Tensor) -> Tensor:
        """Frame saliency ``<W1 M_t, W2 r> / sqrt(D)``, ``(N, V)``, from memory ``(N, V, D)`` and token ``(N, D)``."""
        frames, token = self.saliency_frames(memory), self.saliency_token(summary)
        return (frames @ token[..., None])[..., 0] * memory.shape[-1] ** -0.5
