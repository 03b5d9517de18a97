"""The decoder of RGN and CFMR as their programs (and CPL, from which both took it) compute it, on our layers' weights.

Every pass over an item is a row of its own, ``(R, L, D)``, with its own copy of what it shares with others; attention
is a full matrix, whose rows a Gaussian multiplies and a division sums to one again.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

HIDDEN = -1e30


def attention(layer, query, memory, mask, gaussian=None, *, causal):
    """``(R, L, D)``; `mask` ``(R, M)`` bool True = valid, `gaussian` ``(R, M)`` or None."""
    dim, heads = query.shape[-1], layer.heads
    weight, bias = layer.in_proj_weight, layer.in_proj_bias
    if query is memory:
        q, k, v = F.linear(query, weight, bias).chunk(3, dim=-1)
    else:
        q = F.linear(query, weight[:dim], bias[:dim])
        k, v = F.linear(memory, weight[dim:], bias[dim:]).chunk(2, dim=-1)

    def per_head(x):  # (R * H, L, d)
        return x.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)

    logits = torch.bmm(per_head(q * (dim // heads) ** -0.5), per_head(k).transpose(1, 2))
    if causal:
        later = torch.full(logits.shape[1:], float("-inf"), device=logits.device).triu(1)
        logits = logits + later
    if mask is not None:
        logits = logits.unflatten(0, (-1, heads)).masked_fill(~mask[:, None, None], HIDDEN).flatten(0, 1)
    weights = logits.softmax(-1, dtype=torch.float32)
    if gaussian is not None:
        weights = weights.unflatten(0, (-1, heads)) * (gaussian[:, None, None] + 1e-10)
        weights = (weights / weights.sum(-1, keepdim=True)).flatten(0, 1)
    mixed = torch.bmm(weights, per_head(v)).unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)
    return layer.out_proj(mixed)


def decode(decoder, x, mask, gaussian=None, memory=None, memory_mask=None, memory_gaussian=None):
    """All layers of a causal decoder over ``(R, L, D)``, which reads a memory ``(R, M, D)`` if there is one."""
    for layer in decoder.layers:
        drop = layer.dropout
        x = layer.self_norm(x + drop(attention(layer.self_attention, x, x, mask, gaussian, causal=True)))
        if memory is not None:
            mixed = attention(layer.cross_attention, x, memory, memory_mask, memory_gaussian, causal=False)
            x = layer.cross_norm(x + drop(mixed))
        x = layer.final_norm(x + drop(layer.fc2(F.relu(layer.fc1(x)))))
    return x


def copies(x: Tensor, count: int) -> Tensor:
    """``(B * count, ...)``: each row `count` times."""
    return x.repeat_interleave(count, dim=0)


def nll(logits, targets, mask):
    """``(R,)`` smoothed negative log-likelihood of logits ``(R, L, V)``, from a copy of the log-softmax."""
    log_p = logits.log_softmax(-1)
    of_target = -log_p.gather(-1, targets[..., None])[..., 0]
    of_all = -log_p.sum(-1)
    each = 0.9 * of_target + 0.1 / logits.shape[-1] * of_all
    return (each * mask).sum(-1) / mask.sum(-1)


def gaussian(grid, centre, std):
    """``(R, P)``, divided by its maximum."""
    g = torch.exp(-((grid - centre[:, None]) ** 2) / (2 * std[:, None] ** 2)) / std[:, None]
    return g / g.amax(-1, keepdim=True)


def negative_gaussians(grid, centre, width, sigma, progress):
    """The left and the right one of every proposal, ``(R, P)`` each."""
    left = progress * (centre - width / 2).clamp_min(0)
    right = 1 - progress * (1 - centre - width / 2).clamp_min(0)
    return (
        gaussian(grid, left, left.clamp_min(0.01) / (sigma / 2)),
        gaussian(grid, right, (1 - right).clamp_min(0.01) / (sigma / 2)),
    )


def made_words(rng, queries: int, longest: int, classes: int, *, before_and_after: int):
    """Queries as long as those of Charades-STA: words ``(B,)``, their classes ``(B, L)``, and word masks with so many
    places more, of which the first stands before the words; the first query has `longest` words.
    """
    lengths = np.clip(rng.poisson(7.22, size=queries), 3, longest)
    lengths[0] = longest
    targets = np.zeros((queries, longest), np.int64)
    masked = np.zeros((queries, longest + before_and_after), bool)
    for row, length in enumerate(lengths):
        targets[row, :length] = rng.integers(1, classes, size=length)
        masked[row, 1 + rng.choice(length, size=max(length // 3, 1), replace=False)] = True
    return lengths, targets, masked
