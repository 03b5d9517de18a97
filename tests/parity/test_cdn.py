"""CDN against numbers measured on the released code: every recorded stage, loss, gradient, batch and metric."""

import dataclasses
import functools
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cdn import losses
from cdn.config import DecodeConfig, LossConfig, ModelConfig
from cdn.data import Dataset, Preprocessor, QueryWords
from cdn.losses import scaled_iou
from cdn.method import CDNMethod
from cdn.model import CDN
from cdn.official import from_official
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
from vmr_common.features.pooling import pool
from vmr_common.splits.formats import read_annotations
from vmr_common.splits.text_files import read_durations
from vmr_common.text.vectors import WordVectors
from vmr_common.types import Query
from vmr_train.config import OptimConfig
from vmr_train.layers.sparse_map_conv import SparseMap
from vmr_train.layers.sparse_map_plan import SparseMapIndex, map_weights, scatter_rows
from vmr_train.map_proposals import map_overlaps
from vmr_train.optim import build_optimizer
from vmr_train.prepared import unit_rows
from vmr_train.word_lookup import WordLookup, plain_words

PACKAGE = "cdn"
INPUTS = (
    "in/",
    "param/",
    "drop/in/",
    "eval/scores",
    "eval/duration",
    "eval/gt_times",
    "data/raw/",
    "data/vocab_vectors",
    "data_text",
)


def build(golden, **options) -> CDN:
    given, released = golden.config, golden.tensors("param/")
    config = ModelConfig(
        hidden=given["H"],
        text_layers=sum(name.startswith("textual") and "weight_ih" in name for name in released),
        clips=given["NSC"] // given["stride"],
        scales=given["scales"],
        proposals={"SparsePropMaxPool": "pool", "SparsePropConv": "conv"}[given["prop"]],
        attention_steps=given["sqn"],
        attention_hidden=released["frame_layer.att_fn1.bias"].numel(),
        layers=given["L"],
        kernel=given["K"],
        dynamic_layers=[layer for layer, dynamic in enumerate(given["dyn"]) if dynamic],
        kernels=given["W"],
        kernel_dropout=0.0,
        **options,
    )
    model = CDN(config, frame_dim=given["VI"], word_dim=given["TI"])
    model.load_state_dict(from_official(released), strict=True)
    return model


def loss_config(golden) -> LossConfig:
    given = golden.config
    low, high = given["miou"]
    lambda_, beta = given["lam"] or (0.3, 0.0)
    return LossConfig(min_iou=low, max_iou=high, lambda_=lambda_, beta=beta)


def inputs_of(golden) -> tuple[Tensor, Tensor, QueryWords]:
    vectors = torch.from_numpy(golden.given("in/textual_input"))
    lengths = torch.from_numpy(golden.given("in/textual_mask")).sum(dim=(1, 2)).long()
    assert lengths.tolist() == golden.config["lens"]
    return (
        torch.from_numpy(golden.given("in/visual_input")),
        torch.arange(len(vectors)),
        QueryWords(vectors, lengths),
    )


def method_of(golden, model: CDN) -> CDNMethod:
    decoding = DecodeConfig(nms=golden.config["nms"], moments=max(ranks(golden)))
    return CDNMethod(
        model, loss_config(golden), decoding, Preprocessor(WordVectors((), np.zeros((0, 1), np.float32)))
    )


def train_pass(golden, model: CDN) -> SimpleNamespace:
    output = model(*inputs_of(golden))
    terms = losses.total(
        output.logits, overlaps(golden, model), output.attention, loss_config(golden), released=True
    )
    return SimpleNamespace(output=output, terms=terms)


def overlaps(golden, model: CDN) -> Tensor:
    return model.map.gather(torch.from_numpy(golden.given("in/map_gt"))[:, 0])


def ranks(golden) -> tuple[int, ...]:
    """Numbers n of the recorded R@n."""
    return ranks_of(stated(golden.said("eval/rank_at"), "recall", default=(1, 5)))


