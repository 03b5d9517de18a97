"""Matching score of a candidate: cosines of its frames with the sentence vector (no learned weights).

Shapes: N windows, V frames, Q candidates, A width of frame features and sentence vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TOP = 3


def unit_frames(frames: Tensor, adapter: nn.Module | None) -> Tensor:
    """Frames ``(..., A)`` of unit length, after the adapter where there is one. A zero frame gives not-a-number."""
    frames = _adapted(frames, adapter)
    unit: Tensor = frames / frames.norm(dim=-1, keepdim=True)
    return unit


def _adapted(frames: Tensor, adapter: nn.Module | None) -> Tensor:
    return frames if adapter is None else frames + adapter(frames)


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
    return _sum_of_best(cosines[:, None], _covered(cosines.shape[1], first, end))


def _covered(frames: int, first: Tensor, end: Tensor) -> Tensor:
    # which of V frames lie from `first` (...) to before `end` (...): (..., V)
    frame = torch.arange(frames, device=first.device)
    return (frame >= first[..., None]) & (frame < end[..., None])


def _sum_of_best(cosines: Tensor, covered: Tensor) -> Tensor:
    # of cosines (..., V) the largest where `covered` (..., V) is true: (...)
    values = cosines.masked_fill(~covered, float("-inf"))
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
    """Similarity of each window's moment to each sentence, ``(b, b)`` (window, sentence).

    Args:
        frames: ``(b, V, A)``, zero padded.
        sentences: ``(b, A)``.
        ranges: ``(b, 2)`` int64, first frame of the moment and the one after its last.
        adapter: See `unit_frames`.
    """
    frames = _adapted(frames, adapter)
    cosines = F.normalize(frames, dim=-1) @ F.normalize(sentences, dim=-1).T  # (b, V, b)
    return _sum_of_best(cosines.transpose(1, 2), _covered(frames.shape[1], ranges[:, :1], ranges[:, 1:]))
