"""Memory of one training step of LEORN at the sizes of the papers' configurations, with and without re-computation.

    uv run python benchmarks/leorn_memory.py [--cfg charades] [--step]

"kept" are the tensors that autograd keeps for the backward pass of one query and its video (each storage once, without
weights and constants); the pass runs on tensors without memory, so this takes seconds. With ``--step`` a real step
is taken in processes of their own, each of one thread, and the peak of their resident memory over what Python and
torch take is given as well, of which weights, gradients and Adam's moments are "state".
"""

import argparse
import dataclasses
import json
import time

import torch
from memory import alone, kept_for_backward, most_resident, optimizer_after_a_step, state_bytes
from recording import measured_here, write_rows

from leorn import losses
from leorn.config import Config
from leorn.data import Objects, QueryWords, Videos
from leorn.model import LEORN
from leorn.text import QueryFeatures
from vmr_train.cli.config import bundled_config

WORDS, WORD_DIM, MEGA = 10, 300, 1e6


def config_of(name):
    return bundled_config("leorn", Config, name)


class Text(torch.nn.Module):
    """In place of the text encoder, whose packing needs numbers; it keeps next to nothing."""

    def __init__(self, hidden):
        super().__init__()
        self.features = torch.nn.Parameter(torch.randn(2, 1, hidden))

    def forward(self, words):
        return QueryFeatures(*self.features)


def make(config, recompute):
    sizes = dataclasses.replace(config.model, recompute=recompute)
    clip_dim = config.data.features and config.data.features.dim
    model = LEORN(sizes, object_dim=config.data.objects.dim, word_dim=WORD_DIM, clip_dim=clip_dim)
    model.text = Text(sizes.hidden)
    frames, slots = config.data.frames, config.data.objects.objects
    objects = Objects(
        torch.rand(1, frames, slots, config.data.objects.dim),
        torch.ones(1, frames, slots, dtype=torch.bool),
        torch.rand(1, frames, slots, 4),
    )
    videos = Videos(objects, None if clip_dim is None else torch.rand(1, frames, clip_dim))
    return model.train(), videos


def forward(model, videos, device):
    """The loss, and the bytes that autograd keeps for its backward pass."""
    words = QueryWords(torch.zeros(1, WORDS, WORD_DIM), torch.tensor([WORDS]))

    def loss():
        output = model(videos, torch.zeros(1, dtype=torch.int64, device=device), words)
        target = torch.full_like(output.logits, 0.7)
        return losses.total(output.logits, target, config_of("charades").loss, released=True)["total"]

    return kept_for_backward(model, loss)


def kept_megabytes(config, recompute):
    with torch.device("meta"):
        model, videos = make(config, recompute)
    return round(forward(model.to("meta"), videos, "meta")[1] / MEGA)


def step(config, recompute):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    before = most_resident()
    model, videos = make(config, recompute)
    optimizer = optimizer_after_a_step(model)
    begin = time.process_time()
    loss, _ = forward(model, videos, "cpu")
    loss.backward()
    optimizer.step()
    return {
        "peak_mb": round((most_resident() - before) / MEGA),
        "state_mb": round(state_bytes(model) / MEGA),
        "cpu_seconds": round(time.process_time() - begin, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cfg", nargs="+", default=["charades", "charades-fusion", "tacos", "tacos-fusion"])
    parser.add_argument("--step", action="store_true", help="also take a real step (minutes)")
    parser.add_argument("--of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.of is not None:
        print(json.dumps(step(config_of(options.cfg[0]), bool(options.of))))
        return
    rows = []
    for name in options.cfg:
        for recompute in (False, True):
            row = {
                "config": name,
                "recompute": recompute,
                "kept_mb": kept_megabytes(config_of(name), recompute),
            }
            row |= alone(__file__, "--cfg", name, "--of", str(int(recompute))) if options.step else {}
            rows.append(row)
            print(row, flush=True)
    write_rows(measured_here("leorn-memory-step" if options.step else "leorn-memory-kept"), rows)


if __name__ == "__main__":
    main()
