"""RGN against numbers measured on the released code: every recorded stage, loss, gradient and metric."""

import re

import numpy as np
import pytest
import torch
from torch import Tensor

from judging import gradient_limits, point_scores_agree, same_scores_along, stated
from rgn import losses
from rgn.config import LossConfig, ModelConfig
from rgn.data import collate, known_words
from rgn.gaussians import attention_log_weight, negative_progress
from rgn.layers import key_bias, sinusoidal_positions
from rgn.method import rank
from rgn.model import RGN, Inputs, grid_indices
from rgn.official import NAMES, from_official
from rgn_passes import compared, every_pass
from vmr_common.features.pooling import pool
from vmr_common.metrics import iou
from vmr_common.text.vectors import Vocabulary
from vmr_common.types import Query
from vmr_train.config import OptimConfig, ScheduleConfig
from vmr_train.content_words import tag_score
from vmr_train.optim import build_optimizer
from vmr_train.schedules import learning_rate

PACKAGE = "rgn"
INPUTS = (
    "param/",
    "in/",
    "data/pool/in_",
    "data/collate/id2vec",
    "eval/model/gt_s",
    "eval/model/durations",
    "eval/made_up/gt",
    "eval/made_up/spans",
    "opt/schedule_updates",
)


def build(golden) -> RGN:
    sizes = golden.config["config"]
    transformer = sizes["DualTransformer"]
    assert transformer["d_model"] == sizes["hidden_size"]
    assert transformer["dropout"] == sizes["dropout"] == 0
    config = ModelConfig(
        hidden=sizes["hidden_size"],
        heads=transformer["num_heads"],
        video_layers=transformer["num_decoder_layers1"],
        text_layers=transformer["num_decoder_layers2"],
        candidates=sizes["num_props"],
        sigma=sizes["sigma"],
        gamma=sizes["gamma"],
        dropout=0.0,
    )
    model = RGN(
        config,
        clip_dim=sizes["frames_input_size"],
        word_dim=sizes["words_input_size"],
        classes=sizes["vocab_size"],
    )
    released = golden.tensors("param/")
    model.load_state_dict(from_official(released), strict=True)
    return model


def loss_config(golden) -> LossConfig:
    values = dict(golden.config["loss"])
    return LossConfig(lambda_=values.pop("lambda"), **values)


def inputs_of(golden) -> Inputs:
    given = golden.tensors("in/")
    return Inputs(
        clips=given["frames_feat"],
        clips_len=given["frames_len"],
        words=given["words_feat"],
        words_len=given["words_len"],
        masked=given["masked_words"].bool(),
    )


def given_in_training(golden, model: RGN) -> tuple[Inputs, Tensor, Tensor, Tensor]:
    """What a training step reads: inputs, targets, glances and how far the negatives have come in."""
    given = golden.tensors("in/")
    epochs = golden.config["config"]["max_epoch"]
    progress = torch.tensor(negative_progress(int(given["epoch"]), epochs, model.config.gamma))
    return inputs_of(golden), given["words_id"], given["glance"], progress


def terms_of(golden, model: RGN) -> dict[str, Tensor]:
    """The losses of a training step as the method runs it."""
    given = given_in_training(golden, model)
    output = model(*given)
    return losses.total(output.proposals, output.compared, given[2], loss_config(golden))


def test_released_weights_load_by_name_with_nothing_missing_or_left_over(golden):
    build(golden)
    unused = [name for name in golden.group("param/") if NAMES.ours(name) is None]
    assert set(unused) == set(golden.about["notes"]["params_without_gradient"])


