"""How well a candidate looks like the sentence: cosines of its frames with the sentence vector (no learned weights).

Shapes: N windows, V frames, Q candidates, A width of frame features and sentence vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TOP = 3


def unit_frames(frames: Tensor, adapter: nn.Module | None) -> Tensor:
    """Frames ``(..., A)`` of unit length, after the adapter where there is one. A zero frame gives not-a-number."""
    if adapter is not None:
        frames = frames + adapter(frames)
    unit: Tensor = frames / frames.norm(dim=-1, keepdim=True)
    return unit


def candidate_frames(spans: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The frames that candidates ``(N, Q, 2)`` cover in windows of `lengths` ``(N,)`` frames.

    Returns:
        First frame (at least 0) and the one after the last (perhaps past the window's end), ``(N, Q)`` int64 each.
    """
    centre, width = spans.unbind(-1)
    scale = lengths[:, None].to(spans.dtype)
    first = ((centre - width / 2) * scale).floor().clamp(min=0)
    return first.long(), ((centre + width / 2) * scale).ceil().long()


def top_sum(cosines: Tensor, first: Tensor, end: Tensor) -> Tensor:
    """Sum of the (at most three) largest cosines of each candidate's frames, ``(N, Q)``; 0 where it has none.

    Args:
        cosines: ``(N, V)``.
        first: ``(N, Q)`` first frame.
        end: ``(N, Q)`` the frame after the last; frames past V do not exist.
    """
    frame = torch.arange(cosines.shape[1], device=cosines.device)
    covered = (frame >= first[..., None]) & (frame < end[..., None])  # (N, Q, V)
    values = torch.where(covered, cosines[:, None], float("-inf"))
    best = values.topk(min(TOP, values.shape[-1]), dim=-1).values
    return torch.where(best == float("-inf"), 0.0, best).sum(-1)


def matching_scores(cosines: Tensor, spans: Tensor, lengths: Tensor) -> Tensor:
    """Matching score ``(N, Q)`` of candidates ``(N, Q, 2)``.

    The released code reads past the window's true end into padding, whose cosines are not numbers; here a candidate
    ends with its window.

    Args:
        cosines: ``(N, V)`` of each frame with its window's sentence.
        spans: Candidates, fractions of the window's length.
        lengths: ``(N,)`` valid frames.
    """
    first, end = candidate_frames(spans, lengths)
    return top_sum(cosines, first, torch.minimum(end, lengths[:, None]))


def moment_similarities(
    frames: Tensor, sentences: Tensor, ranges: Tensor, adapter: nn.Module | None
) -> Tensor:
    """How much each window's moment looks like each sentence, ``(b, b)`` (window, sentence).

    Args:
        frames: ``(b, V, A)``, zero padded.
        sentences: ``(b, A)``.
        ranges: ``(b, 2)`` int64, first frame of the moment and the one after its last.
        adapter: See `unit_frames`.
    """
    if adapter is not None:
        frames = frames + adapter(frames)
    cosines = F.normalize(frames, dim=-1) @ F.normalize(sentences, dim=-1).T  # (b, V, b)
    first, end = (ranges[:, side, None].expand(-1, len(sentences)) for side in (0, 1))
    frame = torch.arange(frames.shape[1], device=frames.device)[None, :, None]
    covered = (frame >= first[:, None]) & (frame < end[:, None])  # (b, V, b)
    best = cosines.masked_fill(~covered, float("-inf")).topk(min(TOP, frames.shape[1]), dim=1).values
    return torch.where(best == float("-inf"), 0.0, best).sum(1)
