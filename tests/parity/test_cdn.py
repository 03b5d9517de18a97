"""CDN against numbers measured on the released code: every recorded stage, loss, gradient, batch and metric."""

import dataclasses
import functools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cdn import losses
from cdn.config import LossConfig, ModelConfig
from cdn.model import CDN
from cdn.official import from_official
from cdn.task import CDNTask
from judging import map_batch, map_scores, ranked
from vmr_common.annotations import read_annotations, read_durations
from vmr_common.map_decoding import DecodeConfig
from vmr_common.metrics import map_overlaps
from vmr_common.nn.map_cells import CellPlan
from vmr_common.nn.map_loss import scaled_iou
from vmr_common.pooling import pool, unit_rows
from vmr_common.records import Query
from vmr_common.text import WordLookup, WordVectors, plain_words
from vmr_common.training import OptimConfig, build_optimizer
from vmr_common.training.map_supervised import MapExamples, MapInputs, QueryWords

PACKAGE = "cdn"
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
GROUPS = (
    "in/",
    "param/",
    "mid/",
    "out/",
    "loss_eval/",
    "train/",
    "loss/",
    "grad/",
    "step/",
    "drop/",
    "eval/",
    "data/",
)


def build(golden, **options) -> CDN:
    given = golden.about["config"]
    config = ModelConfig(
        hidden=given["H"],
        text_layers=sum(name.startswith("param/textual") and "weight_ih" in name for name in golden.arrays),
        clips=given["NSC"] // given["stride"],
        scales=given["scales"],
        proposals={"SparsePropMaxPool": "pool", "SparsePropConv": "conv"}[given["prop"]],
        attention_steps=given["sqn"],
        attention_hidden=golden.arrays["param/frame_layer.att_fn1.bias"].size,
        layers=given["L"],
        kernel=given["K"],
        dynamic_layers=[layer for layer, dynamic in enumerate(given["dyn"]) if dynamic],
        kernels=given["W"],
        kernel_dropout=0.0,
        **options,
    )
    model = CDN(config, frame_dim=given["VI"], word_dim=given["TI"])
    released = golden.tensors("param/")
    model.load_state_dict(from_official(released), strict=True)
    return model


def loss_config(golden) -> LossConfig:
    given = golden.about["config"]
    low, high = given["miou"]
    lambda_, beta = given["lam"] or (0.3, 0.0)
    return LossConfig(min_iou=low, max_iou=high, lambda_=lambda_, beta=beta)


def inputs_of(golden) -> tuple[Tensor, Tensor, QueryWords]:
    vectors = torch.from_numpy(golden.arrays["in/textual_input"])
    lengths = torch.from_numpy(golden.arrays["in/textual_mask"]).sum(dim=(1, 2)).long()
    assert lengths.tolist() == golden.about["config"]["lens"]
    return (
        torch.from_numpy(golden.arrays["in/visual_input"]),
        torch.arange(len(vectors)),
        QueryWords(vectors, lengths),
    )


def task_of(golden, model: CDN) -> CDNTask:
    decoding = DecodeConfig(nms=golden.about["config"]["nms"], moments=5)
    return CDNTask(
        model, loss_config(golden), decoding, MapInputs(WordVectors((), np.zeros((0, 1), np.float32)))
    )


def train_pass(golden, model: CDN) -> SimpleNamespace:
    given = golden.arrays["in/map_gt"]
    output = model(*inputs_of(golden))
    overlaps = model.map.gather(torch.from_numpy(given)[:, 0])
    return SimpleNamespace(
        output=output,
        terms=losses.total(output.logits, overlaps, output.attention, loss_config(golden), released=True),
    )


def full_map(model: CDN, logits: Tensor) -> Tensor:
    """Logits ``(P, B)`` as the recorded maps ``(B, 1, N, N)``."""
    return model.map.scatter(logits[..., None])


def test_every_group_of_recorded_numbers_is_known(golden):
    assert not [name for name in golden.arrays if not name.startswith((*GROUPS, "data_text"))]


def test_released_weights_load_by_name_with_nothing_missing_or_left_over(golden):
    build(golden)
    prefixed = {f"module.{name}": value for name, value in golden.tensors("param/").items()}
    assert set(from_official(prefixed)) == set(build(golden).state_dict())


