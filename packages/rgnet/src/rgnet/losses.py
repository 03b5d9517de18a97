"""RGNet's objective, one function per term (paper section 3.4; the released loss).

Shapes: b items, Q candidates, V frames, L decoder layers. Spans are (centre, width) fractions of the window; class 0
is the foreground.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rgnet.config import LossConfig
from rgnet.model import Output


@dataclass(frozen=True)
class Targets:
    """Targets of b windows that hold their moment.

    Attributes:
        spans: ``(b, 2)`` float32 (centre, width).
        frames: ``(b, 2)`` int64 first frame of the moment and the one after its last.
        inside: ``(b,)`` int64 a frame of the moment.
        outside: ``(b,)`` int64 a frame beside it.
    """

    spans: Tensor
    frames: Tensor
    inside: Tensor
    outside: Tensor


@dataclass(frozen=True)
class Negative:
    """The pass over windows without the moment, and their valid frames ``(b, V')`` bool."""

    output: Output
    mask: Tensor


def to_edges(spans: Tensor) -> Tensor:
    """(centre, width) to (start, end)."""
    half = spans[..., 1:] / 2
    return torch.cat([spans[..., :1] - half, spans[..., :1] + half], -1)


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of (start, end) pairs ``(..., 2)``: the overlap less the share of the hull in neither."""
    low, high = torch.maximum(a[..., 0], b[..., 0]), torch.minimum(a[..., 1], b[..., 1])
    shared = (high - low).clamp(min=0)
    union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - shared
    hull = torch.maximum(a[..., 1], b[..., 1]) - torch.minimum(a[..., 0], b[..., 0])
    return shared / union - (hull - union) / hull


@torch.no_grad()
def match(logits: Tensor, spans: Tensor, targets: Tensor, config: LossConfig) -> Tensor:
    """The candidate of least cost per item, ``(b,)``: there is one target each, so no assignment is to be solved.

    Args:
        logits: ``(b, Q, 2)``.
        spans: ``(b, Q, 2)``.
        targets: ``(b, 2)``.
        config: Weights of the cost.
    """
    wanted = targets[:, None]
    distance = (spans - wanted).abs().sum(-1)
    overlap = generalised_iou(to_edges(spans), to_edges(wanted))
    probability = logits.softmax(-1)[..., 0]
    cost = config.span * distance - config.giou * overlap - config.label * probability
    return cost.argmin(1)


def span_loss(matched: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute distance of the matched spans ``(b, 2)`` from their targets, scalar."""
    return (matched - targets).abs().mean()


def giou_loss(matched: Tensor, targets: Tensor) -> Tensor:
    """``1 - gIoU`` of the matched spans ``(b, 2)`` with their targets, batch mean."""
    return (1 - generalised_iou(to_edges(matched), to_edges(targets))).mean()


def label_loss(logits: Tensor, matched: Tensor, background: Tensor | None, weight: float) -> Tensor:
    """Weighted cross entropy: the matched candidate is foreground, every other one background.

    Args:
        logits: ``(b, Q, 2)``.
        matched: ``(b,)`` numbers of the matched candidates.
        background: ``(b, Q, 2)`` logits in windows without the moment, or None.
        weight: Of a background candidate.

    Returns:
        The plain mean over all candidates, not one over their weights.
    """
    items = torch.arange(len(matched), device=matched.device)
    weights = logits.new_full(logits.shape[:2], weight)
    weights[items, matched] = 1.0
    labels = weights.new_ones(weights.shape, dtype=torch.int64)
    labels[items, matched] = 0
    if background is not None:
        logits = torch.cat([logits, background], 1)  # (b, 2 Q, 2)
        weights = torch.cat([weights, torch.full_like(background[..., 0], weight)], 1)
        labels = torch.cat([labels, torch.ones_like(labels)], 1)
    entropy = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none")
    return (entropy * weights.flatten()).mean()


def layer_losses(
    logits: Tensor, spans: Tensor, targets: Tensor, background: Tensor | None, config: LossConfig
) -> dict[str, Tensor]:
    """The weighted grounding terms of one decoder layer, with its own matching: span, giou, label.

    Args:
        logits: ``(b, Q, 2)``.
        spans: ``(b, Q, 2)``.
        targets: ``(b, 2)``.
        background: See `label_loss`.
        config: Weights.
    """
    number = match(logits, spans, targets, config)
    matched = spans[torch.arange(len(number), device=number.device), number]  # (b, 2)
    return {
        "span": config.span * span_loss(matched, targets),
        "giou": config.giou * giou_loss(matched, targets),
        "label": config.label * label_loss(logits, number, background, config.background),
    }


def hinge(low: Tensor, high: Tensor, margin: float) -> Tensor:
    """Twice the mean of what `high` fails to exceed `low` by the margin."""
    return 2 * (margin + low - high).clamp(min=0).mean()


def contrast(similarity: Tensor, temperature: float) -> Tensor:
    """Mean of the cross entropies over the rows and the columns of ``(b, b)``, the diagonal being right."""
    logits = similarity.float() / temperature
    right = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def saliency_loss(
    positive: Tensor,
    targets: Targets,
    negative: tuple[Tensor, Tensor] | None,
    margin: float,
    *,
    masked_max: bool,
) -> Tensor:
    """Intra-clip attention: the moment's frames stand out from others of their window and of one without the moment.

    Args:
        positive: ``(b, V)`` saliency.
        targets: The sampled frames.
        negative: ``(b, V')`` saliency of windows without the moment, and their valid frames; or None.
        margin: Of the hinges.
        masked_max: Take the largest negative among valid frames only; the released code takes it over padding too.
    """
    inside = positive.gather(1, targets.inside[:, None])[:, 0]  # (b,)
    loss = hinge(positive.gather(1, targets.outside[:, None])[:, 0], inside, margin)
    if negative is None:
        return loss
    scores, mask = negative
    largest = (scores.masked_fill(~mask, float("-inf")) if masked_max else scores).max(1).values
    quiet = (F.softplus(scores) * mask).sum(1).mean()  # -ln(1 - sigmoid(x)), a sum over frames
    return loss + hinge(largest, inside, margin) + quiet


def retrieval_loss(retrieval: Tensor, negative: Tensor | None, config: LossConfig) -> Tensor:
    """Inter-clip loss on the retrieval logits: contrastive clip sampling, or a margin over a window without the moment.

    Args:
        retrieval: ``(b, b)`` (text, window) without `negative`, else ``(b,)``.
        negative: ``(b,)`` of windows without the moment, or None.
        config: Temperature and margin.
    """
    if negative is None:
        return contrast(retrieval, config.temperature)
    return hinge(negative, retrieval, config.margin)


def total(
    output: Output,
    targets: Targets,
    negative: Negative | None,
    similarity: Tensor | None,
    config: LossConfig,
    *,
    masked_max: bool,
) -> dict[str, Tensor]:
    """All weighted terms by name; `total` is their sum.

    Args:
        output: Of the windows with the moment.
        targets: Theirs.
        negative: The windows without, or None where every text met every window.
        similarity: ``(b, b)`` from `matching.moment_similarities` where the adapter learns, else None.
        config: Weights.
        masked_max: See `saliency_loss`.
    """
    # grounding, layer by layer; each is given the last layer's background, as in the released code
    background = None if negative is None else negative.output.logits[-1]
    layers = [
        layer_losses(logits, spans, targets.spans, background, config)
        for logits, spans in zip(output.logits, output.spans, strict=True)
    ]
    quiet = None if negative is None else (negative.output.saliency, negative.mask)
    saliency = saliency_loss(output.saliency, targets, quiet, config.margin, masked_max=masked_max)
    terms = {**layers[-1], "saliency": config.saliency * saliency}
    if config.retrieval:
        other = None if negative is None else negative.output.retrieval
        terms["retrieval"] = config.retrieval * retrieval_loss(output.retrieval, other, config)
    if similarity is not None:
        terms["adapter"] = config.adapter * contrast(similarity, config.temperature)
    if len(layers) > 1:
        earlier = [layer["span"] + layer["giou"] + layer["label"] for layer in layers[:-1]]
        terms["earlier_layers"] = torch.stack(earlier).sum()
    return {**terms, "total": torch.stack(list(terms.values())).sum()}
