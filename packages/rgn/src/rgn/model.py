"""The Re-Glance Network: glance stage, Gaussian proposals, caption stage (paper section 3).

Shapes: B queries, N clips per video, F clip feature size, P = N // 4 grid points, K candidates, L words of the
longest query (end token included where the batch has one), E word vector size, D model width, V word classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rgn.config import ModelConfig
from rgn.gaussians import attention_log_weight, negative_windows, positive_window, unit_grid
from rgn.layers import Decoder, key_bias, sinusoidal_positions


@dataclass(frozen=True)
class Inputs:
    """What one forward pass reads.

    Attributes:
        frames: ``(B, N, F)`` float32 pooled clip features.
        frames_len: ``(B,)`` int64 valid clips, at least 1.
        words: ``(B, L + 1, E)`` float32 word vectors; row 0 is a placeholder for the start token.
        words_len: ``(B,)`` int64 words per query.
        masked: ``(B, L + 1)`` bool, True where the caption stage sees the mask token; column 0 is False.
    """

    frames: Tensor
    frames_len: Tensor
    words: Tensor
    words_len: Tensor
    masked: Tensor


@dataclass(frozen=True)
class Embedded:
    """The projected inputs that all stages share.

    Attributes:
        frames: ``(B, N + 1, D)``, the prediction token last.
        frames_mask: ``(B, N + 1)`` bool.
        words: ``(B, L + 1, D)``, the start token first, without positions.
        words_mask: ``(B, L + 1)`` bool.
        positions: ``(L + 1, D)``.
    """

    frames: Tensor
    frames_mask: Tensor
    words: Tensor
    words_mask: Tensor
    positions: Tensor


@dataclass(frozen=True)
class Proposals:
    """Candidate moments, normalised: `centre`, `width` ``(B, K)`` and their `window` ``(B, K, P)`` on the grid."""

    centre: Tensor
    width: Tensor
    window: Tensor


@dataclass(frozen=True)
class Supervision:
    """What a training pass knows beyond the inputs.

    Attributes:
        glance: ``(B,)`` annotated time points, normalised; values past the video's end stay above 1.
        progress: Scalar tensor, how far the negatives have come in, see `negative_windows`.
    """

    glance: Tensor
    progress: Tensor


@dataclass(frozen=True)
class References:
    """Decoder states of the passes that candidates are held against (training only).

    Attributes:
        left: ``(B, K, L, D)`` under the left negatives.
        right: ``(B, K, L, D)`` under the right negatives.
        complete: ``(B, 1, L, D)`` over the complete video.
        reglance: ``(B, 1, L, D)`` under the re-glance.
        reglance_width: ``(B,)`` normalised.
        reglance_window: ``(B, P)``.
    """

    left: Tensor
    right: Tensor
    complete: Tensor
    reglance: Tensor
    reglance_width: Tensor
    reglance_window: Tensor


@dataclass(frozen=True)
class Output:
    """Candidates, the decoder states ``(B, K, L, D)`` that rank them, and in training the references."""

    proposals: Proposals
    states: Tensor
    references: References | None


class TwoStreamDecoder(nn.Module):
    """A video decoder and a text decoder that read each other, one way at a time (the paper's transformers).

    In glance mode the video reads the query; in caption mode the query reads the video, whose attention a
    Gaussian re-weights.

    Args:
        config: Sizes.
        captions: Whether caption mode is needed; without it the text decoder has no cross-attention.
    """

    def __init__(self, config: ModelConfig, *, captions: bool) -> None:
        super().__init__()
        dim, heads, dropout = config.hidden, config.heads, config.dropout
        self.video = Decoder(dim, heads, config.video_layers, dropout)
        self.text = Decoder(dim, heads, config.text_layers, dropout, cross_attention=captions)

    def encode_query(self, words: Tensor, mask: Tensor) -> Tensor:
        """Query memory ``(B, 1, L, D)`` from positioned words ``(B, L, D)`` and their mask ``(B, L)``."""
        return self.text(words[:, None], key_bias(mask))

    def glance(self, frames: Tensor, frames_mask: Tensor, memory: Tensor, words_mask: Tensor) -> Tensor:
        """State of the prediction token ``(B, D)`` after the video has read the query.

        Args:
            frames: ``(B, N + 1, D)``.
            frames_mask: ``(B, N + 1)`` bool.
            memory: ``(B, 1, L, D)`` from `encode_query`.
            words_mask: ``(B, L)`` bool.
        """
        state = self.video(
            frames[:, None], key_bias(frames_mask), memory, key_bias(words_mask), last_row_only=True
        )
        return state[:, 0, 0]

    def encode_video(self, frames: Tensor, bias: Tensor) -> Tensor:
        """Video memory ``(B, S, P, D)`` of grid frames ``(B, P, D)`` under S key biases ``(B, S, 1, 1, P)``."""
        return self.video(frames[:, None], bias)

    def caption(self, words: Tensor, words_mask: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        """Text states ``(B, S, L, D)`` of masked words ``(B, L, D)`` that read a video memory ``(B, S, P, D)``."""
        return self.text(words[:, None], key_bias(words_mask), memory, bias)


class RGN(nn.Module):
    """Re-Glance Network.

    Args:
        config: Sizes and the Gaussians' sharpness.
        frame_dim: Clip feature size F.
        word_dim: Word vector size E.
        classes: Word classes V, the padding (and end) class 0 included.
    """

    def __init__(self, config: ModelConfig, *, frame_dim: int, word_dim: int, classes: int) -> None:
        super().__init__()
        self.config = config
        dim = config.hidden
        self.mask_token = nn.Parameter(torch.zeros(word_dim))
        self.start_token = nn.Parameter(torch.zeros(word_dim))
        self.prediction_token = nn.Parameter(torch.zeros(frame_dim))
        self.frame_projection = nn.Linear(frame_dim, dim)
        self.word_projection = nn.Linear(word_dim, dim)
        self.classifier = nn.Linear(dim, classes)
        self.glance_transformer = TwoStreamDecoder(config, captions=False)
        self.caption_transformer = TwoStreamDecoder(config, captions=True)
        self.proposal_head = nn.Linear(dim, 2 * config.candidates)
        self.reglance_head = nn.Linear(dim, 1)
        self.dropout = nn.Dropout(config.dropout)

    def embed(self, inputs: Inputs) -> Embedded:
        """Projects frames and words to the model width; one dropout draw serves every later stage."""
        batch, clips = inputs.frames.shape[:2]
        token = self.prediction_token.expand(batch, 1, -1)
        frames = self.frame_projection(self.dropout(torch.cat([inputs.frames, token], dim=1)))  # (B, N+1, D)
        start = self.start_token.expand(batch, 1, -1)
        words = self.word_projection(
            self.dropout(torch.cat([start, inputs.words[:, 1:]], dim=1))
        )  # (B, L+1, D)
        device = frames.device
        return Embedded(
            frames=frames,
            # the released rule counts the prediction token as position `frames_len`, also in shorter videos
            frames_mask=torch.arange(clips + 1, device=device) < inputs.frames_len[:, None] + 1,
            words=words,
            words_mask=torch.arange(words.shape[1], device=device) < inputs.words_len[:, None] + 1,
            positions=sinusoidal_positions(words.shape[1], words.shape[2], device),
        )

    def propose(self, embedded: Embedded) -> Proposals:
        """Glance stage: the K candidates that the prediction token sees (paper: Glance Transformer)."""
        state = self._glance(self.glance_transformer, embedded)
        centre, width = (
            self.proposal_head(state).float().sigmoid().unflatten(-1, (-1, 2)).unbind(-1)
        )  # (B, K)
        return Proposals(centre, width, self.window(centre, width, embedded))

    def reglance_width(self, embedded: Embedded) -> Tensor:
        """Width ``(B,)`` of the area around the glance that the Caption Transformer would look at again."""
        state = self._glance(self.caption_transformer, embedded)
        return self.reglance_head(state).float().sigmoid()[:, 0]

    def _glance(self, transformer: TwoStreamDecoder, embedded: Embedded) -> Tensor:
        memory = transformer.encode_query(embedded.words + embedded.positions, embedded.words_mask)
        return transformer.glance(embedded.frames, embedded.frames_mask, memory, embedded.words_mask)

    def window(self, centre: Tensor, width: Tensor, embedded: Embedded) -> Tensor:
        """Gaussian windows ``(..., P)`` of moments given by normalised centre and width."""
        points = (embedded.frames.shape[1] - 1) // 4
        return positive_window(unit_grid(points, centre.device), centre, width, self.config.sigma)

    def grid_frames(self, embedded: Embedded) -> tuple[Tensor, Tensor]:
        """The P frames ``(B, P, D)`` that the caption stage sees, and their mask ``(B, P)``."""
        keep = grid_indices(embedded.frames.shape[1] - 1).to(embedded.frames.device)
        return embedded.frames[:, keep], embedded.frames_mask[:, keep]

    def masked_words(self, embedded: Embedded, masked: Tensor) -> Tensor:
        """Caption input ``(B, L, D)``: masked words replaced, positions added, the last position dropped."""
        mask_token = self.word_projection(self.mask_token)
        words = torch.where(masked[..., None], mask_token.to(embedded.words.dtype), embedded.words)
        return (words + embedded.positions)[:, :-1]

    def reconstruct(
        self, embedded: Embedded, masked: Tensor, windows: Tensor, *, complete: bool = False
    ) -> Tensor:
        """Caption stage: the query re-told from the video under each window, all passes in one call.

        Args:
            embedded: From `embed`.
            masked: ``(B, L + 1)`` bool word mask.
            windows: ``(B, S, P)`` attention windows.
            complete: Append a last pass that sees the complete video, without a window.

        Returns:
            Decoder states ``(B, S or S + 1, L, D)``; position j predicts word j + 1.
        """
        frames, frames_mask = self.grid_frames(embedded)
        weight = attention_log_weight(windows)
        if complete:
            weight = torch.cat([weight, torch.zeros_like(weight[:, :1])], dim=1)
        bias = weight[:, :, None, None] + key_bias(frames_mask)  # (B, S, 1, 1, P)
        memory = self.caption_transformer.encode_video(frames, bias)
        words = self.masked_words(embedded, masked)
        return self.caption_transformer.caption(words, embedded.words_mask[:, :-1], memory, bias)

    def forward(self, inputs: Inputs, supervision: Supervision | None = None) -> Output:
        """One pass: the candidates and their reconstructions; with supervision also the references.

        In training all reconstructions (candidates, negatives, complete video, re-glance) are one call.
        """
        embedded = self.embed(inputs)
        proposals = self.propose(embedded)
        if supervision is None:
            return Output(proposals, self.reconstruct(embedded, inputs.masked, proposals.window), None)
        width = self.reglance_width(embedded)
        reglance = self.window(supervision.glance, width, embedded)  # (B, P)
        left, right = self.negatives(proposals, supervision.progress)
        windows = torch.cat([proposals.window, left, right, reglance[:, None]], dim=1)  # (B, 3K+1, P)
        states = self.reconstruct(embedded, inputs.masked, windows, complete=True)  # (B, 3K+2, L, D)
        k = self.config.candidates
        candidates, by_left, by_right, by_reglance, by_nothing = states.split([k, k, k, 1, 1], dim=1)
        return Output(
            proposals,
            candidates,
            References(
                left=by_left,
                right=by_right,
                complete=by_nothing,
                reglance=by_reglance,
                reglance_width=width,
                reglance_window=reglance,
            ),
        )

    def negatives(self, proposals: Proposals, progress: Tensor) -> tuple[Tensor, Tensor]:
        """Left and right negative windows ``(B, K, P)`` of the candidates."""
        grid = unit_grid(proposals.window.shape[-1], proposals.window.device)
        return negative_windows(grid, proposals.centre, proposals.width, self.config.sigma, progress)


def grid_indices(clips: int) -> Tensor:
    """The ``clips // 4`` clip numbers of the caption stage's grid, ``(P,)`` int64.

    Computed in float32 and cut, as the released code does: some lengths differ from exact arithmetic by one clip.
    """
    return torch.linspace(0, clips - 1, clips // 4).long()