def full_map(model: CDN, logits: Tensor) -> Tensor:
    """Logits ``(P, B)`` as the recorded maps ``(B, 1, N, N)``."""
    return scatter_rows(logits[..., None], model.map.index, model.map.clips)


def test_released_weights_load_by_name_with_nothing_missing_or_left_over(golden):
    build(golden)
    prefixed = {f"module.{name}": value for name, value in golden.tensors("param/").items()}
    assert set(from_official(prefixed)) == set(build(golden).state_dict())


def stages(golden, model: CDN) -> dict[str, Tensor]:
    """Everything on the way, over the full map: all cells computed, skipped ones too."""
    frames, _, words = inputs_of(golden)
    network, cells = model.map_network, model.map.cells
    everywhere = torch.ones_like(cells)
    sentence = model.text(words)
    clips, _ = model.frames(frames)
    proposals = model.propose(clips)
    rows = model.fusion(model.fusion.project(proposals), sentence)
    seen = {
        "text_encode": sentence,
        "vis_h": clips.transpose(1, 2),
        "map_h": scatter_rows(proposals, model.map.index, model.map.clips),
        "fused_h": scatter_rows(rows, model.map.index, model.map.clips),
        "mask_weights": map_weights(cells, model.config.kernel, model.config.layers),
    }
    for number, live in enumerate(network.cells.training_layers):
        layer = network.convolutions[number]
        full = SparseMapIndex(live.inputs, everywhere, model.config.kernel)
        u = SparseMap.normalized(rows, full, network.norms[number])
        if number in model.config.dynamic_layers:
            hook = layer.dropout.register_forward_hook(
                lambda _, args, __, name=f"cond_attention{number}": seen.update({name: args[0]})
            )
        seen[f"conv{number}_out"] = full.full_outputs(layer(u, sentence))
        if number in model.config.dynamic_layers:
            hook.remove()
        rows = network.layer(number, rows, sentence, live)
        seen[f"layer{number}_out"] = live.full_outputs(rows)
    scale, shift = network.norms[-1].affine(rows)
    seen["map_out"] = SparseMapIndex(live.outputs, everywhere, 1).full(rows * scale + shift, shift)
    return seen


def test_every_intermediate_stage_agrees(golden):
    with torch.no_grad():
        golden.compare("mid/", stages(golden, build(golden).eval()))


def test_inference_outputs_and_the_loss_agree(golden):
    model = build(golden).eval()
    with torch.no_grad():
        output = model(*inputs_of(golden))
    prediction, cells, config = full_map(model, output.logits), model.map.cells, loss_config(golden)
    target = scaled_iou(torch.from_numpy(golden.given("in/map_gt")), config.min_iou, config.max_iou)
    ours = {
        "prediction": prediction,
        "map_mask": cells.float().expand_as(prediction),
        "frame_attention": output.attention,
        "joint_prob": prediction.sigmoid() * cells,
        "target_masked": target * cells,
    }
    golden.compare("out/", ours)
    terms = losses.total(output.logits, overlaps(golden, model), output.attention, config, released=True)
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
    norm = torch.nn.utils.get_total_norm(list(gradients.values()))
    found = released(golden, gradients)
    for name, wanted in golden.recorded("grad/").items():
        golden.same(f"grad/{name}", found[name], **gradient_limits(wanted, norm.item()))
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


