"""The Re-Glance Network: Glance Transformer, Gaussian proposals, re-glance, Caption Transformer.

Shapes: B queries, N clips per video, F clip feature size, P = N // 4 grid points, K candidates, L words of the
longest query (end token included where the batch has one), E word vector size, D model width, V word classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from rgn.config import ModelConfig
from rgn.gaussians import attention_log_weight, negative_windows, positive_window, unit_grid
from rgn.layers import Decoder, Draws, key_bias, sinusoidal_positions
from rgn.reconstruction import reconstruction_nll


@dataclass(frozen=True)
class Inputs:
    """One batch as the network reads it."""

    clips: Tensor
    """``(B, N, F)`` float32 pooled clip features."""
    clips_len: Tensor
    """``(B,)`` int64 valid clips, at least 1."""
    words: Tensor
    """``(B, L + 1, E)`` float32 word vectors; row 0 is a placeholder for the start token."""
    words_len: Tensor
    """``(B,)`` int64 words per query."""
    masked: Tensor
    """``(B, L + 1)`` bool, True where the Caption Transformer sees the mask token; column 0 is False."""


@dataclass(frozen=True)
class Embedded:
    """Projected inputs: `clips` ``(B, N + 1, D)`` with the prediction token last, `words` ``(B, L + 1, D)`` with the
    start token first and without `positions` ``(L + 1, D)``; masks ``(B, N + 1)`` and ``(B, L + 1)`` bool.
    """

    clips: Tensor
    clips_mask: Tensor
    words: Tensor
    words_mask: Tensor
    positions: Tensor


@dataclass(frozen=True)
class Proposals:
    """Candidate moments, normalised: `centre`, `width` ``(B, K)`` and their `window` ``(B, K, P)`` on the grid."""

    centre: Tensor
    width: Tensor
    window: Tensor

    def chosen(self, numbers: Tensor) -> Proposals:
        """One candidate of each query, by number ``(B,)``, so that K is 1."""
        rows = torch.arange(len(numbers), device=numbers.device)[:, None]
        return Proposals(*(side[rows, numbers[:, None]] for side in (self.centre, self.width, self.window)))


@dataclass(frozen=True)
class Compared:
    """Compared in training: the window ``(B, P)`` of the re-glance, and the reconstruction NLL ``(B,)`` from the best
    candidate, its left and right negatives, the re-glance and the complete video.
    """

    reglance_window: Tensor
    best: Tensor
    left: Tensor
    right: Tensor
    reglance: Tensor
    complete: Tensor


@dataclass(frozen=True)
class Output:
    """Candidates and their reconstruction NLL ``(B, K)``, in training also what the losses compare."""

    proposals: Proposals
    nll: Tensor
    compared: Compared | None = None


class TwoStreamDecoder(nn.Module):
    """A video decoder and a text decoder (the paper's transformers), of which one reads the other.

    In glance mode (`RGN.prediction_state`) the video reads the query; in caption mode (`RGN.reconstruct`) the query
    reads the video, whose attention a Gaussian re-weights. Both decoders are causal. Clips get no positions: causality
    alone tells them their order. Without `captions` the text decoder has no cross-attention.
    """

    def __init__(self, config: ModelConfig, *, captions: bool) -> None:
        super().__init__()
        dim, heads, dropout = config.hidden, config.heads, config.dropout
        self.video = Decoder(dim, heads, config.video_layers, dropout)
        self.text = Decoder(dim, heads, config.text_layers, dropout, cross_attention=captions)


class RGN(nn.Module):
    """Re-Glance Network.

    Args:
        config: Sizes and the Gaussians' sharpness.
        clip_dim: Clip feature size F.
        word_dim: Word vector size E.
        classes: Word classes V, the padding (and end) class 0 included.
        passes_per_chunk: See `reconstruction_nll`.
    """

    def __init__(
        self, config: ModelConfig, *, clip_dim: int, word_dim: int, classes: int, passes_per_chunk: int = 0
    ) -> None:
        super().__init__()
        self.config, self.passes_per_chunk = config, passes_per_chunk
        dim = config.hidden
        self.mask_token = nn.Parameter(torch.zeros(word_dim))
        self.start_token = nn.Parameter(torch.zeros(word_dim))
        self.prediction_token = nn.Parameter(torch.zeros(clip_dim))
        self.frame_projection = nn.Linear(clip_dim, dim)
        self.word_projection = nn.Linear(word_dim, dim)
        self.classifier = nn.Linear(dim, classes)
        self.glance_transformer = TwoStreamDecoder(config, captions=False)
        self.caption_transformer = TwoStreamDecoder(config, captions=True)
        self.proposal_head = nn.Linear(dim, 2 * config.candidates)
        if config.even_candidates:
            place_evenly(self.proposal_head, config.candidates)
        self.reglance_head = nn.Linear(dim, 1)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, inputs: Inputs, targets: Tensor, glance: Tensor | None = None, progress: Tensor | None = None
    ) -> Output:
        """Candidates and how badly the query is reconstructed from them; with a glance, all that training compares.

        Args:
            inputs: The batch.
            targets: ``(B, L)`` int64 word classes to reconstruct.
            glance: ``(B,)`` annotated time points, normalised; values past the video's end stay above 1.
            progress: Scalar, how far the negatives have come in, see `negative_windows`.
        """
        embedded = self.embed(inputs)
        proposals = self.propose(embedded)  # Glance Transformer
        caption = partial(self.nll, embedded, inputs.masked, targets)  # Caption Transformer
        if glance is None or progress is None:
            return Output(proposals, caption(proposals.window))

        # the candidate that reconstructs the query best: no loss reads the others, so the choice needs no graph
        draws = Draws(self.dropout.p if self.training else 0.0)
        with torch.no_grad():
            nll = caption(proposals.window, draws)  # (B, K)
        torch.clear_autocast_cache()  # which before torch 2.11 holds weights without a graph now
        numbers = nll.argmin(dim=1)
        best = proposals.chosen(numbers)
        # negative mining: left and right of it
        left, right = self.negatives(best, progress)  # (B, 1, P)
        # re-glance: the area around the glance that the Caption Transformer would see again
        reglance = self.window(glance, self.reglance_width(embedded), embedded)  # (B, P)

        # all four and the complete video reconstruct the query, the best candidate with the dropout that it had
        complete = torch.ones_like(left)
        windows = torch.cat([best.window, left, right, reglance[:, None], complete], dim=1)  # (B, 5, P)
        compared = caption(windows, draws.again(numbers)).unbind(dim=1)  # (B,) each
        return Output(proposals, nll, Compared(reglance, *compared))

    def embed(self, inputs: Inputs) -> Embedded:
        """Clips and words at the model width; one dropout draw serves every later stage."""
        batch, count = inputs.clips.shape[:2]
        token = self.prediction_token.expand(batch, 1, -1)
        clips = self.frame_projection(self.dropout(torch.cat([inputs.clips, token], dim=1)))  # (B, N+1, D)
        words = torch.cat([self.start_token.expand(batch, 1, -1), inputs.words[:, 1:]], dim=1)
        words = self.word_projection(self.dropout(words))  # (B, L+1, D)
        device = clips.device
        return Embedded(
            clips=clips,
            # the released rule counts the prediction token as position `clips_len`, also in shorter videos
            clips_mask=torch.arange(count + 1, device=device) < inputs.clips_len[:, None] + 1,
            words=words,
            words_mask=torch.arange(words.shape[1], device=device) < inputs.words_len[:, None] + 1,
            positions=sinusoidal_positions(words.shape[1], words.shape[2], device),
        )

    def propose(self, embedded: Embedded) -> Proposals:
        """The K candidates that the prediction token of the Glance Transformer sees."""
        state = self.prediction_state(self.glance_transformer, embedded)
        pairs = self.proposal_head(state).float().sigmoid().unflatten(-1, (-1, 2))  # (B, K, 2)
        centre, width = pairs.unbind(-1)
        return Proposals(centre, width, self.window(centre, width, embedded))

    def reglance_width(self, embedded: Embedded) -> Tensor:
        """Width ``(B,)`` of the re-glance, normalised; its centre is the glance. Glance mode, on unmasked words."""
        state = self.prediction_state(self.caption_transformer, embedded)
        return self.reglance_head(state).float().sigmoid()[:, 0]

    def prediction_state(self, transformer: TwoStreamDecoder, embedded: Embedded) -> Tensor:
        """State ``(B, D)`` of the prediction token in glance mode: the video has read the whole query."""
        words_bias = key_bias(embedded.words_mask)
        query = transformer.text((embedded.words + embedded.positions)[:, None], words_bias)  # (B, 1, L+1, D)
        clips, clips_bias = embedded.clips[:, None], key_bias(embedded.clips_mask)
        return transformer.video(clips, clips_bias, query, words_bias, last_row_only=True)[:, 0, 0]

    def window(self, centre: Tensor, width: Tensor, embedded: Embedded) -> Tensor:
        """Gaussian windows ``(..., P)`` of moments given by normalised centre and width."""
        points = (embedded.clips.shape[1] - 1) // 4  # P, without the prediction token
        return positive_window(unit_grid(points, centre.device), centre, width, self.config.sigma)

    def negatives(self, proposals: Proposals, progress: Tensor) -> tuple[Tensor, Tensor]:
        """Left and right negative windows ``(B, K, P)`` of the candidates."""
        grid = unit_grid(proposals.window.shape[-1], proposals.window.device)
        return negative_windows(grid, proposals.centre, proposals.width, self.config.sigma, progress)

    def nll(
        self, embedded: Embedded, masked: Tensor, targets: Tensor, windows: Tensor, draws: Draws | None = None
    ) -> Tensor:
        """Reconstruction NLL ``(B, S)`` of the query `targets` ``(B, L)``; other arguments as in `reconstruct`."""
        states = self.reconstruct(embedded, masked, windows, draws)
        counts = embedded.words_mask[:, :-1]  # words, and the end token where the batch has a place for it
        return reconstruction_nll(states, self.classifier, targets, counts, self.passes_per_chunk)

    def reconstruct(
        self, embedded: Embedded, masked: Tensor, windows: Tensor, draws: Draws | None = None
    ) -> Tensor:
        """Caption mode: reconstructs the masked query from the video under all windows ``(B, S, P)`` at once.

        A window weighs the clips twice: where they attend to each other, and where the words attend to them; ones leave
        the complete video. `draws` is the dropout, if not new for every value. Decoder states ``(B, S, L, D)``;
        position j predicts word j + 1.
        """
        clips, clips_mask = self.grid_clips(embedded)
        bias = attention_log_weight(windows)[:, :, None, None] + key_bias(clips_mask)  # (B, S, 1, 1, P)
        video = self.caption_transformer.video(clips[:, None], bias, dropout=draws)  # (B, S, P, D)
        words = self.masked_words(embedded, masked)[:, None]
        words_bias = key_bias(embedded.words_mask[:, :-1])
        return self.caption_transformer.text(words, words_bias, video, bias, dropout=draws)

    def grid_clips(self, embedded: Embedded) -> tuple[Tensor, Tensor]:
        """The P clips ``(B, P, D)`` that caption mode sees, and their mask ``(B, P)``."""
        keep = grid_indices(embedded.clips.shape[1] - 1).to(embedded.clips.device)  # no prediction token
        return embedded.clips[:, keep], embedded.clips_mask[:, keep]

    def masked_words(self, embedded: Embedded, masked: Tensor) -> Tensor:
        """Caption input ``(B, L, D)``: masked words replaced, positions added, the last position dropped."""
        mask_token = self.word_projection(self.mask_token)
        words = torch.where(masked[..., None], mask_token.to(embedded.words.dtype), embedded.words)
        return (words + embedded.positions)[:, :-1]


def place_evenly(head: nn.Linear, candidates: int) -> None:
    """Makes the head propose candidates evenly over the video for every query, until it learns where else.

    Args:
        head: D to 2 K logits, centre and width of each candidate in turn.
        candidates: K.
    """
    # on the CPU also where a network is made without memory: arithmetic on the device `meta` loads torch's compiler
    centre = (torch.arange(candidates, device="cpu") + 0.5) / candidates
    width = torch.full_like(centre, min(2 / candidates, 0.5))
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.stack([centre, width], dim=-1).logit().flatten())


def grid_indices(clips: int) -> Tensor:
    """The ``clips // 4`` clip numbers of the caption grid, ``(P,)`` int64.

    Computed in float32 and cut, as the released code does: some lengths differ from exact arithmetic by one clip.
    """
    return torch.linspace(0, clips - 1, clips // 4).long()
