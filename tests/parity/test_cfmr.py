"""CFMR against numbers measured on the released code: every recorded stage, loss, gradient and metric."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from cfmr import losses
from cfmr.config import LossConfig, ModelConfig
from cfmr.data import collate, keep, kept_clips
from cfmr.losses import Nll
from cfmr.model import CFMR, Frames, Supervision, Words, flat_concepts
from cfmr.official import NAMES, from_official
from cfmr.task import rank
from judging import point_scores
from vmr_common.masked_queries import known_words
from vmr_common.metrics import best_at, hits, iou
from vmr_common.nn.attention import key_bias
from vmr_common.nn.gaussian import attention_log_weight, negative_progress
from vmr_common.nn.reconstruction import best_pass, reconstruction_nll
from vmr_common.pooling import pool
from vmr_common.records import Query
from vmr_common.text import Vocabulary, tag_score

PACKAGE = "cfmr"


def build(golden) -> CFMR:
    sizes = golden.about["config"]["cfg"]
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
        frame_dim=sizes["frames_input_size"],
        word_dim=sizes["words_input_size"],
        classes=sizes["vocab_size"],
        learned_summary=False,
    )
    released = golden.tensors("param/")
    model.load_state_dict(from_official(released), strict=True)
    return model


def loss_config(golden, *, reference: bool = True) -> LossConfig:
    values = dict(golden.about["config"]["loss"])
    contrast, alignment = values.pop("use_ref_words_rec"), values.pop("use_ref_words_sam")
    return LossConfig(
        **values, reference_contrast=contrast and reference, reference_alignment=alignment and reference
    )


def inputs_of(golden) -> tuple[Frames, Words]:
    given = golden.tensors("in/")
    rows = torch.from_numpy(kept_clips(given["frames_feat"].shape[1]))
    # the released mask counts one clip more than there are
    mask = rows < given["frames_len"][:, None] + 1
    return Frames(given["frames_feat"][:, rows], mask), Words(given["words_feat"], given["words_len"])


def train_pass(golden, model: CFMR, *, reference: bool = True) -> SimpleNamespace:
    """One training pass as the task runs it."""
    frames, words = inputs_of(golden)
    arrays = golden.tensors("in/")
    epochs = golden.about["config"]["cfg"]["max_epoch"]
    progress = negative_progress(golden.about["config"]["epoch"], epochs, model.config.gamma)
    config = loss_config(golden, reference=reference)
    supervision = Supervision(
        video_of=torch.arange(len(frames.features)),
        glance=arrays["glance"],
        masked=arrays["masked_words"].bool(),
        progress=torch.tensor(progress),
        reference=config.needs_reference,
    )
    output = model(frames, words, supervision)
    targets = arrays["words_id"]
    mask = torch.arange(targets.shape[1]) <= arrays["words_len"][:, None]

    def judge(states: Tensor) -> Tensor:
        return reconstruction_nll(states, model.classifier, targets, mask)

    states = output.states
    nll = Nll(
        text=judge(states.text)[:, 0],
        positive=judge(states.positive),
        left=judge(states.left),
        right=judge(states.right),
        reference=None if states.reference is None else judge(states.reference)[:, 0],
    )
    terms = losses.total(output.concepts, nll, config)
    return SimpleNamespace(output=output, nll=nll, terms=terms, mask=mask, targets=targets, config=config)


def test_released_weights_load_by_name_with_nothing_missing_or_left_over(golden):
    build(golden)
    unused = {name for name in golden.group("param/") if NAMES.ours(name) is None}
    assert unused
    assert all(name == "vid_pred_vec" or ".encoder_attn" in name for name in unused)
    assert not any(name.startswith("cross_decoder") for name in unused)


def test_every_stage_of_inference_agrees(golden):
    model = build(golden).eval()
    frames, words = inputs_of(golden)
    proposals = model.search_proposals()
    windows = model.windows(proposals, frames.features.shape[1])
    seen: dict[str, Tensor] = {"gauss_weight": windows.expand(len(frames.features), -1, -1)}
    bias = model.video_bias(frames, attention_log_weight(windows)[None])
    video = model.video_encoder.encoder
    states: list[Tensor] = []
    hooks = [video.layers[0].register_forward_hook(lambda module, args, out: states.append(out))]
    x = model.embed_frames(frames)[:, None]
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
    frames, words = inputs_of(golden)
    with torch.no_grad():
        video, text = model.encode_video(frames), model.encode_text(words)
        scores = (flat_concepts(video) @ flat_concepts(text)[..., None])[..., 0]
    proposals = model.search_proposals()
    ranked = rank(proposals, scores)
    batch = len(frames.features)
    ours = {
        "width": proposals.width.repeat(batch),
        "center": proposals.centre.repeat(batch),
        "pos_vid_concepts": video,
        "txt_concepts": text,
        "score": scores,
        "ranked_segments": torch.from_numpy(ranked.moments),
    }
    golden.compare("out/eval/", ours)


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
    masked = torch.from_numpy(golden.arrays["in/masked_words"]).bool()
    ours = {
        "masked_words_plain": model.masked_words(model.embed_words(words), masked),
        "gauss_weight": run.output.positive,
        "neg_weight_left": run.output.left,
        "neg_weight_right": run.output.right,
    }
    golden.compare("mid/train/", ours)


def test_training_outputs_agree(golden):
    model = build(golden).train()
    run = train_pass(golden, model)
    concepts, states = run.output.concepts, run.output.states
    ours = {
        "words_mask": run.mask,
        "width": run.output.proposals.width,
        "center": run.output.proposals.centre,
        "pos_vid_concepts": concepts.positive,
        "neg_vid_concepts_1": concepts.left,
        "neg_vid_concepts_2": concepts.right,
        "ref_concept": concepts.reference,
        "txt_concepts": concepts.text,
        "words_logit": model.classifier(states.text),
        "pos_words_logit": model.classifier(states.positive),
        "neg_words_logit_1": model.classifier(states.left),
        "neg_words_logit_2": model.classifier(states.right),
        "ref_words_logit": model.classifier(states.reference),
    }
    golden.compare("out/train/", ours)


def word_accuracy(model: CFMR, states: Tensor, run: SimpleNamespace) -> Tensor:
    right = (model.classifier(states).argmax(-1) == run.targets) & run.mask
    return right.sum() / run.mask.sum()


def test_losses_agree(golden):
    model = build(golden).train()
    run = train_pass(golden, model)
    terms, config, states = run.terms, run.config, run.output.states
    best = best_pass(run.nll.positive)[1]
    contrast = {name: terms[f"contrast_{name}"] for name in ("left", "right", "reference")}

    def of(prefix: str) -> Tensor:
        return torch.stack([term for name, term in terms.items() if name.startswith(prefix)]).sum()

    ours = {
        "rec": of("reconstruction_"),
        "rec_txt_weighted": terms["reconstruction_text"],
        "rec_vid_weighted": terms["reconstruction_video"],
        "align": of("alignment_"),
        "align_mse": terms["alignment_distance"],
        "align_hinge_neg1": terms["alignment_left"],
        "align_hinge_neg2": terms["alignment_right"],
        "align_hinge_ref": terms["alignment_reference"],
        "div": of("diversity_"),
        "div_vid": terms["diversity_video"],
        "div_txt": terms["diversity_text"],
        "rank_weighted": of("contrast_"),
        "rank_hinge_neg1": contrast["left"] / config.alpha_1,
        "rank_hinge_neg2": contrast["right"] / config.alpha_1,
        "rank_hinge_ref": contrast["reference"] / config.alpha_1,
        "total": terms["total"],
        "txt_word_acc": word_accuracy(model, states.text[:, 0], run),
        "vid_word_acc": word_accuracy(model, states.positive[torch.arange(len(best)), best], run),
    }
    golden.compare("loss/", ours)


def test_the_loss_without_reference_passes_agrees(golden):
    run = train_pass(golden, build(golden).train(), reference=False)
    assert run.output.concepts.reference is None
    golden.compare("loss_noref/", {"total": run.terms["total"]})


def test_gradients_agree(golden):
    model = build(golden).train()
    train_pass(golden, model).terms["total"].backward()
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in ours.values()), "a parameter takes part in nothing"
    norm = torch.stack([gradient.norm() for gradient in ours.values()]).norm()
    np.testing.assert_allclose(norm.item(), golden.arrays["grad_norm/global"], rtol=1e-3)
    recorded = golden.group("grad/")
    assert recorded
    for name, wanted in recorded.items():
        known = NAMES.ours(name)
        if known is None:  # not in our model, because nothing depends on it
            assert not wanted.any(), name
        else:
            found = ours[known].numpy()
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3 * np.abs(wanted).max(), err_msg=name)


def test_metrics_of_the_released_evaluation_loop_agree(golden):
    arrays = golden.arrays
    ours = point_scores(
        arrays["out/eval/ranked_segments"],
        arrays["eval/gt_seconds"].astype(np.float64),
        arrays["eval/durations"],
    )
    recorded = golden.group("eval/loop/")
    assert recorded
    for name, wanted in recorded.items():
        np.testing.assert_allclose(ours[name], wanted, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("rank_at", [1, 5])
def test_metric_functions_agree_on_made_up_predictions(golden, rank_at):
    spans, truth = golden.arrays["eval/pred"], golden.arrays["eval/label"]
    overlaps = iou(spans, truth[:, None], union="hull", eps=1e-10)
    # the released functions call an overlap of a window that ends before it starts nothing, too
    hull = np.maximum(spans[..., 1], truth[:, None, 1]) - np.minimum(spans[..., 0], truth[:, None, 0])
    overlaps = np.where(hull < -1e-5, 0.0, np.maximum(overlaps, 0.0))
    np.testing.assert_allclose(overlaps[:, 0], golden.arrays["eval/iou_top1"], atol=1e-6)
    best = best_at(overlaps, [rank_at])[:, 0]
    recorded = golden.group(f"eval/top{rank_at}/")
    assert recorded
    for name, wanted in recorded.items():
        found = best.mean() if name == "mIoU" else hits(best, float(name.removeprefix("IoU@"))).mean()
        np.testing.assert_allclose(found, wanted, atol=1e-6, err_msg=name)


def test_kept_clips_agree(golden):
    recorded = golden.group("data/keep_idx_")
    assert recorded
    for clips, wanted in recorded.items():
        assert kept_clips(int(clips)).tolist() == wanted.tolist()


def test_queries_become_the_recorded_batch(golden):
    about, recorded = golden.about["keys"], golden.group("data/out/")
    raw = golden.group("data/raw_feat/")
    wanted_vocabulary = about["data_keep_vocab"]
    vocabulary = Vocabulary.from_counts(about["data_counter"].items(), len(wanted_vocabulary))
    assert {word: vocabulary.id(word) for word in vocabulary.words} == wanted_vocabulary
    max_words, clips = recorded["words_id"].shape[1], recorded["frames_feat"].shape[1]
    rows = [0, *(about["data_words"].index(word) for word in vocabulary.words)]
    vectors = golden.arrays["data/word_vectors"][rows]
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
    assert batch.frames.mask.all()
    np.testing.assert_array_equal(
        batch.frames.features[batch.video_of], pooled[:, kept_clips(clips)].astype(np.float32)
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


def test_every_recorded_group_is_compared(golden):
    groups = {name.rpartition("/")[0] for name in golden.arrays}
    known = {"param", "in", "mid/eval", "mid/train", "out/eval", "out/train", "loss", "loss_noref", "grad"}
    known |= {"grad_norm", "eval", "eval/loop", "eval/top1", "eval/top5", "data", "data/raw_feat", "data/out"}
    assert groups <= known