def update_agrees(golden, *, wrong_by: float = 1.0) -> None:
    """One step of Adam, with the recorded learning rate times `wrong_by`, against the recorded one."""
    recorded = golden.recorded("step/")
    (lr,) = stated(golden.said(f"step/{next(iter(recorded))}"), "lr", default=[1e-4])
    optim = OptimConfig(optimizer="adamw", lr=lr * wrong_by)
    (limit,) = stated(golden.said("train/grad_norm"), "clipping at", default=[10.0])
    model = build(golden).train()
    optimizer = build_optimizer(model, optim)
    train_pass(golden, model).terms["total"].backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
    gradients = released(golden, {name: value.grad for name, value in model.named_parameters()})
    optimizer.step()
    ours = released(golden, dict(model.named_parameters()))
    for name in recorded:
        gradient = gradients[name].numpy()
        if golden.holds(f"grad/{name}"):
            gradient = golden.given(f"grad/{name}") * clipped_by(norm.item(), limit)
        first_update_agrees(
            ours[name].detach().numpy(),
            golden.wanted(f"step/{name}"),
            before=golden.given(f"param/{name}"),
            gradient=gradient,
            lr=lr,
            eps=optim.eps,
            name=name,
        )


def test_one_update_agrees(golden):
    update_agrees(golden)


@pytest.mark.parametrize("wrong_by", [0.999, 1.001])
def test_a_learning_rate_wrong_by_a_thousandth_is_seen(golden, wrong_by):
    with pytest.raises(AssertionError, match="values differ"):
        update_agrees(golden, wrong_by=wrong_by)


def test_training_with_the_recorded_dropout_agrees(golden):
    model = build(golden).train()

    class Recorded(nn.Module):
        def __init__(self, keep: Tensor, dropped: float) -> None:
            super().__init__()
            self.keep, self.dropped = keep, dropped

        def forward(self, weights: Tensor) -> Tensor:
            return weights * self.keep / (1 - self.dropped)

    for layer in model.config.dynamic_layers:
        name = f"drop/in/keep_{layer}"
        (dropped,) = stated(golden.said(name), "1/(1-", default=[0.1])
        keep = torch.from_numpy(golden.given(name))
        model.map_network.convolutions[layer].dropout = Recorded(keep, dropped)
    golden.same("drop/prediction", full_map(model, model(*inputs_of(golden)).logits))


def write_sources(golden, tmp_path):
    files = json.loads(str(golden.given("data_text")))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return files


def records_of(golden, tmp_path) -> list[Query]:
    files = write_sources(golden, tmp_path)
    if golden.config["ds"] == "TACoS":
        (name,) = files
        return read_annotations(tmp_path / name, "tacos", policy="drop-then-cut").queries
    annotations = next(name for name in files if name.endswith(".txt"))
    durations = next(name for name in files if name.endswith(".csv"))
    table = read_durations(tmp_path / durations)
    return read_annotations(
        tmp_path / annotations, "charades-sta", durations=table, policy="cut-then-drop"
    ).queries


def test_files_become_the_recorded_batch(golden, tmp_path):
    golden.recorded("data/")
    given, queries = golden.config, records_of(golden, tmp_path)
    raw = golden.group("data/raw/")
    features = {name: pool(unit_rows(rows), given["NSC"]) for name, rows in raw.items()}
    lookup = WordLookup(WordVectors(tuple(golden.about["words"]), golden.given("data/vocab_vectors")))
    clips = given["NSC"] // given["stride"]

    def known(video: str) -> str:
        return video if video in features else f"{video}.avi"

    queries = [dataclasses.replace(query, video=known(query.video)) for query in queries]
    words_of = functools.partial(plain_words, drop_full_stop=given["ds"] == "Charades")
    batch = Dataset(queries, features, lookup, words_of, clips=clips).batch(range(len(queries)), None)
    mask = torch.arange(batch.words.vectors.shape[1]) < batch.words.lengths[:, None]
    ours = {
        "batch_word_vectors": batch.words.vectors,
        "batch_txt_mask": mask[..., None].float(),
        "batch_map_gt": batch.overlaps,
        "batch_vis_input": batch.features[batch.video_of],
        "batch_duration": np.array([query.duration for query in queries]),
        "times": np.concatenate([query.moments for query in queries]),
    }
    for name, found in ours.items():
        golden.same(f"data/{name}", found)
    videos = [video.removesuffix(".avi") for video in golden.wanted("data/kept_videos").tolist()]
    assert videos == [query.video.removesuffix(".avi") for query in queries]
    # no loss and no metric reads it: the best cell on Charades-STA, the moment on TACoS
    if given["ds"] == "TACoS":
        golden.same("data/batch_reg_gt", ours["times"])
    else:
        cells = torch.from_numpy(golden.wanted("data/batch_reg_gt"))
        found = batch.overlaps[torch.arange(len(queries)), *cells.T]
        torch.testing.assert_close(found, batch.overlaps.flatten(1).amax(1))