def stages(golden, model: CDN) -> dict[str, Tensor]:
    """Everything on the way, over the full map: all cells computed, skipped ones too."""
    frames, _, words = inputs_of(golden)
    network, cells = model.map_network, model.map.cells
    everywhere = torch.ones_like(cells)
    sentence = model.text(words.vectors, words.lengths)
    clips, _ = model.frames(frames)
    proposals = model.propose(clips)
    rows = model.fusion(model.fusion.project(proposals), sentence)
    seen = {
        "text_encode": sentence,
        "vis_h": clips.transpose(1, 2),
        "map_h": model.map.scatter(proposals),
        "fused_h": model.map.scatter(rows),
        "mask_weights": network.weights,
    }
    mixtures: list[Tensor] = []
    hook = network.convolutions[0].dropout.register_forward_hook(lambda _, args, __: mixtures.append(args[0]))
    scale, shift = network.norms[0].affine(rows)
    plan = CellPlan(cells, everywhere, model.config.kernel)
    seen["conv0_out"] = plan.full_outputs(network.convolutions[0](rows, sentence, plan, scale, shift))
    seen["cond_attention0"] = mixtures[0]
    hook.remove()
    for number, plan in enumerate(network.training_plans):
        rows = network.layer(number, rows, sentence, plan)
        if number == 0:
            seen["layer0_out"] = plan.full_outputs(rows)
    scale, shift = network.norms[-1].affine(rows)
    seen["map_out"] = CellPlan(plan.outputs, everywhere, 1).full(rows * scale + shift, shift)
    return seen


def test_every_intermediate_stage_agrees(golden):
    with torch.no_grad():
        golden.compare("mid/", stages(golden, build(golden).eval()))


def test_inference_outputs_and_the_loss_agree(golden):
    model = build(golden).eval()
    with torch.no_grad():
        output = model(*inputs_of(golden))
    prediction, cells, config = full_map(model, output.logits), model.map.cells, loss_config(golden)
    target = scaled_iou(torch.from_numpy(golden.arrays["in/map_gt"]), config.min_iou, config.max_iou)
    ours = {
        "prediction": prediction,
        "map_mask": cells.float().expand_as(prediction),
        "frame_attention": output.attention,
        "joint_prob": prediction.sigmoid() * cells,
        "target_masked": target * cells,
    }
    golden.compare("out/", ours)
    terms = losses.total(
        output.logits,
        model.map.gather(torch.from_numpy(golden.arrays["in/map_gt"])[:, 0]),
        output.attention,
        config,
        released=True,
    )
    golden.compare("loss_eval/", {"bce": terms["overlap"]})


@pytest.mark.parametrize("recompute", [0, 1, 3])
def test_training_outputs_losses_gradients_and_statistics_agree(golden, recompute):
    model = build(golden, recompute=recompute).train()
    run = train_pass(golden, model)
    terms = {"bce": run.terms["overlap"], "total": run.terms["total"], "att_dis": run.terms.get("attention")}
    golden.compare("loss/", terms)
    run.terms["total"].backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values()), "a parameter takes part in nothing"
    golden.compare("grad/", released(golden, gradients))
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    ours = {"prediction": full_map(model, run.output.logits), "grad_norm": norm}
    ours |= released(golden, dict(model.named_buffers()))
    golden.compare("train/", ours)


