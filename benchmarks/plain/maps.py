"""The 2D map of proposals, its decoding and a training step, as the programs of CDN and LEORN have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plain import Pair
from vmr_common.text.vectors import WordVectors
from vmr_common.types import Prediction
from vmr_train.config import OptimConfig, TrainConfig
from vmr_train.device import update_seed
from vmr_train.layers.batch_norm import BatchNorm
from vmr_train.method import Method, Progress
from vmr_train.sampler import Plan
from vmr_train.step import Updater

PROGRESS = Progress(update=0, epoch=1, epochs=1)
WORDS = WordVectors(tuple("abcdefgh"), np.random.default_rng(0).normal(size=(8, 300)).astype(np.float32))


def pooled_map(clips: Tensor, scales: list[int]) -> tuple[Tensor, Tensor]:
    """Full maps ``(B, C, N, N)`` by a cascade of poolings of ``(B, C, N)``, and the mask ``(B, 1, N, N)``."""
    size, offset = clips.shape[2], -1
    full = clips.new_zeros(*clips.shape[:2], size, size)
    mask = clips.new_zeros(len(clips), 1, size, size)
    for scale, count in enumerate(scales):
        for step in range(count):
            if scale or step:
                clips = F.max_pool1d(clips, 2, 1) if step else F.max_pool1d(clips, 3, 2)
            offset += 2**scale
            starts = torch.arange(0, size - offset, 2**scale)
            full[:, :, starts, starts + offset] = clips
            mask[:, :, starts, starts + offset] = 1
    return full, mask


def layer_weights(mask: Tensor, kernel: int, layers: int) -> list[Tensor]:
    """The weights of every layer's output, made anew in each pass by convolutions of the mask."""
    ones = mask.new_ones(1, 1, kernel, kernel)
    found = []
    for _ in range(layers):
        counts = F.conv2d(mask, ones, padding=kernel // 2).round()
        weight = counts.clone()
        weight[counts > 0] = 1 / counts[counts > 0]
        mask = (counts > 0).float()
        found.append(weight)
    return found


def map_loss(logits: Tensor, mask: Tensor, overlaps: Tensor, low: float, high: float) -> Tensor:
    """The cross-entropy of probabilities, its mean over valid cells, computed over full maps ``(B, 1, N, N)``."""
    target = ((overlaps - low) / (high - low)).clamp(0, 1)
    loss = F.binary_cross_entropy(logits.sigmoid() * mask, target, reduction="none") * mask
    return loss.sum() / mask.sum()


def decoded(scores: Tensor, threshold: float) -> Tensor:
    """Scores ``(B, 5)`` of the best moments of each query: all N x N cells are ranked, then suppressed greedily."""
    found = []
    for map_ in scores[:, 0].numpy():
        starts, ends = np.unravel_index(np.argsort(map_, axis=None)[::-1], map_.shape)
        upper = starts <= ends
        moments = np.stack([starts[upper], ends[upper] + 1], axis=1).astype(np.float32)
        ranked = map_[starts[upper], ends[upper]]
        kept: list[float] = []
        remaining = np.ones(len(moments), dtype=bool)
        while len(kept) < 5 and remaining.any():
            best = moments[remaining.argmax()]
            kept.append(ranked[remaining.argmax()])
            inter = np.minimum(moments[:, 1], best[1]) - np.maximum(moments[:, 0], best[0])
            inter = inter.clip(min=0)
            union = (moments[:, 1] - moments[:, 0]) + (best[1] - best[0]) - inter
            remaining &= inter / union <= threshold
        found.append(kept)
    return torch.tensor(found)


def as_convolution(weight: Tensor) -> Tensor:
    """A kernel ``(k * k, I, O)`` of ours as ``(O, I, k, k)``."""
    size = round(len(weight) ** 0.5)
    return weight.detach().unflatten(0, (size, size)).permute(3, 2, 0, 1).contiguous()


@torch.no_grad()
def settle(model: nn.Module, forward: Callable[[], object]) -> None:
    """Gives every batch normalisation the statistics of one forward pass, so that scores differ in evaluation."""
    norms = [part for part in model.modules() if isinstance(part, BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    forward()
    model.eval()


def training(
    method: Method, batch: Any, plain: nn.Module, loss: Callable[[], Tensor], optim: OptimConfig
) -> Pair:
    """A step of the trainer and one as the authors' programs take it, with torch's Adam as it is by default."""
    method.model.train()
    plain.train()
    plan = Plan(size=len(batch.query_ids), global_batch=len(batch.query_ids), micro_batch=None, seed=0)
    updater = Updater(method, plan, TrainConfig(), optim, torch.device("cpu"))
    adam = torch.optim.Adam(plain.parameters(), lr=optim.lr, betas=(optim.beta1, optim.beta2), eps=optim.eps)
    last: dict[str, tuple[float, float]] = {}

    def ours() -> None:
        outcome = updater.run(iter([batch]), PROGRESS, 0, stop=lambda: False)
        updater.optimizer.zero_grad(set_to_none=True)  # so that both forms' gradients never exist together
        last["ours"] = outcome.terms["total"], outcome.grad_norm

    def theirs() -> None:
        adam.zero_grad(set_to_none=True)
        torch.manual_seed(update_seed(0, PROGRESS.update, 0, 0))
        value = loss()
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), optim.clip_norm)
        adam.step()
        adam.zero_grad(set_to_none=True)
        last["plain"] = value.item(), norm.item()

    return Pair(ours, theirs, lambda: max(map(relative, last["ours"], last["plain"])))


def inference(
    predict: Callable[[], list[Prediction]], plain: Callable[[], tuple[Tensor, Tensor]], threshold: float
) -> Pair:
    """Predictions of ours, and of a plain form that gives logits and the mask of full maps ``(B, 1, N, N)``."""
    last: dict[str, Tensor] = {}

    @torch.no_grad()
    def ours() -> None:
        found = predict()
        last["ours"] = torch.tensor(np.stack([prediction.scores for prediction in found]))

    @torch.no_grad()
    def theirs() -> None:
        logits, mask = plain()
        last["plain"] = decoded(logits.sigmoid() * mask, threshold)

    return Pair(ours, theirs, lambda: relative(last["ours"], last["plain"]))


def relative(found: float | Tensor, wanted: float | Tensor) -> float:
    """The largest difference, relative to the largest number wanted."""
    a, b = (torch.as_tensor(values, dtype=torch.float64) for values in (found, wanted))
    return cast(float, ((a - b).abs().max() / b.abs().max()).item())
