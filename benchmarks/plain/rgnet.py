"""RGNet as its released program runs it: every pair of a text and a window in full, padded, with a mask per head.

Inputs are repeated for every pair before they are projected; attention weights are formed, masked and averaged; the
decoder projects every frame in each layer; of a long video every window is decoded and every moment scored.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plain import Pair
from rgnet import losses, matching
from rgnet.config import Config
from rgnet.data import Batch, TrainTargets
from rgnet.losses import Negative, Targets
from rgnet.method import RGNetMethod
from rgnet.model import Frames, Output, Tokens
from rgnet.search import ranking
from rgnet.search.search import LongVideoSearch, TextVectors
from rgnet.windows import video_windows
from vmr_train.cli.config import bundled_config
from vmr_train.method import Progress
from vmr_train.optim import build_optimizer

WORDS = 12  # of the query over a long video


class Passed(NamedTuple):
    """Of N pairs: `logits` and `spans` (L, N, Q, 2), `retrieval` (N,), `saliency` and `selected` (N, V)."""

    logits: Tensor
    spans: Tensor
    retrieval: Tensor
    saliency: Tensor
    selected: Tensor


class PlainRGNet:
    """The forward pass over the weights of one of our models; sequences come first, as in the released program."""

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        self.heads = model.config.heads
        self.dim = model.config.hidden

    def drop(self, x: Tensor, p: float | None = None) -> Tensor:
        return F.dropout(x, self.model.config.dropout if p is None else p, self.model.training)

    def project(self, x: Tensor, layer: Any) -> Tensor:
        p = self.model.config.input_dropout
        x = layer.linear1(self.drop(layer.norm1(x), p)).relu()
        return layer.linear2(self.drop(layer.norm2(x), p))

    def positions(self, valid: Tensor) -> Tensor:
        count = valid.float().cumsum(1)
        angle = count / (count[:, -1:] + 1e-6) * 2 * math.pi
        return self.sine(angle, self.dim, self.model.config.position_temperature)

    @staticmethod
    def sine(angle: Tensor, dim: int, temperature: float) -> Tensor:
        channel = torch.arange(dim, dtype=torch.float32)
        scaled = angle[..., None] / temperature ** (2 * (channel // 2) / dim)
        return torch.stack([scaled[..., 0::2].sin(), scaled[..., 1::2].cos()], -1).flatten(-2)

    def attend(
        self, layer: Any, query: Tensor, key: Tensor, value: Tensor, padding: Tensor, mask: Tensor
    ) -> Tensor:
        mixed, _ = F.multi_head_attention_forward(
            *(query, key, value, self.dim, self.heads, layer.in_proj_weight, layer.in_proj_bias),
            *(None, None, False, layer.dropout.p, layer.out_proj.weight, layer.out_proj.bias),
            training=self.model.training,
            key_padding_mask=torch.zeros(padding.shape).masked_fill(padding, -math.inf)
            if mask.is_floating_point()
            else padding,
            need_weights=True,
            attn_mask=mask,
        )
        return mixed

    def feed(self, x: Tensor, layer: Any) -> Tensor:
        return layer.linear2(self.drop(layer.linear1(x).relu()))

    def __call__(
        self, tokens: Tensor, words: Tensor, features: Tensor, frames: Tensor, uniform: Tensor | None = None
    ) -> Passed:
        """All of N pairs: tokens (N, T, E) with valid words (N, T), windows (N, V, F) with valid frames (N, V)."""
        model, encoder = self.model, self.model.encoder
        y = self.project(tokens, model.text_projection).transpose(0, 1)
        x = self.project(features, model.video_projection).transpose(0, 1)
        where = self.positions(frames).transpose(0, 1)

        # frames read words; the mask of pairs is laid out head by head
        hidden = (~frames[:, :, None] & ~words[:, None]).repeat(self.heads, 1, 1)
        for layer in encoder.cross_layers:
            x = x + self.drop(self.attend(layer.attention, x + where, y, y, ~words, hidden))
            x = layer.norm2(x + self.drop(self.feed(layer.norm1(x), layer.feed_forward)))

        # retrieval token, gate, and the mask of unselected frames
        pairs = len(frames)
        states = torch.cat([encoder.token.expand(1, pairs, -1), x])
        place = torch.cat([encoder.token_position.expand(1, pairs, -1), where])
        gate = encoder.gate(states)  # (1 + V, N, 1)
        if model.training:
            drawn = torch.rand_like(gate) if uniform is None else uniform
            noise = (drawn + 1e-8).log() - (1 - drawn + 1e-8).log()
            soft = ((gate + noise) / encoder.temperature).sigmoid()
            hard = (soft >= 0.5).float()
            gate = (hard - soft).detach() + soft
        else:
            gate = hard = (gate >= 0).float()
        unselected = 1 - hard[..., 0].detach().T  # (N, 1 + V)
        unselected[:, 0] = 0
        raised = unselected[:, :, None] * (1 - torch.eye(unselected.shape[1]))
        raised = raised.repeat_interleave(self.heads, 0)
        padding = torch.cat([torch.zeros(pairs, 1, dtype=torch.bool), ~frames], 1)
        for layer in encoder.self_layers:
            both = states + place
            states = layer.norm1(
                states + self.drop(self.attend(layer.attention, both, both, states, padding, raised))
            )
            states = layer.norm2(states + self.drop(self.feed(states, layer.feed_forward)))
        token = states[0]
        memory = states[1:] + gate[1:] * token

        found, anchors = self.decode(memory, where, ~frames)
        logits = model.class_head(found)
        spans = (model.span_head(found) + self.inverse(anchors)).sigmoid()
        frame, summary = model.saliency_frames(memory), model.saliency_token(token)
        saliency = (frame * summary).sum(-1).T / math.sqrt(self.dim)
        return Passed(logits, spans, model.retrieval_head(token)[:, 0], saliency, gate[1:, :, 0].T)

    @staticmethod
    def inverse(x: Tensor) -> Tensor:
        x = x.clamp(0, 1)
        return (x.clamp(min=1e-3) / (1 - x).clamp(min=1e-3)).log()

    def mix(self, query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None, layer: Any) -> Tensor:
        """Attention of (Q, N, E) over (V, N, E) in heads, the values (V, N, D) of another width."""

        def split(x: Tensor) -> Tensor:
            return x.reshape(len(x), x.shape[1] * self.heads, -1).transpose(0, 1)

        count = query.shape[1]
        query = query * (query.shape[-1] // self.heads) ** -0.5
        logits = torch.bmm(split(query), split(key).transpose(1, 2))
        if padding is not None:
            logits = logits.view(count, self.heads, *logits.shape[1:])
            logits = logits.masked_fill(padding[:, None, None], -math.inf).flatten(0, 1)
        weights = self.drop(F.softmax(logits - logits.max(-1, keepdim=True).values, -1))
        mixed = torch.bmm(weights, split(value)).transpose(0, 1)
        return layer.out_proj(mixed.reshape(len(query), count, -1))

    def decode(self, memory: Tensor, where: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        decoder = self.model.decoder
        count, queries = memory.shape[1], len(decoder.anchors)
        anchor = decoder.anchors.sigmoid()[:, None].repeat(1, count, 1)  # (Q, N, 2)
        x = torch.zeros(queries, count, self.dim)
        states, anchors = [], []
        for number, layer in enumerate(decoder.layers):
            anchors.append(anchor)
            reference = anchor if number == 0 else anchor.detach()
            code = torch.cat(
                [self.sine(reference[..., side] * 2 * math.pi, self.dim // 2, 10_000) for side in (0, 1)], -1
            )
            position = decoder.position_head(code)
            if number:
                code = code * decoder.scale_head(x)
            code = code * (decoder.width_head(x).sigmoid() / reference[..., 1:])
            # queries read each other
            own = layer.self_attention
            query = own.query_content(x) + own.query_position(position)
            key = own.key_content(x) + own.key_position(position)
            x = layer.norm1(x + self.drop(self.mix(query, key, own.value(x), None, own)))
            # then the frames, content and position side by side in every head
            cross = layer.cross_attention
            query = cross.query_content(x) + cross.query_position(position)
            query = self.beside(query, cross.query_sine(code))
            placed = cross.key_position(where)
            key = self.beside(cross.key_content(memory) + placed, placed)
            x = layer.norm2(x + self.drop(self.mix(query, key, cross.value(memory), padding, cross)))
            x = layer.norm3(x + self.drop(self.feed(x, layer.feed_forward)))
            states.append(decoder.norm(x))
            if number < len(decoder.refine):
                anchor = (decoder.refine[number](x) + self.inverse(reference)).sigmoid()
        return torch.stack(states).transpose(1, 2), torch.stack(anchors).transpose(1, 2)

    def beside(self, first: Tensor, second: Tensor) -> Tensor:
        both = [x.view(*x.shape[:2], self.heads, -1) for x in (first, second)]
        return torch.cat(both, -1).flatten(2)

    def window_pass(self, tokens: Tokens, windows: Frames, uniform: Tensor | None = None) -> Output:
        """Text i with window i."""
        return Output(*self(tokens.vectors, tokens.mask, windows.features, windows.mask, uniform))

    def contrast_pass(self, tokens: Tokens, windows: Frames, uniform: Tensor | None = None) -> Output:
        """Every text with every window in full; what belongs together is taken from the outputs."""
        count = len(tokens.mask)
        texts, words = (x.repeat_interleave(count, 0) for x in (tokens.vectors, tokens.mask))
        found = self(
            texts, words, windows.features.repeat(count, 1, 1), windows.mask.repeat(count, 1), uniform
        )
        own = torch.arange(count) * (count + 1)
        retrieval = found.retrieval.view(count, count)
        return Output(
            found.logits[:, own], found.spans[:, own], retrieval, found.saliency[own], found.selected
        )


def loss_of(forward: Callable[..., Output], model: nn.Module, config: Config, batch: Batch) -> Tensor:
    """The loss of a batch from the outputs of either form; the terms themselves are small and shared."""
    train = batch.train
    assert train is not None
    output, negative, similarity = forward(batch.tokens, train.windows), None, None
    if train.negatives is not None:
        negative = Negative(forward(batch.tokens, train.negatives), train.negatives.mask)
    if train.matched is not None and batch.sentences is not None:
        frames = train.targets.frames
        similarity = matching.moment_similarities(train.matched, batch.sentences, frames, model.adapter)
    masked = config.quirks == "fixed"
    return losses.total(output, train.targets, negative, similarity, config.loss, masked_max=masked)["total"]


def some_windows(rng: torch.Generator, count: int, config: Config) -> Frames:
    """Windows of an even spread over videos of 21: two in 21 are half as long."""
    length, dim = config.data.window, config.data.features.dim
    lengths = [length // 2 if number % 10 == 9 else length for number in range(count)]
    return Frames.padded([torch.randn(n, dim, generator=rng) for n in lengths])


def some_batch(config: Config, count: int) -> Batch:
    """Queries of 6 to `max_tokens` tokens with their windows."""
    rng = torch.Generator().manual_seed(1)
    most, data = config.data.max_tokens, config.data
    words = torch.randint(6, most + 1, (count,), generator=rng).tolist()
    words[0] = most
    texts = [F.normalize(torch.randn(n, data.queries.token_dim, generator=rng), dim=-1) for n in words]
    windows = some_windows(rng, count, config)
    frames = torch.tensor([[10, 20]]).repeat(count, 1)
    spans = frames.float().mean(1, keepdim=True) / windows.mask.sum(1, keepdim=True)
    spans = torch.cat([spans, 10 / windows.mask.sum(1, keepdim=True)], 1)
    targets = Targets(spans, frames, frames[:, 0] + 2, frames[:, 0] - 3)
    negatives = some_windows(rng, count, config) if config.loss.negatives == "window" else None
    sentences = F.normalize(torch.randn(count, data.queries.sentence_dim, generator=rng), dim=-1)
    matched = windows.features if config.model.adapter else None
    train = TrainTargets(windows, targets, negatives, matched)
    return Batch(tuple(map(str, range(count))), (), Tokens.padded(texts), sentences, train)


def train(name: str, count: int) -> Pair:
    """A step of training at the sizes of a configuration, with dropout."""
    config = bundled_config("rgnet", Config, name)
    torch.manual_seed(0)
    method = RGNetMethod.build(config, None)
    method.model.train()
    plain = PlainRGNet(copy.deepcopy(method.model))
    contrast = config.loss.negatives == "contrast"
    forward = plain.contrast_pass if contrast else plain.window_pass
    batch, progress = some_batch(config, count), Progress(0, 1, 1)
    ours = build_optimizer(method.model, config.optim)
    theirs = torch.optim.AdamW(
        plain.model.parameters(), lr=config.optim.lr, weight_decay=config.optim.weight_decay
    )

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
        optimizer.step()

    return Pair(
        ours=lambda: step(method.model, ours, lambda: method.loss(batch, progress)["total"]),
        plain=lambda: step(plain.model, theirs, lambda: loss_of(forward, plain.model, config, batch)),
        difference=lambda: gradients_apart(config, method.model, contrast),
    )


def gradients_apart(config: Config, model: nn.Module, contrast: bool) -> float:
    """Largest relative difference of loss and gradient on four queries, without dropout, with the same draws."""
    sizes = dataclasses.replace(config.model, dropout=0.0, input_dropout=0.0)
    config = dataclasses.replace(config, model=sizes)
    one, two = (RGNetMethod.build(config, None).model.train() for _ in range(2))
    for other in (one, two):
        other.load_state_dict(model.state_dict())
    plain, batch = PlainRGNet(two), some_batch(config, 4)
    uniform = torch.rand(16 if contrast else 4, config.data.window + 1)
    forwards = (
        partial(one, contrast=contrast, uniform=uniform),
        partial(plain.contrast_pass if contrast else plain.window_pass, uniform=uniform.T[..., None]),
    )
    found = []
    for forward, other in zip(forwards, (one, two), strict=True):
        loss = loss_of(forward, other, config, batch)
        loss.backward()
        gradients = torch.cat([p.grad.flatten() for p in other.parameters() if p.grad is not None])
        found.append((loss.detach(), gradients))
    return max(float((a - b).norm() / b.norm()) for a, b in zip(*found, strict=True))


def train_contrast() -> Pair:
    """8 texts with 8 windows; a process of the authors' takes 16, which is four times the pairs and the time."""
    return train("ego4d-nlq-pretrain", 8)


