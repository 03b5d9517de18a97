"""LEORN against numbers measured on the released code: every recorded stage, loss, gradient, batch and metric."""

import re
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from judging import (
    best_after_suppression,
    clipped_by,
    first_update_agrees,
    gradient_limits,
    map_batch,
    map_scores,
    ranked,
    ranks_of,
    stated,
    tied_as,
)
from leorn import losses
from leorn.config import DecodeConfig, LossConfig, ModelConfig, ReasoningConfig
from leorn.data import Dataset, Objects, Preprocessor, QueryWords, Videos
from leorn.inputs import VideoArrays
from leorn.losses import scaled_iou
from leorn.method import LEORNMethod
from leorn.model import LEORN
from leorn.object_features.prepare import PreparedObjects
from leorn.object_features.store import ObjectStore
from leorn.official import from_official
from vmr_common.features.pooling import pool
from vmr_common.metrics import iou, nms
from vmr_common.splits.formats import read_annotations
from vmr_common.splits.text_files import read_durations
from vmr_common.text.vectors import WordVectors
from vmr_common.types import Query
from vmr_train.config import OptimConfig
from vmr_train.layers.sparse_map_plan import scatter_rows
from vmr_train.map_proposals import map_overlaps
from vmr_train.optim import build_optimizer
from vmr_train.prepared import unit_rows
from vmr_train.word_lookup import WordLookup, plain_words

PACKAGE = "leorn"
INPUTS = (
    "param/",
    "in/",
    "eval/score",
    "eval/duration",
    "eval/gt",
    "eval/iou_pred",
    "eval/iou_gt",
    "eval/nms_in",
    "data/object_raw/",
    "data/clip_raw/",
    "data/glove_",
    "data/charades_lines",
    "data/charades_durations",
    "data/tacos_json",
)
DATASETS = ("charades", "charades_two_stream", "tacos", "tacos_two_stream")


def build(golden, **options) -> LEORN:
    given = golden.config
    heads = re.search(r"(\d+) attention heads", golden.about.get("note", ""))
    config = ModelConfig(
        hidden=given["hidden"],
        heads=int(heads[1]) if heads else 4,
        text_layers=given["gru_layers"],
        blocks=given["corm_layers"],
        feed_forward=given["ff_dim"],
        reasoning=ReasoningConfig(shift=given["temporal_shift"]),
        clips=given["frames"] // given["stride"],
        scales=given["scale_layers"],
        layers=given["map_layers"],
        kernel=given["map_kernel"],
        dropout=0.0,
        box_dropout=0.0,
        **options,
    )
    model = LEORN(
        config,
        object_dim=given["object_dim"],
        word_dim=given["word_dim"],
        clip_dim=given["clip_dim"] if given["two_stream"] else None,
    )
    released = golden.tensors("param/")
    model.load_state_dict(from_official(released), strict=True)
    return model


def loss_config(golden) -> LossConfig:
    given = golden.config
    return LossConfig(min_iou=given["min_iou"], max_iou=given["max_iou"])


def inputs_of(golden) -> tuple[Videos, Tensor, QueryWords]:
    given = golden.tensors("in/")
    lengths = given["text_mask"].sum(dim=(1, 2)).long()
    assert lengths.tolist() == golden.config["text_lengths"]
    objects = Objects(given["object"], given["object_mask"], given["object_box"])
    videos = Videos(objects, given.get("clip"))
    return videos, torch.arange(len(lengths)), QueryWords(given["text"], lengths)


def decoding(golden) -> DecodeConfig:
    """Suppression threshold and number of moments of the recorded evaluation."""
    said = golden.said("eval/nms")
    (nms,), (limit,) = stated(said, "NMS thresh", default=[0.5]), stated(said, "top", default=[5])
    return DecodeConfig(nms=nms, moments=int(limit))


def method_of(golden, model: LEORN) -> LEORNMethod:
    nothing = Preprocessor(WordVectors((), np.zeros((0, 1), np.float32)))
    return LEORNMethod(model, loss_config(golden), decoding(golden), nothing)


def train_pass(golden, model: LEORN) -> SimpleNamespace:
    output = model(*inputs_of(golden))
    overlaps = model.map.gather(torch.from_numpy(golden.given("in/iou_map"))[:, 0])
    terms = losses.total(output.logits, overlaps, loss_config(golden), released=True)
    return SimpleNamespace(output=output, terms=terms)


