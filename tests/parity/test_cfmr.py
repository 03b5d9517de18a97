"""CFMR against numbers measured on the released code: every recorded stage, loss, gradient and metric."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from cfmr import losses
from cfmr.config import LossConfig, ModelConfig
from cfmr.data import collate, keep, kept_clips, known_words
from cfmr.gaussians import negative_progress
from cfmr.layers import key_bias
from cfmr.method import moments_of
from cfmr.model import CFMR, Clips, Words, flat_concepts
from cfmr.official import NAMES, from_official
from cfmr_passes import every_pass
from judging import NEAR, gradient_limits, point_scores_agree, share_of_right_guesses
from vmr_common.features.pooling import pool
from vmr_common.metrics import best_at, hits, iou
from vmr_common.text.vectors import Vocabulary
from vmr_common.types import Query
from vmr_train.content_words import tag_score

PACKAGE = "cfmr"
INPUTS = (
    "param/",
    "in/",
    "eval/pred",
    "eval/label",
    "eval/durations",
    "eval/gt_seconds",
    "data/raw_feat/",
    "data/word_vectors",
)


def build(golden) -> CFMR:
    sizes = golden.config["cfg"]
    transformer = sizes["Transformers"]
    assert transformer["d_model"] == sizes["hidden_size"]
    assert transformer["dropout"] == sizes["dropout"] == 0
    config = ModelConfig(
        hidden=sizes["hidden_size"],
        heads=transformer["num_heads"],
        encoder_layers=transformer["num_decoder_layers1"],
        reconstructor_layers=transformer["num_decoder_layers2"],
        concepts=sizes["num_concept"],
        sigma=sizes["sigma"],
        gamma=sizes["gamma"],
        dropout=0.0,
        centres=sizes["guass_center_num"],
        widths=sizes["guass_width_num"],
        widest=sizes["width_thresh"],
        train_widths=sizes["guass_width_num_training"],
        train_widest=sizes["width_thresh_training"],
    )
    model = CFMR(
        config,
        clip_dim=sizes["frames_input_size"],
        word_dim=sizes["words_input_size"],
        classes=sizes["vocab_size"],
        learned_summary=False,
    )
    released = golden.tensors("param/")
    model.load_state_dict(from_official(released), strict=True)
    return model


def loss_config(golden, *, reference: bool = True) -> LossConfig:
    values = dict(golden.config["loss"])
    contrast, alignment = values.pop("use_ref_words_rec"), values.pop("use_ref_words_sam")
    return LossConfig(
        **values, reference_contrast=contrast and reference, reference_alignment=alignment and reference
    )


def inputs_of(golden) -> tuple[Clips, Words]:
    given = golden.tensors("in/")
    rows = torch.from_numpy(kept_clips(given["frames_feat"].shape[1]))
    # the released mask counts one clip more than there are
    mask = rows < given["frames_len"][:, None] + 1
    return Clips(given["frames_feat"][:, rows], mask), Words(given["words_feat"], given["words_len"])


def given_in_training(golden, model: CFMR) -> tuple[tuple[Clips, Words, Tensor], dict[str, Tensor]]:
    """What a training step reads, by place and by name."""
    arrays = golden.tensors("in/")
    epochs = golden.config["cfg"]["max_epoch"]
    progress = negative_progress(golden.config["epoch"], epochs, model.config.gamma)
    by_name = {
        "masked": arrays["masked_words"].bool(),
        "glance": arrays["glance"],
        "progress": torch.tensor(progress),
    }
    return (*inputs_of(golden), arrays["words_id"]), by_name


def train_pass(golden, model: CFMR) -> SimpleNamespace:
    """All passes of a training step as the released program runs it."""
    given, by_name = given_in_training(golden, model)
    return every_pass(model, *given, **by_name)


def terms_of(golden, model: CFMR, *, reference: bool = True) -> dict[str, Tensor]:
    """The losses of a training step as the method runs it."""
    given, by_name = given_in_training(golden, model)
    config = loss_config(golden, reference=reference)
    wanted = config.reference_contrast or config.reference_alignment
    output = model(*given, video_of=torch.arange(len(given[2])), reference=wanted, **by_name)
    return losses.total(output.concepts, output.proposals, output.nll, config)


def test_released_weights_load_by_name_with_nothing_missing_or_left_over(golden):
    build(golden)
    unused = {name for name in golden.group("param/") if NAMES.ours(name) is None}
    assert unused
    assert all(name == "vid_pred_vec" or ".encoder_attn" in name for name in unused)
    assert not any(name.startswith("cross_decoder") for name in unused)


def test_every_stage_of_inference_agrees(golden):
    model = build(golden).eval()
    clips, words = inputs_of(golden)
    proposals = model.search_proposals()
    windows = model.windows(proposals, clips.features.shape[1])
    seen: dict[str, Tensor] = {"gauss_weight": windows.expand(len(clips.features), -1, -1)}
    bias = model.video_bias(clips, windows[None])
    video = model.video_encoder.encoder
    states: list[Tensor] = []
    hooks = [video.layers[0].register_forward_hook(lambda module, args, out: states.append(out))]
    x = model.embed_clips(clips)[:, None]
    every_row = video(x, bias)
    seen["vid_layer0"] = states[0][:, ::5]
    seen["vid_summary"] = every_row[..., -1, :]
    # the pass that the model really runs computes the last row alone
    torch.testing.assert_close(
        video(x, bias, last_row_only=True)[..., 0, :], seen["vid_summary"], rtol=1e-5, atol=1e-5
    )
    text = model.text_encoder.encoder
    hooks.append(text.layers[0].register_forward_hook(lambda module, args, out: states.append(out)))
    states.clear()
    seen["txt_summary"] = text(model.embed_words(words)[:, None], key_bias(words.mask()))[:, 0, -1]
    seen["txt_layer0"] = states[0]
    for hook in hooks:
        hook.remove()
    golden.compare("mid/eval/", seen)


def test_inference_outputs_and_ranking_agree(golden):
    model = build(golden).eval()
    clips, words = inputs_of(golden)
    with torch.no_grad():
        video, text = model.encode_video(clips), model.encode_text(words)
        scores = (flat_concepts(video) @ flat_concepts(text)[..., None])[..., 0]
    proposals = model.search_proposals()
    batch = len(clips.features)
    ours = {
        "width": proposals.width.repeat(batch),
        "center": proposals.centre.repeat(batch),
        "pos_vid_concepts": video,
        "txt_concepts": text,
        "score": scores,
    }
    for name, found in ours.items():
        golden.same(f"out/eval/{name}", found)
    ranked = scores.sort(dim=1, descending=True).values.double().numpy()
    for row, listed in enumerate(golden.wanted("out/eval/ranked_segments")):
        # proposals that lie in the padding have one score, so that their order is left to chance
        order = proposals_of(listed, moments_of(proposals), scores[row].numpy())
        along = scores[row, order].double().numpy()
        np.testing.assert_allclose(along, ranked[row], rtol=0, atol=1e-4)
        np.testing.assert_allclose(listed, moments_of(proposals)[order], rtol=0, atol=1e-6)


def proposals_of(listed: np.ndarray, moments: np.ndarray, scores: np.ndarray) -> list[int]:
    """Which of the proposals each listed moment is; of several with one moment the best comes first.

    Args:
        listed: ``(P, 2)`` recorded moments, best first.
        moments: ``(P, 2)`` those of the proposals.
        scores: ``(P,)``.
    """
    left = list(range(len(moments)))
    order = []
    for moment in listed:
        distance = np.abs(moments[left] - moment).max(axis=1)
        nearest = [number for number, off in zip(left, distance, strict=True) if off <= distance.min() + 1e-6]
        order.append(max(nearest, key=lambda number: scores[number]))
        left.remove(order[-1])
    return order


def test_padding_of_queries_changes_nothing(golden):
    model = build(golden).eval()
    _, words = inputs_of(golden)
    with torch.no_grad():
        together = model.encode_text(words)
        for row, length in enumerate(words.lengths.tolist()):
            vectors = words.vectors[row : row + 1, [*range(length + 1), -1]]
            alone = model.encode_text(Words(vectors, words.lengths[row : row + 1]))
            torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-5)


def test_training_windows_and_masked_words_agree(golden):
    model = build(golden).train()
    run = train_pass(golden, model)
    _, words = inputs_of(golden)
    masked = torch.from_numpy(golden.given("in/masked_words")).bool()
    ours = {
        "masked_words_plain": model.masked_words(model.embed_words(words), masked),
        "gauss_weight": run.windows["positive"],
        "neg_weight_left": run.windows["left"],
        "neg_weight_right": run.windows["right"],
    }
    golden.compare("mid/train/", ours)


def test_training_outputs_agree(golden):
    model = build(golden).train()
    run = train_pass(golden, model)
    concepts, states = run.concepts, run.states
    ours = {
        "words_mask": run.mask,
        "width": run.proposals.width,
        "center": run.proposals.centre,
        "pos_vid_concepts": concepts["positive"],
        "neg_vid_concepts_1": concepts["left"],
        "neg_vid_concepts_2": concepts["right"],
        "ref_concept": concepts["reference"],
        "txt_concepts": concepts["text"],
        "words_logit": model.classifier(states["text"]),
        "pos_words_logit": model.classifier(states["positive"]),
        "neg_words_logit_1": model.classifier(states["left"]),
        "neg_words_logit_2": model.classifier(states["right"]),
        "ref_words_logit": model.classifier(states["reference"]),
    }
    golden.compare("out/train/", ours)


def test_losses_agree(golden):
    terms, config = terms_of(golden, build(golden).train()), loss_config(golden)
    contrast = {
        name: terms[f"contrast_{name}"] / config.alpha_1
        for name in ("left", "right", "reference")
        if f"contrast_{name}" in terms
    }

    def of(prefix: str) -> Tensor:
        return torch.stack([term for name, term in terms.items() if name.startswith(prefix)]).sum()

    nothing = torch.zeros(())
    ours = {
        "rec": of("reconstruction_"),
        "rec_txt_weighted": terms["reconstruction_text"],
        "rec_vid_weighted": terms["reconstruction_video"],
        "align": of("alignment_"),
        "align_mse": terms["alignment_distance"],
        "align_hinge_neg1": terms["alignment_left"],
        "align_hinge_neg2": terms["alignment_right"],
        "align_hinge_ref": terms.get("alignment_reference", nothing),
        "div": of("diversity_"),
        "div_vid": terms["diversity_video"],
        "div_txt": terms["diversity_text"],
        "rank_weighted": of("contrast_"),
        "rank_hinge_neg1": contrast["left"],
        "rank_hinge_neg2": contrast["right"],
        "rank_hinge_ref": contrast.get("reference", nothing),
        "total": terms["total"],
    }
    for name in golden.recorded("loss/"):
        if not name.endswith("_word_acc"):
            golden.same(f"loss/{name}", ours[name])


@pytest.mark.parametrize("side", ["txt", "vid"])
def test_shares_of_words_that_are_guessed_right_agree(golden, side):
    model = build(golden).train()
    run = train_pass(golden, model)
    # of the video's side all proposals count, not the best one alone
    logits = model.classifier(run.states["text" if side == "txt" else "positive"])
    targets = torch.from_numpy(golden.given("in/words_id"))
    targets, counts = (part[:, None].expand(logits.shape[:-1]) for part in (targets, run.mask))
    share_of_right_guesses(logits, targets, counts, float(golden.wanted(f"loss/{side}_word_acc")))


def test_the_loss_without_reference_passes_agrees(golden):
    terms = terms_of(golden, build(golden).train(), reference=False)
    golden.compare("loss_noref/", {"total": terms["total"]})


def test_gradients_agree(golden):
    model = build(golden).train()
    terms_of(golden, model)["total"].backward()
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in ours.values()), "a parameter takes part in nothing"
    norm = torch.nn.utils.get_total_norm(list(ours.values()))
    golden.same("grad_norm/global", norm, rtol=1e-3)
    for name, wanted in golden.recorded("grad/").items():
        known = NAMES.ours(name)  # what nothing depends on is not in our model
        found = np.zeros_like(wanted) if known is None else ours[known]
        golden.same(f"grad/{name}", found, **gradient_limits(wanted, norm.item()))


def test_metrics_of_the_released_evaluation_loop_agree(golden):
    recorded = golden.recorded("eval/loop/")
    point_scores_agree(
        golden.arrays["out/eval/ranked_segments"],
        golden.given("eval/gt_seconds").astype(np.float64),
        golden.given("eval/durations"),
        {name: float(golden.wanted(f"eval/loop/{name}")) for name in recorded},
    )


def test_metric_functions_agree_on_generated_predictions(golden):
    golden.recorded("eval/top")
    spans, truth = golden.given("eval/pred"), golden.given("eval/label")
    overlaps = iou(spans, truth[:, None], union="hull", eps=1e-10)
    # the released functions call an overlap of a window that ends before it starts nothing, too
    hull = np.maximum(spans[..., 1], truth[:, None, 1]) - np.minimum(spans[..., 0], truth[:, None, 0])
    overlaps = np.where(hull < -1e-5, 0.0, np.maximum(overlaps, 0.0))
    golden.same("eval/iou_top1", overlaps[:, 0], rtol=0, atol=1e-6)
    for name in golden.recorded("eval/top"):
        rank, what = name.split("/")
        best = best_at(overlaps, [int(rank)])[:, 0]
        if what == "mIoU":
            golden.same(f"eval/top{name}", best.mean(), rtol=0, atol=1e-6)
            continue
        threshold, share = float(what.removeprefix("IoU@")), float(golden.wanted(f"eval/top{name}"))
        # the recorded windows are rounded to float32
        least, most = (hits(best, threshold + by).mean() for by in (NEAR, -NEAR))
        assert least - NEAR <= share <= most + NEAR, name


def test_kept_clips_agree(golden):
    for clips in golden.recorded("data/keep_idx_"):
        assert kept_clips(int(clips)).tolist() == golden.wanted(f"data/keep_idx_{clips}").tolist()


def test_queries_become_the_recorded_batch(golden):
    recorded = {name: golden.wanted(f"data/out/{name}") for name in golden.recorded("data/out/")}
    about = golden.about["keys"]
    raw = golden.group("data/raw_feat/")
    wanted_vocabulary = about["data_keep_vocab"]
    vocabulary = Vocabulary.from_counts(about["data_counter"].items(), len(wanted_vocabulary))
    assert {word: vocabulary.id(word) for word in vocabulary.words} == wanted_vocabulary
    max_words, clips = recorded["words_id"].shape[1], recorded["frames_feat"].shape[1]
    rows = [0, *(about["data_words"].index(word) for word in vocabulary.words)]
    vectors = golden.given("data/word_vectors")[rows]
    queries, words = [], []
    for record, tagged in zip(about["data_records"], about["data_tokens_tags"], strict=True):
        queries.append(
            Query(
                id=record[0],
                video=record[0],
                text=record[3],
                duration=record[1],
                moments=[record[2]],
                glance=record[4],
            )
        )
        tokens, tags = zip(*tagged, strict=True)
        words.append(known_words(tokens, [tag_score(tag) for tag in tags], vocabulary, max_words))
    masks = [np.zeros(len(known), dtype=bool) for known in words]
    kept = {video: keep(features, clips) for video, features in raw.items()}
    batch = collate(queries, words, masks, kept, vectors, max_words, end_token=True)
    pooled = np.stack([pool(raw[query.video], clips) for query in queries])
    np.testing.assert_allclose(pooled, recorded["frames_feat"], rtol=1e-5, atol=1e-6)
    assert (recorded["frames_len"] == clips).all()
    assert batch.clips.mask.all()
    np.testing.assert_array_equal(
        batch.clips.features[batch.video_of], pooled[:, kept_clips(clips)].astype(np.float32)
    )
    places = batch.targets.shape[1]
    vectors_of_words = recorded["words_feat"].copy()
    for row, known in zip(vectors_of_words, words, strict=True):
        row[0] = row[len(known) + 1] = row[-1] = 0  # placeholders, which the model overwrites or never reads
    np.testing.assert_allclose(
        batch.words.vectors[:, : places + 1], vectors_of_words[:, : places + 1], rtol=1e-6
    )
    assert not vectors_of_words[:, places + 1 :].any()
    np.testing.assert_array_equal(batch.targets, recorded["words_id"][:, :places])
    assert not recorded["words_id"][:, places:].any()
    np.testing.assert_array_equal(batch.words.lengths, recorded["words_len"])
    np.testing.assert_allclose(batch.glance, recorded["glance"], rtol=1e-6)
    weights = np.zeros(recorded["weights"].shape, dtype=np.float32)
    for row, known in zip(weights, words, strict=True):
        row[: len(known)] = known.weights
    np.testing.assert_allclose(weights, recorded["weights"], rtol=1e-5)


def test_the_recorded_word_mask_is_one_that_is_drawn(golden):
    masked, weights = golden.given("in/masked_words"), golden.given("in/weights")
    for mask, weight, length in zip(masked, weights, golden.given("in/words_len").tolist(), strict=True):
        assert mask.sum() == max(length // 3, 1)
        assert not mask[0]
        assert weight[mask[1 : len(weight) + 1].astype(bool)].all()
        np.testing.assert_allclose(weight[:length].sum(), 1, rtol=1e-5)


def test_every_recorded_array_is_read_or_compared(golden, left_over):
    assert left_over(INPUTS) == []