def test_the_recorded_targets_are_the_overlaps_of_the_recorded_moments(golden):
    for moment, duration, wanted in zip(
        golden.given("in/gt_times"), golden.given("in/duration"), golden.given("in/map_gt"), strict=True
    ):
        np.testing.assert_allclose(map_overlaps(moment, duration, wanted.shape[-1]), wanted[0], atol=1e-6)


def metrics_agree(golden, prefix: str, moments, truth: np.ndarray, durations: np.ndarray) -> None:
    recall, mean = map_scores(
        moments,
        truth,
        durations,
        thresholds=[float(value) for value in golden.config["tiou"].split(",")],
        ranks=ranks(golden),
        nms=golden.config["nms"],
    )
    golden.same(f"{prefix}rank_at", recall, rtol=0, atol=1e-6)
    golden.same(f"{prefix}miou", mean, rtol=0, atol=1e-6)


def test_ranking_suppression_and_metrics_agree_on_generated_scores(golden):
    scores, durations = golden.given("eval/scores")[:, 0], golden.given("eval/duration")
    valid, nms = build(golden).map.cells.numpy(), golden.config["nms"]
    for name, wanted in golden.recorded("eval/").items():
        listed = re.fullmatch(r"(nms_)?top\d+", name)
        if listed is None:
            continue
        found = ranked(
            valid,
            tied_as(valid, scores, durations, wanted),
            durations,
            limit=wanted.shape[1],
            nms=nms if listed[1] else 1.0,
        )
        golden.same(f"eval/{name}", np.stack(found), rtol=1e-6, atol=1e-5)
        if listed[1]:
            metrics_agree(golden, "eval/", found, golden.given("eval/gt_times"), durations)


def test_ranking_and_metrics_of_the_recorded_probabilities_agree(golden):
    durations, truth = golden.given("in/duration"), golden.given("in/gt_times")
    probability = golden.arrays["out/joint_prob"][:, 0]
    listed = golden.arrays["eval/sorted_times"]
    every = np.triu(np.ones_like(probability[0], dtype=bool))
    # cells outside of the mask have probability 0 and come last, in no order
    scores = tied_as(every, probability, durations, listed)
    found = ranked(every, scores, durations, limit=int(every.sum()), nms=1.0)
    golden.same("eval/sorted_times", np.stack(found), rtol=1e-6, atol=1e-5)
    limit, nms = max(ranks(golden)), golden.config["nms"]
    valid = build(golden).map.cells.numpy()
    best = ranked(valid, scores, durations, limit=limit, nms=nms)
    metrics_agree(golden, "eval/model_", best, truth, durations)


def test_the_method_predicts_what_was_recorded(golden):
    model, durations = build(golden).eval(), golden.given("in/duration")
    with torch.no_grad():
        found = method_of(golden, model).predict(map_batch(durations, *inputs_of(golden)))
    for prediction, duration, probability in zip(
        found, durations, golden.arrays["out/joint_prob"][:, 0], strict=True
    ):
        assert len(prediction.moments) == max(ranks(golden))
        best_after_suppression(
            prediction.moments, model.map.cells.numpy(), probability, duration, golden.config["nms"], 1e-5
        )


def test_every_recorded_array_is_read_or_compared(golden, left_over):
    assert left_over(INPUTS) == []
