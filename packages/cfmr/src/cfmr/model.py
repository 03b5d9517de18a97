"""CFMR: two encoders that never meet turn a video's proposals and a query into K concepts each (paper section 3).

Shapes: B queries, V videos, T clips per video, L = T // 4 kept clips, S = L + 1 video positions (the last one sums
the video up), F clip feature size, W word places, E word vector size, P proposals in search, M in training, N windows
or passes, K concepts, D model width, C word classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cfmr.config import ModelConfig
from cfmr.gaussians import attention_log_weight, negative_windows, positive_window, unit_grid
from cfmr.layers import Decoder, Draws, MultiHeadAttention, key_bias, sinusoidal_positions
from cfmr.reconstruction import reconstruction_nll

MIN_NORM = 1e-6
"""Concepts shorter than this are divided by this instead of their length."""


@dataclass(frozen=True)
class Clips:
    """Clips of V videos: `features` ``(V, L, F)`` float32 and `mask` ``(V, L)`` bool, True = valid."""

    features: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Words:
    """Words of B queries: `vectors` ``(B, W + 2, E)`` float32 and `lengths` ``(B,)`` int64 words per query.

    The first and the last row are placeholders for the start token and the query's summary position.
    """

    vectors: Tensor
    lengths: Tensor

    def mask(self) -> Tensor:
        """Valid positions ``(B, W + 2)`` bool: start token, words, summary."""
        places = torch.arange(self.vectors.shape[1], device=self.vectors.device)
        return (places <= self.lengths[:, None]) | (places == len(places) - 1)


@dataclass(frozen=True)
class Proposals:
    """Moments by normalised `centre` and `width`, ``(P,)`` for search or ``(B, M)`` around glances."""

    centre: Tensor
    width: Tensor

    def chosen(self, numbers: Tensor) -> Proposals:
        """One proposal of each query, by number ``(B,)``, so that M is 1."""
        return Proposals(_chosen(self.centre, numbers), _chosen(self.width, numbers))


@dataclass(frozen=True)
class Passes:
    """One tensor for each pass that training compares: concepts ``(B, K, D)``, or NLLs ``(B,)``.

    `text` is the query itself, `best` the proposal that reconstructs it best, `left` and `right` its negatives and
    `reference` the complete video or None.
    """

    text: Tensor
    best: Tensor
    left: Tensor
    right: Tensor
    reference: Tensor | None = None


@dataclass(frozen=True)
class Output:
    """A training step."""

    concepts: Passes
    nll: Passes
    proposals: Tensor
    """Concepts ``(B, M, K, D)`` of all proposals."""
    searched: Tensor | None = None
    """Concepts ``(V, P', K, D)`` of search proposals of every video, or None."""


class ConceptEncoder(nn.Module):
    """A causal encoder whose last position becomes K concept vectors (two linear layers, none in between).

    Args:
        config: Sizes.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.hidden
        self.encoder = Decoder(
            dim, config.heads, config.encoder_layers, config.dropout, cross_attention=False
        )
        self.neck = nn.Sequential(nn.Linear(dim, dim), nn.Linear(dim, config.concepts * dim))
        self.concepts = config.concepts

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Concepts ``(B, N, K, D)`` of ``x (B, 1, S, D)`` under N key biases ``(B, N, 1, 1, S)``."""
        summary = self.encoder(x, bias, last_row_only=True)[..., 0, :]  # (B, N, D)
        # released order: index d * K + k
        return self.neck(summary).unflatten(-1, (-1, self.concepts)).transpose(-2, -1)


class CFMR(nn.Module):
    """Cheaper and Faster Moment Retrieval.

    Args:
        config: Sizes and proposals.
        clip_dim: Clip feature size F.
        word_dim: Word vector size E.
        classes: Word classes C, the padding (and end) class 0 included.
        learned_summary: Whether a video's summary position starts as a learnable vector; else as a copy of
            its last clip (the released code, where the vector is never used).
        passes_per_chunk: See `reconstruction_nll`.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        clip_dim: int,
        word_dim: int,
        classes: int,
        learned_summary: bool,
        passes_per_chunk: int = 0,
    ) -> None:
        super().__init__()
        self.config, self.passes_per_chunk = config, passes_per_chunk
        dim = config.hidden
        self.mask_token = nn.Parameter(torch.zeros(word_dim))
        self.start_token = nn.Parameter(torch.zeros(word_dim))
        self.text_summary_token = nn.Parameter(torch.zeros(word_dim))
        self.video_summary_token = nn.Parameter(torch.zeros(clip_dim)) if learned_summary else None
        self.frame_projection = nn.Linear(clip_dim, dim)
        self.word_projection = nn.Linear(word_dim, dim)
        self.video_encoder = ConceptEncoder(config)
        self.text_encoder = ConceptEncoder(config)
        self.reconstructor = Decoder(dim, config.heads, config.reconstructor_layers, config.dropout)
        self.classifier = nn.Linear(dim, classes)
        self.dropout = nn.Dropout(config.dropout)
        for module in self.modules():  # this paper's code draws it from a normal distribution
            if isinstance(module, MultiHeadAttention):
                nn.init.xavier_normal_(module.out_proj.weight)

    def forward(
        self,
        clips: Clips,
        words: Words,
        targets: Tensor,
        *,
        video_of: Tensor,
        masked: Tensor,
        glance: Tensor,
        progress: Tensor,
        reference: bool,
        searched: Proposals | None = None,
    ) -> Output:
        """A training step.

        Args:
            clips: Of V videos.
            words: Of B queries.
            targets: ``(B, W)`` int64 word classes to reconstruct.
            video_of: ``(B,)`` int64 row of each query's video.
            masked: ``(B, W + 2)`` bool, True where the reconstructor sees the mask token.
            glance: ``(B,)`` annotated time points, normalised; values past the video's end stay above 1.
            progress: Scalar, how far the negatives have come in, see `negative_windows`.
            reference: Whether the complete video is encoded, too.
            searched: Proposals ``(P',)`` under which every video is encoded as for search, if any.
        """
        videos, clips = clips, Clips(clips.features[video_of], clips.mask[video_of])  # one row per query
        video, points = self.embed_clips(clips)[:, None], clips.features.shape[1]
        embedded, mask = self.embed_words(words), words.mask()
        reconstruct = partial(self.nll, self.masked_words(embedded, masked), mask, targets)

        # concept encoders: the query, and the video under Gaussian proposals around the glance, each as K vectors
        text = self.text_encoder(embedded[:, None], key_bias(mask))  # (B, 1, K, D)
        proposals = self.train_proposals(glance)  # (B, M)
        bias = self.video_bias(clips, self.windows(proposals, points))
        concepts = self.video_encoder(video, bias)  # (B, M, K, D)

        # the proposal that reconstructs the query best: no loss reads what the others say, so the choice needs no graph
        draws = Draws(self.dropout.p if self.training else 0.0)
        with torch.no_grad():
            numbers = reconstruct(concepts, draws).argmin(dim=1)  # (B,)
        torch.clear_autocast_cache()  # which before torch 2.11 holds weights without a graph now

        # two negatives of it, which lie left and right, and the complete video
        windows = self.negatives(proposals.chosen(numbers), points, progress)  # (B, 2, S)
        if reference:
            windows = torch.cat([windows, torch.ones_like(windows[:, :1])], dim=1)
        others = self.video_encoder(video, self.video_bias(clips, windows))  # (B, 2 (+ 1), K, D)

        # masked-word reconstruction from all of them, from the best proposal with the dropout that it had
        compared = torch.cat([_chosen(concepts, numbers), text, others], dim=1)  # (B, 4 (+ 1), K, D)
        nll = reconstruct(compared, draws.again(numbers))
        best, query, *rest = compared.unbind(dim=1)
        of_best, of_query, *of_rest = nll.unbind(dim=1)
        passes = Passes(query, best, *rest), Passes(of_query, of_best, *of_rest)
        # our extension: what a search of other videos would meet
        return Output(*passes, concepts, None if searched is None else self.encode_video(videos, searched))

    # ---- Gaussian proposals ----------------------------------------------------------------------------------

    def search_proposals(self) -> Proposals:
        """The P proposals of every video: all centres of the first width, then of the next."""
        config, device = self.config, self.mask_token.device
        centre = torch.linspace(0, 1, config.centres, device=device).repeat(config.widths)
        width = _widths(config.widths, config.widest, device).repeat_interleave(config.centres)
        return Proposals(centre, width)

    def some_search_proposals(self, count: int, turn: int) -> Proposals:
        """About `count` of the proposals of search, evenly spread over places and widths; others in the next `turn`."""
        every = self.search_proposals()
        step = -(-len(every.centre) // count)
        return Proposals(every.centre[turn % step :: step], every.width[turn % step :: step])

    def train_proposals(self, glance: Tensor) -> Proposals:
        """Proposals ``(B, M)`` of all training widths around the glances ``(B,)``."""
        width = _widths(self.config.train_widths, self.config.train_widest, glance.device)
        return Proposals(*torch.broadcast_tensors(glance[:, None], width))

    def windows(self, proposals: Proposals, points: int) -> Tensor:
        """Gaussian windows ``(..., S)`` over `points` = L grid points; the summary position gets weight 0."""
        grid = unit_grid(points, proposals.centre.device)
        window = positive_window(grid, proposals.centre, proposals.width, self.config.sigma)
        return F.pad(window, (0, 1))

    def negatives(self, proposals: Proposals, points: int, progress: Tensor) -> Tensor:
        """Windows ``(B, 2M, S)`` left of the proposals, then right; they also cover the summary position."""
        grid = unit_grid(points + 1, proposals.centre.device)
        sides = negative_windows(grid, proposals.centre, proposals.width, self.config.sigma, progress)
        return torch.cat(sides, dim=1)

    # ---- video: once, whatever is asked ----------------------------------------------------------------------

    def embed_clips(self, clips: Clips) -> Tensor:
        """Projected clips with the summary position last, ``(V, S, D)``."""
        if self.video_summary_token is None:
            x = self.frame_projection(self.dropout(clips.features))  # (V, L, D)
            return torch.cat([x, x[:, -1:]], dim=1)
        token = self.video_summary_token.expand(len(clips.features), 1, -1)
        return self.frame_projection(self.dropout(torch.cat([clips.features, token], dim=1)))

    def video_bias(self, clips: Clips, windows: Tensor) -> Tensor:
        """Key biases ``(V, N, 1, 1, S)`` of N windows ``(V or 1, N, S)``; ones leave the complete video."""
        last = clips.mask[:, -1:]
        if self.video_summary_token is not None:
            last = torch.ones_like(last)
        hidden = key_bias(torch.cat([clips.mask, last], dim=1))
        return attention_log_weight(windows)[:, :, None, None] + hidden

    def encode_video(self, clips: Clips, proposals: Proposals | None = None) -> Tensor:
        """Concepts ``(V, P, K, D)`` of all proposals for search, or of `proposals` ``(P,)``; depends on no query."""
        proposals = proposals or self.search_proposals()
        windows = self.windows(proposals, clips.features.shape[1])[None]  # (1, P, S)
        # on a CPU a few videos at a time, whose largest tensor, a layer's 2D-wide one, stays under 16 MiB
        size = 8 * windows.numel() * self.config.hidden
        some = max(2**24 // size, 1) if windows.device.type == "cpu" else len(clips.features)
        parts, encode = map(Clips, clips.features.split(some), clips.mask.split(some)), self.video_encoder
        return torch.cat([encode(self.embed_clips(v)[:, None], self.video_bias(v, windows)) for v in parts])

    # ---- text ------------------------------------------------------------------------------------------------

    def embed_words(self, words: Words) -> Tensor:
        """Projected words ``(B, W + 2, D)`` between start token and summary position; order is left to causality."""
        batch = len(words.vectors)
        start, summary = (token.expand(batch, 1, -1) for token in (self.start_token, self.text_summary_token))
        return self.word_projection(self.dropout(torch.cat([start, words.vectors[:, 1:-1], summary], dim=1)))

    def encode_text(self, words: Words) -> Tensor:
        """Concepts ``(B, K, D)`` of queries; depends on no video."""
        return self.text_encoder(self.embed_words(words)[:, None], key_bias(words.mask()))[:, 0]

    # ---- masked-word reconstruction (training only) ----------------------------------------------------------

    def masked_words(self, embedded: Tensor, masked: Tensor) -> Tensor:
        """Embedded words ``(B, W + 2, D)`` with the mask token where `masked`."""
        token = self.word_projection(self.mask_token)
        return torch.where(masked[..., None], token.to(embedded.dtype), embedded)

    def nll(
        self, words: Tensor, mask: Tensor, targets: Tensor, concepts: Tensor, draws: Draws | None = None
    ) -> Tensor:
        """Reconstruction NLL ``(B, N)`` of the query `targets` ``(B, W)``; other arguments as in `reconstruct`."""
        states = self.reconstruct(words, mask, concepts, draws)
        # words count, and the end token where the batch has a place for it
        return reconstruction_nll(states, self.classifier, targets, mask[:, :-2], self.passes_per_chunk)

    def reconstruct(
        self, words: Tensor, mask: Tensor, concepts: Tensor, draws: Draws | None = None
    ) -> Tensor:
        """States ``(B, N, W, D)`` of the query reconstructed from concepts ``(B, N, K, D)``, all passes in one call.

        Position j predicts word j + 1 (after the last word: class 0). `words` ``(B, W + 2, D)`` are those of
        `masked_words`, `mask` ``(B, W + 2)`` their valid positions, `draws` the dropout, if not new for every value.
        """
        words = words + sinusoidal_positions(words.shape[1], words.shape[2], words.device)
        return self.reconstructor(words[:, None, :-2], key_bias(mask[:, :-2]), concepts, dropout=draws)


def _chosen(values: Tensor, numbers: Tensor) -> Tensor:
    """One of M ``(B, 1, ...)`` for each query, by number ``(B,)``, out of ``(B, M, ...)``."""
    return values[torch.arange(len(numbers), device=numbers.device), numbers][:, None]


def _widths(count: int, widest: float, device: torch.device) -> Tensor:
    return torch.arange(1, count + 1, device=device) * (widest / count)


def unit_concepts(concepts: Tensor) -> Tensor:
    """Concepts ``(..., K, D)`` scaled to length 1 each, float32."""
    return F.normalize(concepts.float(), dim=-1, eps=MIN_NORM)


def flat_concepts(concepts: Tensor) -> Tensor:
    """Vectors ``(..., K * D)`` float32 whose inner product is the score: the sum of K cosines."""
    return unit_concepts(concepts).flatten(-2)
