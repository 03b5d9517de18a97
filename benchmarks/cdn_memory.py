"""Memory of one training step of CDN at the size of TACoS: the plain form over the full map, and ours.

    uv run python benchmarks/cdn_memory.py [--batch 1] [--recompute 2]

The plain form keeps full maps: fusion, batch normalisation, grouped convolution with the mixed kernels, ReLU and mask
are one torch call each. Both forms start from the same weights, and the losses must agree. Every form runs in a
process of its own; given are the tensors that autograd keeps (each storage once, without weights), the peak of the
resident memory over what Python and torch take, and both extrapolated to a batch of 8: what is kept 8 times, the rest
(weights, gradients, Adam's moments, what exists for a moment) as it is.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from memory import alone, kept_for_backward, most_resident, optimizer_after_a_step, state_bytes
from recording import measured_here, write_rows
from torch import nn
from torch.nn import functional as F

from cdn.config import DecodeConfig, LossConfig, ModelConfig
from cdn.data import Dataset, Preprocessor
from cdn.map_network import DynamicConvolution
from cdn.method import CDNMethod
from cdn.model import CDN
from vmr_common.text.vectors import WordVectors
from vmr_common.types import Query
from vmr_train.layers.sparse_map_plan import map_weights, scatter_rows
from vmr_train.method import Progress
from vmr_train.word_lookup import WordLookup

TACOS = {"clips": 128, "scales": [16, 8, 8, 8], "attention_steps": 1}
SMALL = {"clips": 64, "scales": [16, 8, 8], "attention_steps": 1, "hidden": 32}
MEGA = 1e6


class PlainNorm(nn.Module):
    """Batch normalisation of full maps with the parameters of one of ours."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        norm = self.norm
        return F.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, True, norm.momentum, norm.eps
        )


