"""The objective of RGNet, term by term (paper section 3.4; the released loss).

Shapes: b items, Q candidates, V frames, L decoder layers. Spans are (centre, width) fractions of the window.
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
    """What b windows have to learn.

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


@dataclass(frozen=True)
class LayerLoss:
    """The unweighted terms of one decoder layer, and the candidate `matched` ``(b,)`` of each item."""

    span: Tensor
    giou: Tensor
    label: Tensor
    matched: Tensor


def layer_loss(
    logits: Tensor, spans: Tensor, targets: Tensor, background: Tensor | None, config: LossConfig
) -> LayerLoss:
    """Terms of one decoder layer.

    Args:
        logits: ``(b, Q, 2)``.
        spans: ``(b, Q, 2)``.
        targets: ``(b, 2)``.
        background: ``(b, Q, 2)`` logits of windows without the moment, all of which are background; or None.
        config: Weights.
    """
    matched = match(logits, spans, targets, config)
    items = torch.arange(len(matched), device=matched.device)
    found = spans[items, matched]
    weight = logits.new_full(logits.shape[:2], config.background)
    weight[items, matched] = 1.0
    label = weight.new_ones(weight.shape, dtype=torch.int64)
    label[items, matched] = 0
    if background is not None:
        logits = torch.cat([logits, background], 1)
        weight = torch.cat([weight, torch.full_like(background[..., 0], config.background)], 1)
        label = torch.cat([label, torch.ones_like(label)], 1)
    entropy = F.cross_entropy(logits.flatten(0, 1).float(), label.flatten(), reduction="none")
    return LayerLoss(
        span=(found - targets).abs().mean(),
        giou=(1 - generalised_iou(to_edges(found), to_edges(targets))).mean(),
        # a plain mean over all candidates, not one over their weights
        label=(entropy * weight.flatten()).mean(),
        matched=matched,
    )


def hinge(low: Tensor, high: Tensor, margin: float) -> Tensor:
    """Twice the mean of what `high` fails to exceed `low` by the margin."""
    return 2 * (margin + low - high).clamp(min=0).mean()


def contrast(similarity: Tensor, temperature: float) -> Tensor:
    """Mean of the cross entropies over the rows and the columns of ``(b, b)``, the diagonal being right."""
    logits = similarity.float() / temperature
    right = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def saliency(
    positive: Tensor,
    targets: Targets,
    negative: tuple[Tensor, Tensor] | None,
    margin: float,
    *,
    masked_max: bool,
) -> Tensor:
    """The moment's frames stand out from those beside it and, where given, from those of a window without it.

    Args:
        positive: ``(b, V)`` saliency.
        targets: The drawn frames.
        negative: ``(b, V')`` saliency of windows without the moment, and their valid frames; or None.
        margin: Of the hinges.
        masked_max: Whether the largest negative is sought among valid frames only; the released code also looks at
            padding.
    """
    inside = positive.gather(1, targets.inside[:, None])[:, 0]
    loss = hinge(positive.gather(1, targets.outside[:, None])[:, 0], inside, margin)
    if negative is None:
        return loss
    scores, mask = negative
    largest = (scores.masked_fill(~mask, float("-inf")) if masked_max else scores).max(1).values
    quiet = (F.softplus(scores) * mask).sum(1).mean()  # -ln(1 - sigmoid(x)), a sum over frames
    return loss + hinge(largest, inside, margin) + quiet


@dataclass(frozen=True)
class Negative:
    """The pass over windows without the moment, and their valid frames ``(b, V')`` bool."""

    output: Output
    mask: Tensor


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
        targets: What they have to learn.
        negative: The windows without, or None where every text met every window.
        similarity: ``(b, b)`` from `matching.moment_similarities` where the adapter learns, else None.
        config: Weights.
        masked_max: See `saliency`.
    """
    # every layer is given the last layer's background, as in the released code
    background = None if negative is None else negative.output.logits[-1]
    layers = [
        layer_loss(logits, spans, targets.spans, background, config)
        for logits, spans in zip(output.logits, output.spans, strict=True)
    ]
    last = layers[-1]
    quiet = None if negative is None else (negative.output.saliency, negative.mask)
    terms = {
        "span": config.span * last.span,
        "giou": config.giou * last.giou,
        "label": config.label * last.label,
        "saliency": config.saliency
        * saliency(output.saliency, targets, quiet, config.margin, masked_max=masked_max),
    }
    if config.retrieval:
        found = (
            contrast(output.retrieval, config.temperature)
            if negative is None
            else hinge(negative.output.retrieval, output.retrieval, config.margin)
        )
        terms["retrieval"] = config.retrieval * found
    if similarity is not None:
        terms["adapter"] = config.adapter * contrast(similarity, config.temperature)
    if len(layers) > 1:
        earlier = [config.span * x.span + config.giou * x.giou + config.label * x.label for x in layers[:-1]]
        terms["earlier_layers"] = torch.stack(earlier).sum()
    return {**terms, "total": torch.stack(list(terms.values())).sum()}