def recorded_and_ours(
    golden, prefix: str, ours: dict[str, Tensor]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Recorded tensors below `prefix` by their names, in our shapes, each beside ours."""
    found = {}
    for name, wanted in golden.recorded(prefix).items():
        ((owner, tensor),) = from_official({name: torch.from_numpy(wanted)}).items()
        found[prefix + name] = (tensor.numpy(), ours[owner].detach().numpy())
    return found


def test_released_weights_load_by_name_with_nothing_missing_or_left_over(golden):
    model = build(golden)
    prefixed = {f"module.{name}": value for name, value in golden.tensors("param/").items()}
    assert set(from_official(prefixed)) == set(model.state_dict())


def full_map(model: LEORN, rows: Tensor) -> Tensor:
    """Rows ``(P, B, ...)`` of the valid cells as full maps ``(B, ..., N, N)``."""
    return scatter_rows(rows, model.map.index, model.map.clips)


def stages(golden, model: LEORN) -> dict[str, Tensor]:
    """Everything on the way, over the full map: all live cells computed, also those that nothing depends on."""
    seen: dict[str, Tensor] = {}
    hooks = []

    def note(name: str, module, part=lambda args, out: out) -> None:
        hooks.append(
            module.register_forward_hook(lambda _, args, out: seen.__setitem__(name, part(args, out)))
        )

    first = model.objects.blocks[0]
    note("corm0_language", first.language)
    note("corm0_attn_norm", first.attention_norm, lambda args, out: out.permute(0, 3, 2, 1))
    note("corm0_out", first)
    note("frame_feature", model.objects, lambda args, out: out.frames)
    note("clip_feature", model.clips, lambda args, out: out.transpose(1, 2))
    note("fusion_input", model.fusion.video, lambda args, out: args[0])
    note("fused", model.fusion)
    note("pooled", model.objects.pool, lambda args, out: (out.weights[..., None] * args[0]).sum(dim=-1))
    videos, video_of, words = inputs_of(golden)
    model(videos, video_of, words)
    for hook in hooks:
        hook.remove()
    seen["map_feature"] = full_map(model, seen.pop("fusion_input"))
    fused = seen.pop("fused")
    seen["fused_map"] = full_map(model, fused)
    network = model.map_network
    layers = network.cells.training_layers
    seen["map_conv_out"] = layers[-1].full_outputs(network.layers(fused, layers))
    query = model.text(words)
    seen["text_words"] = model.text.words(words)
    seen["text_sentence"], seen["text_relational"] = query
    seen["object_linear"] = model.objects.embed(videos.objects)
    return seen


def test_every_intermediate_stage_agrees(golden):
    with torch.no_grad():
        seen = stages(golden, build(golden).eval())
    attention = seen.pop("pooled")
    golden.compare("mid/", seen)
    if golden.holds("out/object_attention"):
        golden.same("out/object_attention", attention)


def test_a_map_layer_computes_the_same_where_evaluation_stops_early(golden):
    model = build(golden).eval()
    with torch.no_grad():
        network = model.map_network
        rows = torch.rand(model.map.size, 2, model.config.hidden)
        everywhere = network.cells.valid(network.layers(rows, network.cells.training_layers))
        torch.testing.assert_close(network(rows), everywhere, rtol=1e-5, atol=1e-5)


def test_inference_outputs_and_losses_agree(golden):
    model = build(golden).eval()
    with torch.no_grad():
        run = train_pass(golden, model)
        trained = train_pass(golden, build(golden).train())
    prediction, cells, config = full_map(model, run.output.logits), model.map.cells, loss_config(golden)
    target = scaled_iou(torch.from_numpy(golden.given("in/iou_map")), config.min_iou, config.max_iou)
    ours = {
        "prediction": prediction,
        "prediction_train": full_map(model, trained.output.logits),
        "map_mask": cells.float().expand_as(prediction),
        "score": prediction.sigmoid() * cells,
        "target": target * cells,
    }
    for name, found in ours.items():
        golden.same(f"out/{name}", found)
    golden.compare("loss/", {"eval_mode": run.terms["total"], "total": trained.terms["total"]})


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_and_statistics_agree(golden, recompute):
    model = build(golden, recompute=recompute).train()
    train_pass(golden, model).terms["total"].backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values()), "a parameter takes part in nothing"
    norm = torch.nn.utils.get_total_norm(list(gradients.values()))
    golden.same("opt/grad_norm", norm, rtol=1e-4)
    for name, (wanted, found) in recorded_and_ours(golden, "grad/", gradients).items():
        golden.same(name, found, wanted, **gradient_limits(wanted, norm.item()))
    statistics = dict(model.named_buffers())
    for name, (wanted, found) in recorded_and_ours(golden, "bn_after/", statistics).items():
        golden.same(name, found, wanted, rtol=1e-5, atol=1e-5)


def update_agrees(golden, *, wrong_by: float = 1.0) -> None:
    """One clipped step of Adam, with the recorded learning rate times `wrong_by`, against the recorded one."""
    said = golden.said(f"opt/after_step/{next(iter(golden.recorded('opt/after_step/')))}")
    (lr,), (eps,) = stated(said, "lr", default=[1e-3]), stated(said, "eps", default=[1e-8])
    said = golden.said(f"opt/clipped_grad/{next(iter(golden.recorded('opt/clipped_grad/')))}")
    (scale,), (limit,) = (
        stated(said, "*", default=[1000]),
        stated(said, "clip_grad_norm_(all,", default=[10.0]),
    )
    model = build(golden).train()
    train_pass(golden, model).terms["total"].backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for gradient in gradients.values():
        gradient.mul_(scale)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit).item()
    clipped = recorded_and_ours(golden, "opt/clipped_grad/", gradients)
    for name, (wanted, found) in clipped.items():
        golden.same(name, found, wanted, **gradient_limits(wanted, limit))
    recorded = {name.removeprefix("opt/clipped_grad/"): wanted for name, (wanted, _) in clipped.items()}
    if golden.holds("grad/"):
        for name, (wanted, _) in recorded_and_ours(golden, "grad/", gradients).items():
            recorded.setdefault(name.removeprefix("grad/"), wanted * scale * clipped_by(norm, limit))
    build_optimizer(model, OptimConfig(lr=lr * wrong_by, eps=eps)).step()
    steps = recorded_and_ours(golden, "opt/after_step/", dict(model.named_parameters()))
    for name, (wanted, found) in steps.items():
        released = name.removeprefix("opt/after_step/")
        ((owner, _),) = from_official({released: torch.from_numpy(golden.wanted(name))}).items()
        first_update_agrees(
            found,
            wanted,
            before=before[owner].numpy(),
            gradient=recorded.get(released, gradients[owner].numpy()),
            lr=lr,
            eps=eps,
            name=name,
        )


def test_one_clipped_update_agrees(golden):
    update_agrees(golden)


@pytest.mark.parametrize("wrong_by", [0.999, 1.001])
def test_a_learning_rate_wrong_by_a_thousandth_is_seen(golden, wrong_by):
    with pytest.raises(AssertionError, match="values differ"):
        update_agrees(golden, wrong_by=wrong_by)


def metrics_agree(golden, prefix: str, moments, truth: np.ndarray, durations: np.ndarray, nms: float) -> None:
    said = golden.said("eval/recall")
    recall, mean = map_scores(
        moments,
        truth,
        durations,
        thresholds=stated(said, "tIoU", default=(0.1, 0.3, 0.5, 0.7)),
        ranks=ranks_of(stated(said, "Rank", default=(1, 5))),
        nms=nms,
    )
    golden.same(f"eval/{prefix}recall", recall, rtol=0, atol=1e-6)
    golden.same(f"eval/{prefix}miou", mean, rtol=0, atol=1e-6)


def test_ranking_suppression_and_metrics_agree(golden):
    golden.recorded("eval/")
    scores, durations, truth = (golden.given(f"eval/{name}") for name in ("score", "duration", "gt"))
    scores, nms = scores[:, 0], decoding(golden).nms
    cells = (scores > 0).any(axis=0)
    for name, threshold in (("sorted_times", 1.0), ("nms", nms)):
        wanted = golden.arrays[f"eval/{name}"]
        broken = tied_as(cells, scores, durations, wanted)
        found = ranked(cells, broken, durations, wanted.shape[1], threshold)
        golden.same(f"eval/{name}", np.stack(found), rtol=1e-6, atol=1e-5)
    metrics_agree(golden, "", found, truth, durations, nms)


def test_overlap_and_suppression_agree_where_they_are_strict(golden):
    golden.recorded("eval/")
    pairs = iou(golden.given("eval/iou_pred")[:, None], golden.given("eval/iou_gt")[None], union="hull")
    golden.same("eval/iou", pairs, rtol=0, atol=1e-6)
    candidates, threshold = golden.given("eval/nms_in"), decoding(golden).nms
    golden.same("eval/nms_out", candidates[nms(candidates, threshold)], rtol=0, atol=1e-6)
    # one query whose first candidate overlaps by exactly one half
    first, truth = np.array([[[0.0, 5.0]]]), np.array([[0.0, 10.0]])
    metrics_agree(golden, "strict_", first, truth, np.array([100.0]), threshold)


def test_the_best_of_the_recorded_scores_agree(golden):
    wanted, durations = golden.arrays["out/top_times"], golden.given("in/duration")
    cells = build(golden).map.cells.numpy()
    scores = tied_as(cells, golden.arrays["out/score"][:, 0], durations, wanted)
    found = ranked(cells, scores, durations, wanted.shape[1], 1.0)
    golden.same("out/top_times", np.stack(found), rtol=1e-6, atol=1e-5)


def test_the_method_predicts_what_was_recorded(golden):
    model, durations, rules = build(golden).eval(), golden.given("in/duration"), decoding(golden)
    with torch.no_grad():
        found = method_of(golden, model).predict(map_batch(durations, *inputs_of(golden)))
    for prediction, duration, scores in zip(found, durations, golden.arrays["out/score"][:, 0], strict=True):
        assert len(prediction.moments) == rules.moments
        best_after_suppression(prediction.moments, model.map.cells.numpy(), scores, duration, rules.nms, 1e-5)


def test_the_recorded_targets_are_the_overlaps_of_the_recorded_moments(golden):
    size = golden.given("in/iou_map").shape[-1]
    above = np.triu(np.ones((size, size), dtype=bool))  # below the diagonal nothing has a meaning
    for moment, duration, wanted in zip(
        golden.given("in/gt"), golden.given("in/duration"), golden.given("in/iou_map"), strict=True
    ):
        found = map_overlaps(moment, duration, size)
        np.testing.assert_allclose(found[above], wanted[0][above], atol=1e-6)


def records_of(golden, dataset: str, folder) -> list[Query]:
    """The synthetic annotation files of a data set, read as its registered split is."""
    if dataset.startswith("tacos"):
        (folder / "train.json").write_text(str(golden.given("data/tacos_json")))
        return read_annotations(folder / "train.json", "tacos", policy="drop-then-cut").queries
    (folder / "train.txt").write_text("\n".join(golden.given("data/charades_lines").tolist()) + "\n")
    rows = [row.split() for row in golden.given("data/charades_durations").tolist()]
    (folder / "train.csv").write_text("id,length\n" + "".join(f"{name},{length}\n" for name, length in rows))
    table = read_durations(folder / "train.csv")
    return read_annotations(
        folder / "train.txt", "charades-sta", durations=table, policy="cut-then-drop"
    ).queries


@pytest.mark.parametrize("dataset", DATASETS)
def test_files_become_the_recorded_batch(golden, dataset, tmp_path):
    recorded = golden.recorded(f"data/{dataset}/")
    path = tmp_path / "objects.h5"
    with h5py.File(path, "w") as file:
        for name, values in golden.group("data/object_raw/").items():
            file[name] = values
    slots = recorded["object_mask"].shape[-1]
    # how sure the detector must be, by the released loaders
    threshold = 0.1 if dataset.startswith("charades") else 0.0
    objects = PreparedObjects(ObjectStore(path, objects=slots), frames=None, threshold=threshold)
    clips = {}
    if "clip" in recorded:
        length = recorded["clip"].shape[1]
        clips = {n: pool(unit_rows(rows), length) for n, rows in golden.group("data/clip_raw/").items()}

    class Sources:
        def __getitem__(self, video: str) -> VideoArrays:
            return VideoArrays(objects[video], clips.get(video))

    words = WordVectors(tuple(golden.given("data/glove_words").tolist()), golden.given("data/glove_vectors"))
    queries = records_of(golden, dataset, tmp_path)
    batch = Dataset(
        queries,
        Sources(),
        WordLookup(words),
        lambda text: plain_words(text, drop_full_stop=dataset.startswith("charades")),
        clips=recorded["iou_map"].shape[-1],
    ).batch(range(len(queries)), None)
    found = batch.features.objects
    mask = torch.arange(batch.words.vectors.shape[1]) < batch.words.lengths[:, None]
    features = found.features[batch.video_of]
    ours = {
        "n": len(queries),
        "times": np.concatenate([query.moments for query in queries]),
        "text": batch.words.vectors,
        "text_mask": mask[..., None].float(),
        "iou_map": batch.overlaps[:, None],
        "object_mask": found.mask[batch.video_of],
        "object_box": found.boxes[batch.video_of],
        "object_head": features[..., : recorded["object_head"].shape[-1]],
        "object_sum": features.sum(dim=-1),
        "clip": None if batch.features.clips is None else batch.features.clips[batch.video_of],
    }
    # below the diagonal nothing has a meaning
    above = np.triu(np.ones(recorded["iou_map"].shape[-2:], dtype=bool))
    ours["iou_map"] = np.where(above, ours["iou_map"], recorded["iou_map"])
    golden.compare(f"data/{dataset}/", ours)


def test_every_recorded_array_is_read_or_compared(golden, left_over):
    assert left_over(INPUTS) == []
