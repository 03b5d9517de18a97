"""LEORN as its authors' program runs it: inputs side by side, attention with its weights, full maps.

Dropout is off in both forms: ours draws at other shapes, so that the numbers could not be compared.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from leorn.config import Config
from leorn.data import Batch, Dataset, Objects, Preprocessor, QueryWords
from leorn.inputs import VideoArrays
from leorn.map_network import MapConvolution
from leorn.method import LEORNMethod
from leorn.model import LEORN
from leorn.object_features.prepare import ObjectInputs
from leorn.reasoning import CORM, LanguageEnhancement, SlotAttention
from plain import Pair, maps
from vmr_common.types import Prediction, Query
from vmr_train.cli.config import bundled_config
from vmr_train.layers.batch_norm import BatchNorm
from vmr_train.word_lookup import WordLookup


class Norm(nn.BatchNorm1d):
    """Batch normalisation of ``(..., H)``, every row counts."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, -2)).view_as(x)


def norm_of(ours: nn.Module) -> Norm:
    found = Norm(len(cast(BatchNorm, ours).weight))
    found.load_state_dict(ours.state_dict())
    return found


class Block(nn.Module):
    """Language enhancement, self-attention and feed-forward part with temporal shift, over all slots."""

    def __init__(self, ours: CORM, heads: int) -> None:
        super().__init__()
        language, attention = cast(LanguageEnhancement, ours.language), cast(SlotAttention, ours.attention)
        self.shift = ours.shift
        self.objects, self.text, self.hidden, self.gate = copy.deepcopy(
            (language.objects, language.text, language.hidden, language.gate)
        )
        self.attention = nn.MultiheadAttention(len(language.objects.weight), heads)
        self.attention.load_state_dict(attention.state_dict())
        self.widen, self.neighbours, self.narrow = copy.deepcopy((ours.widen, ours.neighbours, ours.narrow))
        self.language_norm, self.attention_norm = norm_of(language.norm), norm_of(ours.attention_norm)
        self.feed_forward_norm = norm_of(ours.feed_forward_norm)

    def forward(self, x: Tensor, query: Tensor, mask: Tensor) -> Tensor:
        valid = mask[..., None]
        r = F.relu(self.objects(x))
        t = F.relu(self.text(query))[:, None, None].expand_as(r)
        gate = self.gate(F.relu(F.linear(torch.cat([r, t], -1), self.hidden.weight, self.hidden.bias)))
        y = self.language_norm(r * gate) * valid
        slots = y.flatten(0, 1).transpose(0, 1)  # (S, B * F, H)
        attended = self.attention(slots, slots, slots, key_padding_mask=~mask.flatten(0, 1))[0]
        z = self.attention_norm((y + attended.transpose(0, 1).view_as(y)) * valid)
        h = F.relu(self.widen(z))
        h = h.clone()
        h[:, :, 0] = F.relu(self.neighbours(self.shifted(h[:, :, 0].clone())))
        return self.feed_forward_norm((z + self.narrow(h)) * valid)

    def shifted(self, h: Tensor) -> Tensor:
        quarter, by = h.shape[2] // 4, self.shift
        found = torch.zeros_like(h)
        found[:, by:, :quarter] = h[:, :-by, :quarter]
        found[:, :-by, quarter : 2 * quarter] = h[:, by:, quarter : 2 * quarter]
        found[:, :, 2 * quarter :] = h[:, :, 2 * quarter :]
        return found