def test_every_intermediate_stage_agrees(golden):
    model = build(golden).eval()
    inputs = inputs_of(golden)
    embedded = model.embed(inputs)
    seen: dict[str, Tensor] = {
        "word_pos": sinusoidal_positions(inputs.words.shape[1], model.config.hidden),
        "words_emb": embedded.words,
        "frames_emb": embedded.clips,
        "frames_mask": embedded.clips_mask,
        "keep_idx": grid_indices(inputs.clips.shape[1]),
        "words_masked_in": model.masked_words(embedded, inputs.masked),
    }
    glance, caption = model.glance_transformer, model.caption_transformer
    words, words_bias = (embedded.words + embedded.positions)[:, None], key_bias(embedded.words_mask)
    memory = glance.text(words, words_bias)
    seen["gtr_words"] = memory
    every_row = glance.video(
        embedded.clips[:, None], key_bias(embedded.clips_mask), memory, key_bias(embedded.words_mask)
    )
    seen["gtr_h"] = every_row
    # the pass that the model really runs computes the last row alone
    last = model.prediction_state(glance, embedded)
    torch.testing.assert_close(last, every_row[:, 0, -1], rtol=1e-5, atol=1e-5)
    seen["ctr_h_last"] = model.prediction_state(caption, embedded)

    frames, frames_mask = model.grid_clips(embedded)
    run = every_pass(model, *given_in_training(golden, model))
    seen["neg_weight_1"], seen["neg_weight_2"] = run.left, run.right
    hidden = key_bias(frames_mask)
    bias = attention_log_weight(run.proposals.window)[:, :, None, None] + hidden
    candidate_memory = caption.video(frames[:, None], bias)
    seen["cand_video"] = candidate_memory
    seen["full_video"] = caption.video(frames[:, None], hidden)
    reglance_bias = attention_log_weight(run.reglance)[:, None, None, None] + hidden
    seen["reglance_video"] = caption.video(frames[:, None], reglance_bias)

    weights = []
    cross = caption.text.layers[-1].cross_attention
    hook = cross.register_forward_pre_hook(lambda module, args: weights.append(module.weights(*args)))
    masked = seen["words_masked_in"][:, None]
    caption.text(masked, key_bias(embedded.words_mask[:, :-1]), candidate_memory, bias)
    hook.remove()
    seen["cand_attn"] = weights[0].mean(dim=2)  # (B, K, L, P)
    assert golden.wanted("mid/keep_idx").tolist() == seen["keep_idx"].tolist()
    golden.compare("mid/", seen)


def outputs(model: RGN, proposals, states: Tensor, mask: Tensor) -> dict[str, Tensor]:
    return {
        "words_logit": model.classifier(states),
        "center": proposals.centre,
        "width": proposals.width,
        "gauss_weight": proposals.window,
        "words_mask": mask,
    }


def test_training_outputs_agree(golden):
    model = build(golden).train()
    run = every_pass(model, *given_in_training(golden, model))
    ours = outputs(model, run.proposals, run.states["candidates"], run.embedded.words_mask[:, :-1])
    ours |= {
        "ref_words_logit": model.classifier(run.states["complete"]),
        "pseudo_ref_words_logit": model.classifier(run.states["reglance"]),
        "neg_words_logit_1": model.classifier(run.states["left"]),
        "neg_words_logit_2": model.classifier(run.states["right"]),
        "pseudo_width": run.reglance_width,
        "pseudo_gauss_weight": run.reglance,
    }
    golden.compare("out/train/", ours)


def test_losses_agree(golden):
    model = build(golden).train()
    given = given_in_training(golden, model)
    run, terms, config = every_pass(model, *given), terms_of(golden, model), loss_config(golden)
    nll = compared(run)
    reference = (1 - config.theta) * nll.reglance.mean() + config.theta * nll.complete.mean()
    no_shape = LossConfig(**{**vars(config), "delta_2": 0.0})
    no_distance = LossConfig(**{**vars(config), "delta_1": 0.0})
    place = (run.proposals, given[2], run.reglance)
    ours = {
        "nll_cand": run.nll["candidates"],
        "nll_full": nll.complete,
        "nll_reglance": nll.reglance,
        "nll_neg1": run.nll["left"],
        "nll_neg2": run.nll["right"],
        "semantic": terms["semantic"],
        "localization": terms["localization"],
        "intra_video": terms["intra_video"],
        "total": terms["total"],
        "semantic_ref": config.beta_1 * reference,
        "semantic_pred": config.beta_2 * nll.best.mean(),
        "loc_glance_l1": losses.localization(*place, no_shape),
        "loc_reglance_mse": losses.localization(*place, no_distance),
        "hinge_neg1": terms["hinge_left"],
        "hinge_neg2": terms["hinge_right"],
        "hinge_full": terms["hinge_complete"],
        "hinge_reglance": terms["hinge_reglance"],
        "div": terms["diversity"],
    }
    golden.compare("loss/", ours)


def test_gradients_agree(golden):
    model = build(golden).train()
    terms_of(golden, model)["total"].backward()
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in ours.values()), "a parameter takes part in nothing"
    norm = torch.nn.utils.get_total_norm(list(ours.values()))
    golden.same("grad_norm/total", norm, rtol=1e-3)
    for name, wanted in golden.recorded("grad/").items():
        golden.same(f"grad/{name}", ours[NAMES.ours(name)], **gradient_limits(wanted, norm.item()))