class PlainMap(nn.Module):
    """Fusion and map network over the full map, with the parameters of a model of ours."""

    def __init__(self, model):
        super().__init__()
        self.__dict__["model"] = model  # not a part: the model holds this module
        self.static = nn.ParameterDict()
        for number, layer in enumerate(model.map_network.convolutions):
            if not isinstance(layer, DynamicConvolution):  # as nn.Conv2d has it
                size, dim = round(len(layer.weight) ** 0.5), layer.weight.shape[-1]
                kernel = layer.weight.detach().view(size, size, dim, dim).permute(3, 2, 0, 1).contiguous()
                self.static[str(number)] = nn.Parameter(kernel)
                layer.weight = None
        self.weights = map_weights(model.map.cells, model.config.kernel, model.config.layers)
        self.norms = [PlainNorm(norm) for norm in model.map_network.norms]

    def forward(self, rows, sentence):
        fusion, cells = self.model.fusion, self.model.map.cells
        full = scatter_rows(rows, self.model.map.index, len(cells))  # (B, H, N, N)
        video = F.conv2d(full, fusion.video.weight[:, :, None, None], fusion.video.bias)
        x = F.normalize(fusion.text(sentence)[:, :, None, None] * video, dim=1) * cells
        for number, (norm, weights) in enumerate(zip(self.norms, self.weights, strict=False)):
            u = norm(x)
            x = F.relu(self.convolve(number, u, sentence) + u) * weights
        return self.norms[-1](x).flatten(2)[:, :, self.model.map.index].permute(2, 0, 1)

    def convolve(self, number, u, sentence):
        batch, dim = u.shape[:2]
        layer = self.model.map_network.convolutions[number]
        if str(number) in self.static:
            weight = self.static[str(number)]
            return F.conv2d(u, weight, layer.bias, padding=weight.shape[-1] // 2)
        size = round(layer.bank.shape[1] ** 0.5)
        mixture = layer.mixture(sentence, u.mean(dim=(2, 3)))
        mixed = (mixture @ layer.bank.flatten(1)).view(batch, size, size, dim, dim).permute(0, 4, 3, 1, 2)
        found = F.conv2d(u.reshape(1, -1, *u.shape[2:]), mixed.flatten(0, 1), padding=size // 2, groups=batch)
        return found.view_as(u) + (mixture @ layer.bias_bank)[:, :, None, None]


def make(sizes, batch, frame_dim, recompute):
    rng = np.random.default_rng(0)
    words = WordVectors(tuple("abcdefgh"), rng.normal(size=(8, 300)).astype(np.float32))
    queries = [
        Query(id=str(n), video=f"v{n}", text=" ".join(words.words), duration=200.0, moments=[[20, 60 + n]])
        for n in range(batch)
    ]
    features = {f"v{n}": rng.normal(size=(256, frame_dim)).astype(np.float32) for n in range(batch)}
    dataset = Dataset(queries, features, WordLookup(words), clips=sizes["clips"])
    torch.manual_seed(0)
    config = ModelConfig(**sizes, kernel_dropout=0.0, recompute=recompute)
    model = CDN(config, frame_dim=frame_dim, word_dim=300)
    method = CDNMethod(model, LossConfig(min_iou=0.3, max_iou=0.7), DecodeConfig(), Preprocessor(words))
    return method, dataset.batch(range(batch), 1)


def use_plain(model):
    plain = PlainMap(model)

    def forward(frames, video_of, words):
        clips, attention = model.frames(frames)
        rows = model.propose(clips).index_select(1, video_of)
        found = plain(rows, model.text(words))
        return type("Output", (), {"logits": model.scorer(found)[..., 0], "attention": attention})

    model.forward = forward
    model.plain = plain  # its weights are trained too


def step(form, batch, recompute, quick):
    sizes, frame_dim = (SMALL, 64) if quick else (TACOS, 4096)
    before = most_resident()
    method, given = make(sizes, batch, frame_dim, recompute)
    if form == "plain":
        use_plain(method.model)
    method.model.train()
    optimizer = optimizer_after_a_step(method.model)
    begin, worked = time.perf_counter(), time.process_time()
    progress = Progress(update=0, epoch=1, epochs=1)
    loss, kept = kept_for_backward(method.model, lambda: method.loss(given, progress)["total"])
    forward = time.process_time() - worked
    loss.backward()
    optimizer.step()
    state = state_bytes(method.model)
    peak = most_resident() - before
    return {
        "form": form if not recompute else f"{form}, recompute {recompute}",
        "batch": batch,
        "kept_mb": round(kept / MEGA),
        "state_mb": round(state / MEGA),
        "peak_mb": round(peak / MEGA),
        "batch8_kept_mb": round((state + 8 * kept / batch) / MEGA),
        "batch8_peak_mb": round((peak + (8 - batch) * kept / batch) / MEGA),
        "seconds": round(time.perf_counter() - begin, 1),
        "cpu_seconds": round(time.process_time() - worked, 1),
        "cpu_seconds_forward": round(forward, 1),
        "loss": loss.item(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--recompute", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a small map, to see that it runs")
    parser.add_argument("--out", type=Path, default=measured_here("cdn-memory"))
    parser.add_argument("--form", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.form:
        print(json.dumps(step(options.form, options.batch, options.recompute, options.quick)))
        return
    rows = []
    for form, recompute in (("plain", 0), ("ours", 0), ("ours", options.recompute)):
        arguments = ["--form", form, "--recompute", str(recompute), "--batch", str(options.batch)]
        arguments += ["--threads", str(options.threads), *["--quick"] * options.quick]
        rows.append(alone(__file__, *arguments))
        print(rows[-1], flush=True)
        assert abs(rows[-1]["loss"] - rows[0]["loss"]) < 1e-4 * abs(rows[0]["loss"]), "the forms must agree"
    for measure in ("kept_mb", "peak_mb", "batch8_kept_mb", "batch8_peak_mb"):
        shares = [f"{row['form']} {row[measure] / rows[0][measure]:.0%}" for row in rows[1:]]
        print(f"{measure}: {', '.join(shares)} of the plain form")
    write_rows(options.out, rows)


if __name__ == "__main__":
    main()
