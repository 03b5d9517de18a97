"""RGN against numbers measured on the released code: every recorded stage, loss, gradient and metric."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from rgn import losses
from rgn.config import LossConfig, ModelConfig
from rgn.losses import Nll
from rgn.model import RGN, Inputs, grid_indices
from rgn.official import from_official, our_name
from vmr_common.nn.attention import key_bias
from vmr_common.nn.gaussian import attention_log_weight, negative_progress
from vmr_common.nn.reconstruction import reconstruction_nll, sinusoidal_positions

PACKAGE = "rgn"
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def build(golden) -> RGN:
    sizes, transformer = golden.about["config"]["config"], golden.about["config"]["config"]["DualTransformer"]
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
        frame_dim=sizes["frames_input_size"],
        word_dim=sizes["words_input_size"],
        classes=sizes["vocab_size"],
    )
    released = {name: torch.from_numpy(value) for name, value in golden.group("param/").items()}
    model.load_state_dict(from_official(released), strict=True)
    return model


def loss_config(golden) -> LossConfig:
    values = dict(golden.about["config"]["loss"])
    return LossConfig(lambda_=values.pop("lambda"), **values)


def inputs_of(golden) -> Inputs:
    given = {name: torch.from_numpy(value) for name, value in golden.group("in/").items()}
    return Inputs(
        frames=given["frames_feat"],
        frames_len=given["frames_len"],
        words=given["words_feat"],
        words_len=given["words_len"],
        masked=given["masked_words"].bool(),
    )


def train_pass(golden, model: RGN) -> SimpleNamespace:
    """One training pass as the task runs it, with everything that the case may have recorded."""
    inputs, arrays = inputs_of(golden), golden.arrays
    glance, targets = torch.from_numpy(arrays["in/glance"]), torch.from_numpy(arrays["in/words_id"])
    epochs = golden.about["config"]["config"]["max_epoch"]
    progress = negative_progress(int(arrays["in/epoch"]), epochs, model.config.gamma)
    proposals, told = model.forward_train(inputs, glance, progress)
    mask = model.embed(inputs).words_mask[:, :-1]

    def nll(states: Tensor) -> Tensor:
        return reconstruction_nll(states, model.classifier, targets, mask)

    scores = Nll(
        candidates=nll(told.candidates),
        left=nll(told.left),
        right=nll(told.right),
        complete=nll(told.complete)[:, 0],
        reglance=nll(told.reglance)[:, 0],
    )
    config = loss_config(golden)
    terms = losses.total(proposals, scores, glance, told.reglance_window, config)
    return SimpleNamespace(
        proposals=proposals, told=told, nll=scores, terms=terms, mask=mask, glance=glance, progress=progress, config=config
    )


def compare(golden, prefix: str, ours: dict[str, Tensor], **tolerance: float) -> None:
    recorded = golden.group(prefix)
    assert recorded, f"the case holds nothing under {prefix}"
    assert not set(recorded) - set(ours), "recorded but not compared"
    for name, wanted in recorded.items():
        found = ours[name].detach().numpy()
        assert found.size == wanted.size, name
        np.testing.assert_allclose(
            found.reshape(wanted.shape), wanted, **(tolerance or TOLERANCE), err_msg=prefix + name
        )


def test_released_weights_load_by_name_with_nothing_missing_or_left_over(golden):
    build(golden)
    unused = [name for name in golden.group("param/") if our_name(name) is None]
    assert set(unused) == set(golden.about["notes"]["params_without_gradient"])


def test_every_intermediate_stage_agrees(golden):
    model, arrays = build(golden).eval(), golden.arrays
    inputs = inputs_of(golden)
    embedded = model.embed(inputs)
    seen: dict[str, Tensor] = {
        "word_pos": sinusoidal_positions(inputs.words.shape[1], model.config.hidden),
        "words_emb": embedded.words,
        "frames_emb": embedded.frames,
        "frames_mask": embedded.frames_mask,
        "keep_idx": grid_indices(inputs.frames.shape[1]),
        "words_masked_in": model.masked_words(embedded, inputs.masked),
    }
    glance, caption = model.glance_transformer, model.caption_transformer
    memory = glance.encode_query(embedded.words + embedded.positions, embedded.words_mask)
    seen["gtr_words"] = memory
    every_row = glance.video(
        embedded.frames[:, None], key_bias(embedded.frames_mask), memory, key_bias(embedded.words_mask)
    )
    seen["gtr_h"] = every_row
    # the pass that the model really runs computes the last row alone
    last = glance.glance(embedded.frames, embedded.frames_mask, memory, embedded.words_mask)
    torch.testing.assert_close(last, every_row[:, 0, -1], rtol=1e-5, atol=1e-5)
    memory = caption.encode_query(embedded.words + embedded.positions, embedded.words_mask)
    seen["ctr_h_last"] = caption.glance(embedded.frames, embedded.frames_mask, memory, embedded.words_mask)

    frames, frames_mask = model.grid_frames(embedded)
    run = train_pass(golden, model)
    left, right = model.negatives(run.proposals, run.progress)
    seen["neg_weight_1"], seen["neg_weight_2"] = left, right
    hidden = key_bias(frames_mask)
    bias = attention_log_weight(run.proposals.window)[:, :, None, None] + hidden
    candidate_memory = caption.encode_video(frames, bias)
    seen["cand_video"] = candidate_memory
    seen["full_video"] = caption.encode_video(frames, hidden)
    reglance_bias = attention_log_weight(run.told.reglance_window)[:, None, None, None] + hidden
    seen["reglance_video"] = caption.encode_video(frames, reglance_bias)

    weights = []
    cross = caption.text.layers[-1].cross_attention
    hook = cross.register_forward_pre_hook(lambda module, args: weights.append(module.weights(*args)))
    caption.caption(seen["words_masked_in"], embedded.words_mask[:, :-1], candidate_memory, bias)
    hook.remove()
    seen["cand_attn"] = weights[0].mean(dim=2)  # (B, K, L, P)
    assert arrays["mid/keep_idx"].tolist() == seen["keep_idx"].tolist()
    compare(golden, "mid/", seen)


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
    run = train_pass(golden, model)
    ours = outputs(model, run.proposals, run.told.candidates, run.mask)
    ours |= {
        "ref_words_logit": model.classifier(run.told.complete),
        "pseudo_ref_words_logit": model.classifier(run.told.reglance),
        "neg_words_logit_1": model.classifier(run.told.left),
        "neg_words_logit_2": model.classifier(run.told.right),
        "pseudo_width": run.told.reglance_width,
        "pseudo_gauss_weight": run.told.reglance_window,
    }
    compare(golden, "out/train/", ours)


def test_losses_agree(golden):
    run = train_pass(golden, build(golden).train())
    config, nll, terms = run.config, run.nll, run.terms
    reference = (1 - config.theta) * nll.reglance.mean() + config.theta * nll.complete.mean()
    no_shape = LossConfig(**{**vars(config), "delta_2": 0.0})
    no_distance = LossConfig(**{**vars(config), "delta_1": 0.0})
    place = (run.proposals, run.glance, run.told.reglance_window)
    ours = {
        "nll_cand": nll.candidates,
        "nll_full": nll.complete,
        "nll_reglance": nll.reglance,
        "nll_neg1": nll.left,
        "nll_neg2": nll.right,
        "semantic": terms["semantic"],
        "localization": terms["localization"],
        "intra_video": terms["intra_video"],
        "total": terms["total"],
        "semantic_ref": config.beta_1 * reference,
        "semantic_pred": config.beta_2 * nll.best()[0].mean(),
        "loc_glance_l1": losses.localization(*place, no_shape),
        "loc_reglance_mse": losses.localization(*place, no_distance),
        "hinge_neg1": terms["hinge_left"],
        "hinge_neg2": terms["hinge_right"],
        "hinge_full": terms["hinge_complete"],
        "hinge_reglance": terms["hinge_reglance"],
        "div": terms["diversity"],
    }
    compare(golden, "loss/", ours)


def test_gradients_agree(golden):
    model = build(golden).train()
    train_pass(golden, model).terms["total"].backward()
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in ours.values()), "a parameter takes part in nothing"
    norm = torch.stack([gradient.norm() for gradient in ours.values()]).norm()
    np.testing.assert_allclose(norm.item(), golden.arrays["grad_norm/total"], rtol=1e-3)
    for name, wanted in golden.group("grad/").items():
        found = ours[our_name(name)].numpy()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3 * np.abs(wanted).max(), err_msg=name)


@pytest.mark.parametrize("in_chunks", [False, True])
def test_inference_outputs_and_candidate_order_agree(golden, in_chunks):
    from rgn.task import rank

    model = build(golden).eval()
    inputs = inputs_of(golden)
    with torch.no_grad():
        proposals, states = model(inputs)
        mask = model.embed(inputs).words_mask[:, :-1]
        targets = torch.from_numpy(golden.arrays["in/words_id"])
        nll = reconstruction_nll(states, model.classifier, targets, mask, passes_per_chunk=3 if in_chunks else 0)
    ranked = rank(proposals, nll)
    ours = outputs(model, proposals, states, mask) | {
        "nll": nll,
        "order": ranked.order,
        "spans": torch.from_numpy(ranked.moments),
    }
    compare(golden, "out/eval/", ours)
    assert ranked.order.tolist() == golden.arrays["out/eval/order"].tolist()