@pytest.mark.parametrize("passes_per_chunk", [0, 3])
def test_inference_outputs_and_candidate_order_agree(golden, passes_per_chunk):
    model = build(golden).eval()
    model.passes_per_chunk = passes_per_chunk
    inputs = inputs_of(golden)
    with torch.no_grad():
        output = model(inputs, torch.from_numpy(golden.given("in/words_id")))
        proposals, nll, embedded = output.proposals, output.nll, model.embed(inputs)
        mask = embedded.words_mask[:, :-1]
        states = model.reconstruct(embedded, inputs.masked, proposals.window)
    ours = outputs(model, proposals, states, mask) | {"nll": nll}
    for name in set(golden.recorded("out/eval/")) - {"order", "spans"}:
        golden.same(f"out/eval/{name}", ours[name])
    found, moments, _ = rank(proposals, nll)
    centre, half = (part.double().numpy() for part in (proposals.centre, proposals.width / 2))
    spans = np.stack([np.maximum(centre - half, 0), np.minimum(centre + half, 1)], axis=-1)
    order = golden.wanted("out/eval/order")
    for row in range(len(order)):
        same_scores_along(nll[row].numpy(), found[row], order[row], 1e-4)
        np.testing.assert_array_equal(moments[row], spans[row, found[row]])
    golden.same("out/eval/spans", np.take_along_axis(spans, order[..., None], axis=1))