def train_scratch() -> Pair:
    return train("ego4d-nlq", 32)


def query(name: str, seconds: float) -> Pair:
    """A query over a video that no query was asked of before."""
    config = bundled_config("rgnet", Config, name)
    torch.manual_seed(0)
    model = RGNetMethod.build(config, None).model.eval()
    rng = torch.Generator().manual_seed(1)
    data = config.data
    features = torch.randn(round(seconds / data.stride), data.features.dim, generator=rng)
    tokens, sentence = (
        F.normalize(torch.randn(*shape, generator=rng), dim=-1)
        for shape in ((WORDS, data.queries.token_dim), (data.features.dim,))
    )
    last: dict[str, np.ndarray] = {}
    search = LongVideoSearch(model, config.search, window=data.window, feature_stride=data.stride)

    def ours() -> None:
        video = search.prepare(features, features)
        found = search.search([(video, TextVectors(tokens, sentence))])
        last["ours"] = found[0].ranked(config.search)[0]

    def plain() -> None:
        last["plain"] = plain_query(PlainRGNet(model), config, features, tokens, sentence)

    def difference() -> float:
        return float(np.abs(last["ours"] - last["plain"]).max() / np.abs(last["plain"]).max())

    return Pair(ours, plain, difference)


@torch.no_grad()
def plain_query(
    plain: PlainRGNet, config: Config, features: Tensor, tokens: Tensor, sentence: Tensor
) -> np.ndarray:
    """All windows of the video in one padded batch, each decoded; the moments scored one by one."""
    windows = video_windows(len(features), config.data.window)
    frames = Frames.padded([features[first : first + length] for first, length in windows.tolist()])
    count = len(windows)
    texts = tokens.expand(count, *tokens.shape).contiguous()
    found = plain(texts, torch.ones(texts.shape[:2], dtype=torch.bool), frames.features, frames.mask)
    retrieval = found.retrieval.sigmoid()
    best = retrieval.argsort(descending=True)[: config.search.windows]
    probability = found.logits[-1].softmax(-1)[..., 0]
    scores, spans = probability[best] * retrieval[best, None], found.spans[-1][best]
    matched = torch.zeros_like(scores)
    seen = frames.features[best]
    if plain.model.adapter is not None:
        seen = seen + plain.model.adapter(seen)
    unit = seen / seen.norm(dim=-1, keepdim=True)
    for row, number in enumerate(best.tolist()):
        length = int(windows[number, 1])
        for place, (centre, width) in enumerate(spans[row].tolist()):
            first = max(0, math.floor((centre - width / 2) * length))
            last = min(length, math.ceil((centre + width / 2) * length))
            if last > first:
                cosines = unit[row, first:last] @ sentence
                matched[row, place] = cosines.topk(min(matching.TOP, last - first)).values.sum()
    if config.search.matching_by_retrieval:
        matched = matched * retrieval[best, None]
    numbers = (x.double().numpy() for x in (spans, scores, matched))
    rows = ranking.candidate_rows(*numbers, windows[best.numpy()], config.data.stride)
    rows = np.concatenate([rows, ranking.fuse(rows)[:, None]], 1)
    limits = config.search
    return ranking.rank(
        rows, by=ranking.FUSED, limit=limits.pre_nms_top_k, threshold=limits.nms, keep=limits.post_nms_top_k
    )[0]


def query_8_min() -> Pair:
    return query("ego4d-nlq", 8 * 60)


def query_1_h() -> Pair:
    return query("mad", 3600)