def released(golden, ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by their released names, in the released order of a kernel bank."""
    found = {}
    for name, value in golden.group("param/").items():
        # each tensor's own name: the one that comes out of converting the whole
        owner = _our_names(golden)[name]
        if owner in ours:
            tensor = ours[owner]
            found[name] = in_released_order(owner, tensor).reshape(value.shape)
    return found


def in_released_order(owner: str, tensor: Tensor) -> Tensor:
    """Map kernels, here by place (..., k * k, in, out), as (..., out, in, k * k)."""
    by_place = owner.startswith("map_network.convolutions.") and tensor.ndim >= 3
    return tensor.movedim(-3, -1).transpose(-3, -2) if by_place else tensor


def _our_names(golden) -> dict[str, str]:
    weights = golden.tensors("param/")
    return dict(zip(weights, from_official(weights), strict=True))


def test_one_update_agrees(golden):
    model = build(golden).train()
    optimizer = build_optimizer(model, OptimConfig(optimizer="adamw", lr=1e-4))
    train_pass(golden, model).terms["total"].backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()
    golden.compare("step/", released(golden, dict(model.named_parameters())), rtol=1e-5, atol=1e-6)


def test_training_with_the_recorded_dropout_agrees(golden):
    model = build(golden).train()

    class Recorded(nn.Module):
        def __init__(self, keep: Tensor) -> None:
            super().__init__()
            self.keep = keep

        def forward(self, weights: Tensor) -> Tensor:
            return weights * self.keep / 0.9

    for layer in model.config.dynamic_layers:
        keep = torch.from_numpy(golden.arrays[f"drop/in/keep_{layer}"])
        model.map_network.convolutions[layer].dropout = Recorded(keep)
    ours = {"prediction": full_map(model, model(*inputs_of(golden)).logits)}
    ours |= {name: value for name, value in golden.group("drop/").items() if name.startswith("in/")}
    golden.compare("drop/", ours)


def made_up_files(golden, tmp_path):
    files = json.loads(str(golden.arrays["data_text"]))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return files


def records_of(golden, tmp_path) -> list[Query]:
    files = made_up_files(golden, tmp_path)
    if golden.about["config"]["ds"] == "TACoS":
        (name,) = files
        return read_annotations(tmp_path / name, "tacos", policy="drop-then-cut").queries
    annotations = next(name for name in files if name.endswith(".txt"))
    durations = next(name for name in files if name.endswith(".csv"))
    table = read_durations(tmp_path / durations)
    return read_annotations(
        tmp_path / annotations, "charades-sta", durations=table, policy="cut-then-drop"
    ).queries


def test_files_become_the_recorded_batch(golden, tmp_path):
    given, queries = golden.about["config"], records_of(golden, tmp_path)
    recorded = golden.group("data/")
    raw = {name: recorded.pop(name) for name in list(recorded) if name.startswith("raw/")}
    features = {name.removeprefix("raw/"): pool(unit_rows(rows), given["NSC"]) for name, rows in raw.items()}
    lookup = WordLookup(WordVectors(tuple(golden.about["words"]), recorded.pop("vocab_vectors")))
    clips = given["NSC"] // given["stride"]

    def known(video: str) -> str:
        return video if video in features else f"{video}.avi"

    queries = [dataclasses.replace(query, video=known(query.video)) for query in queries]
    words_of = functools.partial(plain_words, drop_full_stop=given["ds"] == "Charades")
    batch = MapExamples(queries, features, lookup, words_of, clips=clips).batch(range(len(queries)), None)
    assert [v.removesuffix(".avi") for v in recorded.pop("kept_videos")] == [
        query.video.removesuffix(".avi") for query in queries
    ]
    recorded.pop("batch_reg_gt")  # no loss and no metric reads it
    mask = torch.arange(batch.words.vectors.shape[1]) < batch.words.lengths[:, None]
    ours = {
        "batch_word_vectors": batch.words.vectors,
        "batch_txt_mask": mask[..., None].float(),
        "batch_map_gt": batch.overlaps,
        "batch_vis_input": batch.features[batch.video_of],
        "batch_duration": np.array([query.duration for query in queries]),
        "times": np.concatenate([query.moments for query in queries]),
    }
    assert set(recorded) == set(ours), "recorded but not compared"
    for name, wanted in recorded.items():
        np.testing.assert_allclose(
            np.asarray(ours[name]).reshape(wanted.shape), wanted, **TOLERANCE, err_msg=name
        )


def test_the_recorded_targets_are_the_overlaps_of_the_recorded_moments(golden):
    arrays = golden.arrays
    for moment, duration, wanted in zip(
        arrays["in/gt_times"], arrays["in/duration"], arrays["in/map_gt"], strict=True
    ):
        np.testing.assert_allclose(map_overlaps(moment, duration, wanted.shape[-1]), wanted[0], atol=1e-6)


def metrics(
    golden, moments: list[np.ndarray], truth: np.ndarray, durations: np.ndarray
) -> dict[str, np.ndarray]:
    given = golden.about["config"]
    thresholds = tuple(float(value) for value in given["tiou"].split(","))
    recall, mean = map_scores(moments, truth, durations, thresholds, given["nms"])
    return {"rank_at": recall, "miou": mean}


def test_ranking_suppression_and_metrics_agree(golden):
    recorded, nms = golden.group("eval/"), golden.about["config"]["nms"]
    scores, durations, truth = (
        recorded.pop("scores")[:, 0],
        recorded.pop("duration"),
        recorded.pop("gt_times"),
    )
    valid = build(golden).map.cells.numpy()
    every = ranked(valid, scores, durations, limit=20, nms=1.0)
    np.testing.assert_allclose(np.stack(every), recorded.pop("top20"), rtol=1e-6, atol=1e-5)
    kept = ranked(valid, scores, durations, limit=5, nms=nms)
    np.testing.assert_allclose(np.stack(kept), recorded.pop("nms_top5"), rtol=1e-6, atol=1e-5)
    ours = metrics(golden, kept, truth, durations)

    durations, truth = golden.arrays["in/duration"], golden.arrays["in/gt_times"]
    model = golden.arrays["out/joint_prob"][:, 0]
    cells = int(golden.arrays["out/map_mask"][0].sum())
    order = np.stack(ranked(valid, model, durations, limit=cells, nms=1.0))
    # what comes after the valid cells has score zero and no defined order
    np.testing.assert_allclose(order, recorded.pop("sorted_times")[:, :cells], rtol=1e-6, atol=1e-5)
    of_model = metrics(golden, ranked(valid, model, durations, limit=5, nms=nms), truth, durations)
    ours |= {f"model_{name}": value for name, value in of_model.items()}
    assert set(recorded) == set(ours), "recorded but not compared"
    for name, wanted in recorded.items():
        np.testing.assert_allclose(ours[name], wanted, atol=1e-6, err_msg=name)


def test_the_task_predicts_what_was_recorded(golden):
    model, arrays = build(golden).eval(), golden.arrays
    durations, nms = arrays["in/duration"], golden.about["config"]["nms"]
    with torch.no_grad():
        found = task_of(golden, model).predict(map_batch(durations, *inputs_of(golden)))
    wanted = ranked(model.map.cells.numpy(), arrays["out/joint_prob"][:, 0], durations, 5, nms)
    for prediction, moments in zip(found, wanted, strict=True):
        np.testing.assert_allclose(prediction.moments, moments, rtol=1e-6, atol=1e-5)