def test_six_updates_follow_the_recorded_optimiser_and_schedule(golden):
    golden.recorded("opt/")
    options = golden.config["optimizer"]
    (limit,) = stated(golden.said("opt/loss_trajectory"), "clip", default=[10.0])
    optim = OptimConfig(
        optimizer="cpl-adam",
        lr=options["lr"],
        weight_decay=options["weight_decay"],
        clip_norm=limit,
        schedule=ScheduleConfig(
            name="inverse-sqrt",
            warmup_updates=options["warmup_updates"],
            warmup_init_lr=options["warmup_init_lr"],
        ),
    )
    model = build(golden).train()
    optimizer = build_optimizer(model, optim)
    ours = dict(model.named_parameters())
    rounding = {name: torch.zeros_like(parameter) for name, parameter in ours.items()}
    trajectory, rates = [], []
    updates = len(golden.arrays["opt/loss_trajectory"])
    for update in range(updates):
        rate = learning_rate(
            optim.schedule, optim.lr, update=update, total_updates=updates, epoch_updates=updates
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = terms_of(golden, model)["total"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip_norm)
        optimizer.step()
        trajectory.append(loss.item())
        rates.append(rate)
        for name, parameter in ours.items():
            # how far rounding of the gradients, as large as in `first_update_agrees`, may turn this step
            root = (optimizer.state[parameter]["exp_avg_sq"] / (1 - 0.999 ** (update + 1))).sqrt()
            turned = 2 * 5e-5 * parameter.grad.abs().max() / (root + optim.eps)
            rounding[name] += rate * turned.clamp(max=2)
    golden.same("opt/lr_used", rates, rtol=1e-5)
    golden.same("opt/loss_trajectory", trajectory, rtol=1e-3, atol=1e-3)
    for name, wanted in golden.recorded("opt/param_after_6/").items():
        known = NAMES.ours(name)
        if known is None:
            # what the method never uses is not in our model; the released optimiser leaves it as it was
            golden.same(f"opt/param_after_6/{name}", golden.given(f"param/{name}"), rtol=0)
            continue
        found = golden.wanted(f"opt/param_after_6/{name}") - ours[known].detach().numpy()
        limits = 1e-4 * np.abs(wanted) + rounding[known].numpy() + 2e-4
        assert (np.abs(found) <= limits).all(), name


def test_learning_rates_of_the_published_schedule_agree(golden):
    said = golden.said("opt/schedule_lr")
    (lr,), (warmup,) = stated(said, "lr", default=[4e-4]), stated(said, "warm-up", default=[400])
    (init,) = stated(said, "init", default=[1e-7])
    schedule = ScheduleConfig(name="inverse-sqrt", warmup_updates=int(warmup), warmup_init_lr=init)
    ours = [
        learning_rate(schedule, lr, update=int(n), total_updates=10**6, epoch_updates=100)
        for n in golden.given("opt/schedule_updates")
    ]
    golden.same("opt/schedule_lr", ours, rtol=1e-5)


def test_pooling_agrees(golden):
    for rows, wanted in golden.recorded("data/pool/out_").items():
        found = pool(golden.given(f"data/pool/in_{rows}"), len(wanted))
        golden.same(f"data/pool/out_{rows}", found, rtol=1e-6, atol=1e-6)


def test_queries_become_the_recorded_batch(golden):
    toy = golden.about["toy_data"]
    args = toy["args"]
    collated = {name: golden.wanted(f"data/collate/{name}") for name in golden.recorded("data/collate/")}
    vocabulary = Vocabulary.from_counts(toy["counter_in_insertion_order"], args["vocab_size"])
    assert {word: vocabulary.id(word) for word in vocabulary.words} == toy["keep_vocab"]
    vectors = golden.given("data/collate/id2vec")[[0, *(toy["w2id"][word] for word in vocabulary.words)]]
    queries = [
        Query(
            id=record[0], video=record[0], text="", duration=record[1], moments=[record[2]], glance=record[4]
        )
        for record in toy["records"]
    ]
    words = []
    for tagged in toy["tokens"]:
        tokens, tags = zip(*tagged, strict=True)
        words.append(known_words(tokens, [tag_score(tag) for tag in tags], vocabulary, args["max_num_words"]))
    features = [
        pool(golden.given(f"data/pool/in_{rows}"), args["max_num_frames"]) for rows in toy["raw_clips"]
    ]
    masks = [np.zeros(len(known), dtype=bool) for known in words]
    batch = collate(queries, words, masks, features, vectors, end_token=False)
    weights = np.zeros(collated["weights"].shape, dtype=np.float32)
    for row, known in zip(weights, words, strict=True):
        row[: len(known)] = known.weights
    recorded = collated["words_feat"].copy()
    recorded[:, 0] = 0  # a placeholder there, which the model overwrites
    np.testing.assert_allclose(batch.inputs.words, recorded, rtol=1e-6)
    np.testing.assert_array_equal(batch.targets, collated["words_id"])
    np.testing.assert_array_equal(batch.inputs.words_len, collated["words_len"])
    np.testing.assert_array_equal(batch.inputs.clips_len, collated["frames_len"])
    np.testing.assert_allclose(batch.inputs.clips, collated["frames_feat"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(batch.glance, collated["glance"], rtol=1e-6)
    np.testing.assert_allclose(weights, collated["weights"], rtol=1e-5)


METRIC = r"R@\d+,.*"


def metrics_of(golden, prefix: str) -> dict[str, float]:
    """The recorded metrics below `prefix`, compared by the caller."""
    names = [name for name in golden.recorded(prefix) if re.fullmatch(METRIC, name)]
    return {name: float(golden.wanted(prefix + name)) for name in names}


def test_metrics_of_the_released_runner_agree(golden):
    recorded = metrics_of(golden, "eval/model/")
    truth = golden.given("eval/model/gt_s").astype(np.float64)
    spans = golden.arrays["out/eval/spans"]
    point_scores_agree(spans, truth, golden.given("eval/model/durations"), recorded)


def test_metrics_agree_on_generated_spans(golden):
    recorded = metrics_of(golden, "eval/made_up/")
    spans, truth = golden.given("eval/made_up/spans"), golden.given("eval/made_up/gt").astype(np.float64)
    overlaps = iou(spans, truth[:, None], union="hull", eps=1e-10)
    golden.same("eval/made_up/iou", np.maximum(overlaps, 0), rtol=0, atol=1e-6)
    point_scores_agree(spans, truth, np.ones(len(spans)), recorded)


def test_the_recorded_word_mask_is_one_that_is_drawn(golden):
    masked, weights = golden.given("in/masked_words"), golden.given("in/weights")
    for mask, weight, length in zip(masked, weights, golden.given("in/words_len").tolist(), strict=True):
        assert mask.sum() == max(length // 3, 1)
        assert not mask[0]
        assert weight[mask[1 : len(weight) + 1].astype(bool)].all()
        np.testing.assert_allclose(weight[:length].sum(), 1, rtol=1e-5)


def test_every_recorded_array_is_read_or_compared(golden, left_over):
    assert left_over(INPUTS) == []
