"""Writes benchmarks/results/flops.csv: what a query costs, in FLOPs, beside the authors' programs.

    uv run python benchmarks/flops.py

Counted by torch with the functions of tests/<package>/test_cost.py, which assert the same counts against bars, so no
number here can drift from the tests. The authors' figures were counted on their released code, or by the formula of
what it runs; two FLOPs per multiplication and addition. No time is measured.
"""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch
from recording import RESULTS, write_rows

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # helpers of the cost tests
COLUMNS = ("package", "setting", "what", "ours_gflop", "authors_gflop", "ours_over_authors")
Case = tuple[str, str, float, float]  # setting, what, GFLOP here, GFLOP of the authors' program

AUTHORS_RGN = {"training": 3 * 8.83, "inference": 3.17}
AUTHORS_CFMR_VIDEO = {"charades": 2 * 2.09, "activitynet": 2 * 1.04, "tacos": 2 * 10.8}
AUTHORS_CFMR_TRAINING = 3 * 2 * 1.47
AUTHORS_CFMR_QUERY = 2 * 37.6e-3  # as run, with padding
AUTHORS_CDN = {"charades": 28.9, "charades-conv": 29.0, "tacos": 1729.0, "tacos-conv": 1731.0}
AUTHORS_LEORN = {
    **{"charades": 2 * 396.8, "charades-fusion": 2 * 397.0},
    **{"tacos": 2 * 956.3, "tacos-fusion": 2 * 956.9},
}


def cost_tests(package: str) -> ModuleType:
    """The module of a package's cost tests."""
    path = ROOT / "tests" / package / "test_cost.py"
    spec = importlib.util.spec_from_file_location(f"cost_of_{package}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rgn() -> Iterator[Case]:
    count = cost_tests("rgn").giga_flops_per_query
    for name, authors in AUTHORS_RGN.items():
        training = name == "training"
        yield (
            "Charades",
            f"{name}, forward and backward" if training else name,
            count(training=training),
            authors,
        )


@torch.no_grad()
def cfmr() -> Iterator[Case]:
    cost = cost_tests("cfmr")
    for name, authors in AUTHORS_CFMR_VIDEO.items():
        config = cost.config_of(name)
        model = cost.model_of(config, 10).eval()
        found = cost.macs(lambda m=model, c=config: m.encode_video(cost.clips_of(c, 1)))
        yield name, "a video, once", 2e-9 * found, authors
    words = round(cost.WORDS_PER_QUERY["charades"])
    query = cost.Words(torch.zeros(1, words + 2, 300), torch.tensor([words]))
    model = cost.model_of(cost.config_of("charades"), 10).eval()
    yield (
        "charades",
        f"a query of {words} words",
        2e-9 * cost.macs(lambda: model.encode_text(query)),
        AUTHORS_CFMR_QUERY,
    )
    with torch.enable_grad():
        yield (
            "charades",
            "training, forward and backward",
            2e-9 * cost.training_macs(),
            AUTHORS_CFMR_TRAINING,
        )


def cdn() -> Iterator[Case]:
    count = cost_tests("cdn").giga_flops
    for name, authors in AUTHORS_CDN.items():
        yield name, "inference", count(name, training=False), authors
        yield name, "training, forward", count(name, training=True), authors


def leorn() -> Iterator[Case]:
    cost = cost_tests("leorn")
    for name, authors in AUTHORS_LEORN.items():
        config = cost.config_of(name)
        text = cost.text_macs(config)
        for training in (False, True):
            found = sum(cost.pass_macs(config, training=training)) + text
            yield name, "training, forward" if training else "inference", 2 * found, authors
        _, asked = cost.pass_macs(config, training=False)
        yield name, "inference, further queries of a video", 2 * (asked + text), authors


def rgnet() -> Iterator[Case]:
    cost = cost_tests("rgnet")
    for name, sizes, count in (("ego4d-nlq", cost.EGO4D, 16), ("mad", cost.MAD, 8)):
        ours, authors = rgnet_pairs(cost, sizes, count)
        yield (
            name,
            f"training, forward, {count} pairs against each other",
            ours / count / 1e9,
            authors / count / 1e9,
        )
    yield from rgnet_film(cost)


def rgnet_pairs(cost: ModuleType, sizes: dict[str, int], count: int) -> tuple[float, float]:
    """FLOPs of a contrastive pass, here and in the released program."""
    with torch.device("meta"):
        model = cost.build(sizes).train()
        shape = (count, sizes["frames"])
        frames = cost.Frames(torch.empty(*shape, sizes["frame_dim"]), torch.ones(shape, dtype=torch.bool))
        found = cost.flops(lambda: model(cost.texts(sizes, count), frames, contrast=True))
    return found, count**2 * cost.released_flops(model.config, **sizes)


def rgnet_film(cost: ModuleType) -> Iterator[Case]:
    """A film of almost two hours, as the test of the evaluation's cost has it."""
    rows, kept = 33_300, 30
    with torch.device("meta"), torch.no_grad():
        model = cost.build(cost.MAD).eval()
        search = cost.LongVideoSearch(model, cost.SearchConfig(windows=kept), window=900, feature_stride=0.2)
        projected = model.video_projection(torch.empty(rows, 512))
        windows = cost.video_windows(rows, 900)
        first = model.encoder.first_query(projected, bias=False)
        prepared = cost.PreparedVideo(windows, projected, first, None)
        stages = cost.stages(model, search, prepared, cost.texts(cost.MAD, 1))
    count = len(windows)
    ours = stages["text"] + count * stages["score"] + kept * stages["decode"]
    authors = count * cost.released_flops(model.config, **cost.MAD)
    yield "mad", f"a query over a film of {count} windows, {kept} decoded", ours / 1e9, authors / 1e9


def main() -> None:
    rows = []
    for model in (rgn, cfmr, cdn, leorn, rgnet):
        for setting, what, ours, authors in model():
            row = (model.__name__, setting, what, f"{ours:.4g}", f"{authors:.4g}", f"{ours / authors:.2f}")
            print(*row, sep="  ", flush=True)
            rows.append(dict(zip(COLUMNS, row, strict=True)))
    write_rows(RESULTS / "flops.csv", rows)


if __name__ == "__main__":
    main()