class PlainLEORN(nn.Module):
    """The network for objects alone, on copies of our weights."""

    def __init__(self, model: LEORN) -> None:
        super().__init__()
        config, objects = model.config, model.objects
        self.scales, self.kernel, self.clips = config.scales, config.kernel, config.clips
        self.text, self.fusion, self.scorer = copy.deepcopy((model.text, model.fusion, model.scorer))
        self.box_hidden, self.box_projection, self.projection = copy.deepcopy(
            (objects.box_hidden, objects.box_projection, objects.projection)
        )
        self.frames, self.pool_text = copy.deepcopy((model.clips.projection, objects.pool.text))
        self.sentinel = nn.Parameter(cast(Tensor, objects.sentinel).detach().clone())
        self.object_norm, self.pool_norm = norm_of(objects.norm), norm_of(objects.pool.norm)
        self.blocks = nn.ModuleList(Block(cast(CORM, block), config.heads) for block in objects.blocks)
        self.convolutions = nn.ModuleList()
        for ours in model.map_network.convolutions:
            convolution = nn.Conv2d(config.hidden, config.hidden, self.kernel, padding=self.kernel // 2)
            convolution.weight = nn.Parameter(maps.as_convolution(cast(MapConvolution, ours).weight[0]))
            convolution.bias = nn.Parameter(cast(MapConvolution, ours).bias.detach().clone())
            self.convolutions.append(convolution)
        self.norms = nn.ModuleList(nn.BatchNorm2d(config.hidden) for _ in model.map_network.norms)
        for norm, own in zip(self.norms, model.map_network.norms, strict=True):
            norm.load_state_dict(own.state_dict())

    def forward(self, objects: Objects, words: QueryWords) -> tuple[Tensor, Tensor]:
        """Logits and mask ``(B, 1, N, N)``; a row of `objects` per query."""
        sentence, query = self.encode_text(words)
        boxes = self.box_projection(F.relu(self.box_hidden(objects.boxes)))
        x = F.linear(torch.cat([objects.features, boxes], -1), self.projection.weight, self.projection.bias)
        x = self.object_norm(x * objects.mask[..., None])
        x = torch.cat([self.sentinel.expand(*x.shape[:2], 1, -1), x], dim=2)
        mask = F.pad(objects.mask, (1, 0), value=True)
        for block in self.blocks:
            x = block(x, query, mask)
        clips = F.relu(F.linear(self.pooled(x, query, mask), self.frames.weight, self.frames.bias))
        clips = F.avg_pool1d(clips.transpose(1, 2), clips.shape[1] // self.clips)
        full, cells = maps.pooled_map(clips, self.scales)
        video = F.conv2d(full, self.fusion.video.weight[:, :, None, None], self.fusion.video.bias)
        x = F.normalize(self.fusion.text(sentence)[:, :, None, None] * video, dim=1) * cells
        x = self.norms[0](x)
        weights = maps.layer_weights(cells, self.kernel, len(self.convolutions))
        for number, (convolution, weight) in enumerate(zip(self.convolutions, weights, strict=True)):
            x = F.relu(self.norms[number + 1](convolution(x) + x)) * weight
        return F.conv2d(x, self.scorer.weight[:, :, None, None], self.scorer.bias) * cells, cells

    def encode_text(self, words: QueryWords) -> tuple[Tensor, Tensor]:
        """The mean of the words ``(B, H)``, and the attentive one."""
        text, lengths = self.text, words.lengths
        packed = pack_padded_sequence(words.vectors, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(text.gru(packed)[0], batch_first=True)
        w = states.unflatten(2, (2, -1)).mean(dim=2)  # (B, L, H)
        sentence = w.sum(dim=1) / lengths[:, None]
        u = F.relu(text.sentence(sentence))[:, None].expand_as(w)
        hidden = F.linear(torch.cat([w, u], -1), text.energy_hidden.weight, text.energy_hidden.bias)
        energy = text.energy(F.relu(hidden))[..., 0]
        energy = energy.masked_fill(torch.arange(w.shape[1]) >= lengths[:, None], -torch.inf)
        return sentence, (energy.softmax(dim=1)[..., None] * w).sum(dim=1)

    def pooled(self, x: Tensor, query: Tensor, mask: Tensor) -> Tensor:
        """Frames ``(B, F, H)`` as means of their slots, weighted by the cosine with the query."""
        key = self.pool_text(query)[:, None, None]  # (B, 1, 1, H)
        likeness = (x * key).sum(-1) / x.norm(dim=-1) / key.norm(dim=-1)
        weights = likeness.masked_fill(~mask, -torch.inf).softmax(dim=-1)
        return self.pool_norm((weights[..., None] * x).sum(dim=2))


def made(name: str) -> tuple[Config, LEORNMethod, Batch]:
    """A configuration, an untrained method, and a batch of one query."""
    config = bundled_config("leorn", Config, name)
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, dropout=0.0, box_dropout=0.0)
    )
    rng = np.random.default_rng(1)
    frames, sizes = config.data.frames, config.data.objects
    mask = rng.random((frames, sizes.objects)) < 0.9
    features = rng.random((frames, sizes.objects, sizes.dim)).astype(np.float32)
    features *= mask[..., None] / np.linalg.norm(features, axis=-1, keepdims=True)
    boxes = (rng.random((frames, sizes.objects, 4)) * mask[..., None]).astype(np.float32)
    query = Query(id="q", video="v", text="a b c d e f", duration=30.0, moments=[[5, 12]])
    videos = {"v": VideoArrays(ObjectInputs(features.astype(np.float32), mask, boxes), None)}
    torch.manual_seed(0)
    method = LEORNMethod.build(config, Preprocessor(maps.WORDS))
    dataset = Dataset([query], videos, WordLookup(maps.WORDS), clips=config.model.clips)
    return config, method, dataset.batch([0], 1)


def train() -> Pair:
    config, method, batch = made("charades")
    plain = PlainLEORN(method.model)

    def loss() -> Tensor:
        logits, mask = plain(batch.features.objects, batch.words)
        return maps.map_loss(logits, mask, batch.overlaps[:, None], config.loss.min_iou, config.loss.max_iou)

    return maps.training(method, batch, plain, loss, config.optim)


def infer() -> Pair:
    """Predictions for a video not met before."""
    config, method, batch = made("charades")
    maps.settle(method.model, lambda: method.model(batch.features, batch.video_of, batch.words))
    plain = PlainLEORN(method.model).eval()

    def predict() -> list[Prediction]:
        method._encoded.clear()
        return method.predict(batch)

    return maps.inference(predict, lambda: plain(batch.features.objects, batch.words), config.decode.nms)
