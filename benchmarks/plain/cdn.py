"""CDN as its authors' program runs it: full maps, every query with a copy of its video, one grouped convolution."""

from __future__ import annotations

import copy
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdn.config import Config
from cdn.data import Batch, Dataset, Preprocessor
from cdn.losses import attention_distance
from cdn.map_network import DynamicConvolution, StaticConvolution
from cdn.method import CDNMethod
from cdn.model import CDN, FrameAttention
from plain import Pair, maps
from vmr_common.types import Prediction, Query
from vmr_train.cli.config import bundled_config
from vmr_train.word_lookup import WordLookup


class Dynamic(nn.Module):
    """A convolution whose kernels every query mixes; the bank holds rows of flattened ``(O, I, k, k)`` kernels."""

    def __init__(self, ours: DynamicConvolution) -> None:
        super().__init__()
        self.bank = nn.Parameter(torch.stack([maps.as_convolution(one).flatten() for one in ours.bank]))
        self.bias_bank = nn.Parameter(ours.bias_bank.detach().clone())
        self.text, self.map, self.mixer, self.dropout = copy.deepcopy(
            (ours.text, ours.map, ours.mixer, ours.dropout)
        )

    def forward(self, u: Tensor, sentence: Tensor) -> Tensor:
        batch, dim, size, _ = u.shape
        a = torch.tanh(self.text(sentence) + self.map(u.mean(dim=(2, 3))))
        a = self.dropout(self.mixer(a).softmax(dim=1))
        kernel = round((self.bank.shape[1] // dim**2) ** 0.5)
        weight = (a @ self.bank).view(batch * dim, dim, kernel, kernel)
        bias = (a @ self.bias_bank).flatten()
        found = F.conv2d(u.reshape(1, -1, size, size), weight, bias, padding=kernel // 2, groups=batch)
        return found.view_as(u)


class Static(nn.Module):
    """A convolution with one kernel for all queries."""

    def __init__(self, ours: StaticConvolution) -> None:
        super().__init__()
        self.weight = nn.Parameter(maps.as_convolution(ours.weight))
        self.bias = nn.Parameter(ours.bias.detach().clone())

    def forward(self, u: Tensor, sentence: Tensor) -> Tensor:
        return F.conv2d(u, self.weight, self.bias, padding=self.weight.shape[-1] // 2)


class PlainCDN(nn.Module):
    """The network on copies of our weights."""

    def __init__(self, model: CDN) -> None:
        super().__init__()
        config = model.config
        self.scales, self.kernel = config.scales, config.kernel
        self.lstm, self.frames = copy.deepcopy((model.text.lstm, model.frames))
        self.fusion, self.scorer = copy.deepcopy((model.fusion, model.scorer))
        self.convolutions = nn.ModuleList(
            Dynamic(layer)
            if isinstance(layer, DynamicConvolution)
            else Static(cast(StaticConvolution, layer))
            for layer in model.map_network.convolutions
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(config.hidden) for _ in model.map_network.norms)
        for norm, ours in zip(self.norms, model.map_network.norms, strict=True):
            norm.load_state_dict(ours.state_dict())

    def forward(self, frames: Tensor, words: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits and mask ``(B, 1, N, N)``, frame attention ``(B, N, s, M)``; a row of `frames` per query."""
        states, _ = self.lstm(words)
        sentence = states[torch.arange(len(states)), lengths - 1]
        clips, attention = self.attend(self.frames, frames)
        full, mask = maps.pooled_map(clips.transpose(1, 2), self.scales)
        video = F.conv2d(full, self.fusion.video.weight[:, :, None, None], self.fusion.video.bias)
        x = F.normalize(self.fusion.text(sentence)[:, :, None, None] * video, dim=1) * mask
        weights = maps.layer_weights(mask, self.kernel, len(self.convolutions))
        for norm, convolution, weight in zip(self.norms, self.convolutions, weights, strict=False):
            u = norm(x)
            x = F.relu(convolution(u, sentence) + u) * weight
        x = self.norms[-1](x)
        logits = F.conv2d(x, self.scorer.weight[:, :, None, None], self.scorer.bias) * mask
        return logits, mask, attention

    @staticmethod
    def attend(part: FrameAttention, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Clip by clip and step by step: clips ``(B, N, H)`` and attention ``(B, N, s, M)``."""
        v = part.frame_projection(frames).relu()
        clips, attention = [], []
        for own in v.chunk(part.clips, dim=1):  # (B, s, H)
            mean = own.mean(dim=1)
            p, steps, alphas = torch.zeros_like(mean), [], []
            for overview in part.overviews:
                guide = part.guide(torch.cat([overview(mean), p], dim=1)).relu()
                energy = part.energy(torch.tanh(part.guide_energy(guide)[:, None] + part.frame_energy(own)))
                alpha = energy.softmax(dim=1)
                p = (alpha * own).sum(dim=1)
                steps.append(p)
                alphas.append(alpha)
            clips.append(torch.cat(steps, dim=1))
            attention.append(torch.cat(alphas, dim=2))
        return part.clip_projection(torch.stack(clips, dim=1)).relu(), torch.stack(attention, dim=1)


def made(name: str, queries: int) -> tuple[Config, CDNMethod, Batch]:
    """A configuration, an untrained method, and a batch of queries about a video each."""
    config = bundled_config("cdn", Config, name)
    rng = np.random.default_rng(1)
    asked = [
        Query(id=f"q{n}", video=f"v{n}", text="a b c d e f", duration=30.0, moments=[[5, 12 + n]])
        for n in range(queries)
    ]
    shape = (config.data.frames, config.data.features.dim)
    features = {query.video: rng.normal(size=shape).astype(np.float32) / shape[1] ** 0.5 for query in asked}
    torch.manual_seed(0)
    method = CDNMethod.build(config, Preprocessor(maps.WORDS))
    dataset = Dataset(asked, features, WordLookup(maps.WORDS), clips=config.model.clips)
    return config, method, dataset.batch(range(queries), 1)


def train(name: str, queries: int) -> Pair:
    config, method, batch = made(name, queries)
    plain = PlainCDN(method.model)

    def loss() -> Tensor:
        expanded = batch.features[batch.video_of]
        logits, mask, attention = plain(expanded, batch.words.vectors, batch.words.lengths)
        found = maps.map_loss(logits, mask, batch.overlaps[:, None], config.loss.min_iou, config.loss.max_iou)
        if config.loss.beta:
            found = found + config.loss.beta * attention_distance(attention, config.loss.lambda_)
        return found

    return maps.training(method, batch, plain, loss, config.optim)


def infer(name: str, queries: int) -> Pair:
    """Predictions for videos not met before."""
    config, method, batch = made(name, queries)
    maps.settle(method.model, lambda: method.model(batch.features, batch.video_of, batch.words))
    plain = PlainCDN(method.model).eval()

    def predict() -> list[Prediction]:
        method._encoded.clear()
        return method.predict(batch)

    def logits() -> tuple[Tensor, Tensor]:
        return plain(batch.features[batch.video_of], batch.words.vectors, batch.words.lengths)[:2]

    return maps.inference(predict, logits, config.decode.nms)


def train_charades() -> Pair:
    return train("charades", 4)


def infer_charades() -> Pair:
    return infer("charades", 4)


def train_tacos() -> Pair:
    return train("tacos", 1)


def infer_tacos() -> Pair:
    return infer("tacos", 1)
