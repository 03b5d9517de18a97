"""RGNet against numbers measured on the released code: every recorded stage, loss, gradient, list and metric."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from rgnet import losses, ranking
from rgnet.config import LossConfig, ModelConfig, SearchConfig
from rgnet.inference import LongVideoSearch, TextVectors
from rgnet.matching import candidate_frames, matching_scores, moment_similarities, top_sum, unit_frames
from rgnet.model import Frames, Output, RGNet, Tokens
from rgnet.official import NAMES, from_official
from rgnet.windows import draw_probabilities, moment_rows, positive_windows, target_in, video_windows
from vmr_common import metrics
from vmr_common.protocols.presets import ego4d_nlq, mad
from vmr_common.query_features import QueryVectors, normalise
from vmr_common.records import Prediction, Query

PACKAGE = "rgnet"
TOLERANCE = {"rtol": 0, "atol": 1e-4}
ROUNDED = {"rtol": 0, "atol": 2e-4}  # rows that were rounded to four decimals


def sizes(golden) -> dict:
    return golden.about["config"]


def build(golden, *, released_mask: bool = True) -> RGNet:
    given = sizes(golden)
    released = golden.tensors("param/")
    crossing = {name.split(".")[3] for name in released if name.startswith("transformer.t2v_encoder.layers.")}
    assert given["n_input_proj"] == 2
    config = ModelConfig(
        hidden=given["hidden_dim"],
        heads=given["nheads"],
        inner=given["dim_feedforward"],
        cross_layers=len(crossing),
        self_layers=given["enc_layers"],
        decoder_layers=given["dec_layers"],
        queries=given["num_queries"],
        input_dropout=given["input_dropout"],
        dropout=given["dropout"],
        position_temperature=given["pos_temperature"],
        gate_temperature=given["gumbel_eps"],
        adapter=given["adapter_module"] == "linear",
    )
    model = RGNet(
        config,
        frame_dim=given["v_motion_feat_dim"],
        token_dim=given["t_feat_dim"],
        sentence_dim=given["v_appear_feat_dim"],
        released_mask=released_mask,
    )
    model.load_state_dict(from_official(released), strict=True)
    return model.eval()


def loss_config(golden, **changes) -> LossConfig:
    given, weights = sizes(golden), sizes(golden)["loss_weights"]
    values = {
        "span": weights["loss_span"],
        "giou": weights["loss_giou"],
        "label": weights["loss_label"],
        "saliency": weights["loss_saliency"],
        "retrieval": weights["loss_retrieval"],
        "adapter": weights["loss_adapter"],
        "background": given["eos_coef"],
        "margin": given["saliency_margin"],
        "temperature": given["temperature"],
    }
    matcher = given["matcher"]
    assert (matcher["span"], matcher["giou"], matcher["cls"]) == (
        values["span"],
        values["giou"],
        values["label"],
    )
    return LossConfig(**{**values, **changes})


def texts_of(given: dict[str, Tensor]) -> Tokens:
    return Tokens(given["src_txt"], given["src_txt_mask"].bool())


def windows_of(given: dict[str, Tensor], kind: str = "src_vid_motion") -> Frames:
    return Frames(given[kind], given[f"{kind}_mask"].bool())


def compare(golden, prefix: str, ours: dict[str, object], **tolerance: float) -> None:
    recorded = golden.group(prefix)
    assert recorded, f"the case holds nothing under {prefix}"
    assert not set(recorded) - set(ours), "recorded but not compared"
    for name, wanted in recorded.items():
        value = ours[name]
        found = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
        assert found.shape == wanted.shape, prefix + name
        np.testing.assert_allclose(found, wanted, **(tolerance or TOLERANCE), err_msg=prefix + name)


def test_no_recorded_key_is_left_uncompared(golden):
    compared = (
        "param/", "in/fwd/", "in/winret/", "in/negwin/", "mid/", "out/eval/", "out/eval_fixmask/", "out/winret/",
        "out/negwin/", "out/scratch/", "loss/winret/", "loss/finetune/", "loss/scratch/", "grad/winret/",
        "grad/finetune/", "grad/scratch/", "data/", "e2e/in/", "e2e/orig/", "e2e/clamp/", "e2e/fixed/", "eval/",
    )  # fmt: skip
    assert not [name for name in golden.arrays if not name.startswith(compared)]


def test_released_weights_load_by_name_with_nothing_missing_or_left_over(golden):
    build(golden)
    unused = {name for name in golden.group("param/") if NAMES.ours(name) is None}
    assert unused
    assert all(name.startswith(("saliency_proj.", "txt_position_embed.")) for name in unused)


# --- the forward pass --------------------------------------------------------------------------------------


def named(output: Output) -> dict[str, Tensor]:
    return {
        "pred_logits": output.logits[-1],
        "pred_spans": output.spans[-1],
        "retrieval_logit": output.retrieval[:, None],
        "saliency_scores": output.saliency,
        "selected": output.selected,
        "aux_logits": output.logits[:-1],
        "aux_spans": output.spans[:-1],
    }


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize(("prefix", "released"), [("out/eval/", True), ("out/eval_fixmask/", False)])
def test_outputs_agree_in_both_mask_modes(golden, prefix, released, gradients):
    given = golden.tensors("in/fwd/")
    with torch.set_grad_enabled(gradients):
        output = build(golden, released_mask=released)(texts_of(given), windows_of(given))
    ours = {**named(output), **matchings(golden, given)}
    compare(golden, prefix, ours)
    np.testing.assert_array_equal(output.selected.numpy(), golden.arrays[f"{prefix}selected"])


def matchings(golden, given: dict[str, Tensor]) -> dict[str, Tensor]:
    model, spans = build(golden), torch.from_numpy(golden.arrays["out/eval/pred_spans"])
    frames, lengths = given["src_vid_motion"], given["src_vid_motion_mask"].sum(1).long()
    sentence = given["src_cls_txt"] / given["src_cls_txt"].norm(dim=-1, keepdim=True)
    found = {}
    for name, adapter in (("matching", model.adapter), ("matching_no_adapter", None)):
        cosines = (unit_frames(frames, adapter) @ sentence[..., None])[..., 0]
        found[name] = top_sum(cosines, *candidate_frames(spans, lengths))  # into the padding
        found[f"{name}_clamped"] = matching_scores(cosines, spans, lengths)
    return found


def test_every_stage_of_the_forward_pass_agrees(golden):
    model, given = build(golden), golden.tensors("in/fwd/")
    texts, frames = texts_of(given), windows_of(given)
    batch, places = texts.mask.shape
    windows = model.read_windows(frames, shared=False)
    text = model.text_projection(texts.vectors)
    seen: dict[str, Tensor] = {
        "vid_proj": windows.x[:, 0],
        "txt_proj": text,
        "vid_pos": windows.positions[:, 0],
    }
    encoder, cross = model.encoder, []
    hooks = [
        layer.register_forward_hook(lambda m, a, out: cross.append(out[:, 0]))
        for layer in encoder.cross_layers
    ]
    encoded = encoder.encode(
        model.read_texts(texts), windows, words=model.pair_words(texts, frames, contrast=False)
    )

    def sequence(video: Tensor) -> Tensor:
        """As the released layers pass it on: the token, the frames and the words, position first."""
        token = encoder.token.expand(batch, 1, -1)
        return torch.cat([token, video, text], 1).transpose(0, 1)

    seen["t2v_layer0"], seen["t2v_out"] = sequence(cross[0]), sequence(cross[-1])
    first = encoder.with_token(cross[-1], windows, None)
    seen["sampler_logits"] = encoder.gate(first.states).transpose(0, 1)
    layer0 = encoder.self_layers[0]
    everything = (0, frames.mask.shape[1] + 1)
    seen["enc_layer0"] = layer0(
        first, *layer0.attention.keys_values(first.states, first.positions), *everything
    ).transpose(0, 1)
    last = encoder.self_layers[-1]
    whole = last(encoded, *last.attention.keys_values(encoded.states, encoded.positions), *everything)
    seen["encoder_out"] = whole.transpose(0, 1)
    summary = encoder.summarise(encoded)
    torch.testing.assert_close(summary, whole[:, 0], rtol=1e-5, atol=1e-5)
    memory = encoder.complete(encoded, summary)
    seen["memory_video"], seen["memory_global"] = memory, summary
    hooks.append(
        model.decoder.layers[0].register_forward_hook(
            lambda m, a, out: seen.update(dec_layer0=out.transpose(0, 1))
        )
    )
    decoded = model.decode(memory, encoded)
    seen["hs"], seen["refs"] = decoded.states, decoded.anchors
    for hook in hooks:
        hook.remove()
    compare(golden, "mid/", seen)
    assert places == text.shape[1]


# --- losses and gradients ----------------------------------------------------------------------------------


def targets_of(given: dict[str, Tensor]) -> losses.Targets:
    return losses.Targets(
        spans=given["target_spans"],
        frames=given["target_frames"].long(),
        inside=given["pos_frame"][:, 0].long(),
        outside=given["neg_frame"][:, 0].long(),
    )


def gate_draws(drawn: Tensor) -> Tensor:
    return drawn[..., 0].transpose(0, 1)


def layer_terms(
    output: Output, targets: losses.Targets, background: Tensor | None, config: LossConfig
) -> dict:
    """The unweighted terms under their recorded names."""
    found = {}
    last = len(output.logits) - 1
    for number, (logits, spans) in enumerate(zip(output.logits, output.spans, strict=True)):
        terms = losses.layer_loss(logits, spans, targets.spans, background, config)
        suffix = "" if number == last else f"_{number}"
        right = logits[torch.arange(len(logits)), terms.matched].argmax(-1) == 0
        found |= {
            f"loss_span{suffix}": terms.span,
            f"loss_giou{suffix}": terms.giou,
            f"loss_label{suffix}": terms.label,
            f"class_error{suffix}": 100 - 100 * right.float().mean(),
        }
    return found


def winret(golden) -> SimpleNamespace:
    model, given = build(golden).train(), golden.tensors("in/winret/")
    targets, config = targets_of(given), loss_config(golden, retrieval=sizes(golden)["retrieval_loss_coef"])
    output = model(
        texts_of(given), windows_of(given), contrast=True, uniform=gate_draws(given["gumbel_uniform"])
    )
    terms = losses.total(output, targets, None, None, config, masked_max=False)
    return SimpleNamespace(model=model, output=output, targets=targets, config=config, terms=terms)


def negative_window(golden, *, scratch: bool) -> SimpleNamespace:
    model, given = build(golden).train(), golden.tensors("in/negwin/")
    targets, texts, frames = targets_of(given), texts_of(given), windows_of(given)
    extra = sizes(golden)["scratch_weights"]
    config = loss_config(
        golden,
        retrieval=extra["loss_retrieval"] if scratch else 0,
        adapter=extra["loss_adapter"] if scratch else 0,
        negatives="window",
    )
    output = model(texts, frames, uniform=gate_draws(given["gumbel_uniform_pos"]))
    without = windows_of(given, "neg_vid_motion")
    negative = losses.Negative(
        model(texts, without, uniform=gate_draws(given["gumbel_uniform_neg"])), without.mask
    )
    similarity = None
    if scratch:
        similarity = moment_similarities(frames.features, given["src_cls_txt"], targets.frames, model.adapter)
    terms = losses.total(output, targets, negative, similarity, config, masked_max=False)
    return SimpleNamespace(
        model=model, output=output, negative=negative, targets=targets, config=config, terms=terms,
        similarity=similarity,
    )  # fmt: skip


def unweighted(run: SimpleNamespace, background: Tensor | None) -> dict[str, object]:
    config, terms = run.config, run.terms
    named_terms = {
        "loss_saliency": terms["saliency"] / config.saliency,
        "total": terms["total"],
        **layer_terms(run.output, run.targets, background, config),
    }
    if "retrieval" in terms:
        named_terms["loss_retrieval"] = terms["retrieval"] / config.retrieval
    if "adapter" in terms:
        named_terms["loss_adapter"] = terms["adapter"] / config.adapter
    return named_terms


def compare_gradients(golden, prefix: str, model: RGNet, total: Tensor) -> None:
    total.backward()
    ours = {
        name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    norm = torch.stack([gradient.norm() for gradient in ours.values()]).norm()
    recorded = golden.group(prefix)
    np.testing.assert_allclose(norm.item(), recorded.pop("__norm__"), rtol=1e-4)
    assert recorded
    for name, wanted in recorded.items():
        found = ours.get(NAMES.ours(name))
        found = np.zeros_like(wanted) if found is None else found.numpy()
        tolerance = 1e-4 * max(1.0, np.abs(wanted).max())
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance, err_msg=prefix + name)


def test_contrastive_outputs_losses_and_gradients_agree(golden):
    run = winret(golden)
    output = run.output
    matched = losses.match(output.logits[-1], output.spans[-1], run.targets.spans, run.config)
    ours = {
        "retrieval_matrix": output.retrieval,
        "selected": output.selected,
        "pred_spans": output.spans[-1],
        "saliency_scores": output.saliency,
        "matched_query": matched,
    }
    compare(golden, "out/winret/", ours)
    compare(golden, "loss/winret/", unweighted(run, None))
    compare_gradients(golden, "grad/winret/", run.model, run.terms["total"])


@pytest.mark.parametrize("recipe", ["finetune", "scratch"])
def test_negative_window_outputs_losses_and_gradients_agree(golden, recipe):
    run = negative_window(golden, scratch=recipe == "scratch")
    negative = run.negative.output
    ours = {
        "neg_saliency_scores": negative.saliency,
        "neg_pred_logits": negative.logits[-1],
        "pred_logits": run.output.logits[-1],
        "pred_spans": run.output.spans[-1],
    }
    compare(golden, "out/negwin/", ours)
    if run.similarity is not None:
        compare(golden, "out/scratch/", {"adapter_logits": run.similarity})
    compare(golden, f"loss/{recipe}/", unweighted(run, negative.logits[-1]))
    compare_gradients(golden, f"grad/{recipe}/", run.model, run.terms["total"])


# --- data --------------------------------------------------------------------------------------------------


def queries_of(golden) -> list[Query]:
    return [
        Query(
            id=row["query_id"], video=row["clip_id"], text=row["query"], duration=row["duration"],
            moments=[row["timestamps"]],
        )
        for row in sizes(golden)["annotations"]
    ]  # fmt: skip


def vectors_of(golden, query: Query) -> QueryVectors:
    tokens, sentence = (golden.arrays[f"e2e/in/{kind}/{query.id}"] for kind in ("tokens", "cls"))
    return normalise(QueryVectors(tokens, sentence), sizes(golden)["max_q_l"])


def test_windows_targets_draws_and_texts_agree(golden):
    window, seconds = sizes(golden)["max_v_l"], sizes(golden)["clip_length"]
    for number, query in enumerate(queries_of(golden)):
        features = golden.arrays[f"e2e/in/video/{query.video}"]
        windows = video_windows(len(features), window)
        start, end = moment_rows(query, len(features), seconds)
        numbers = positive_windows(start, end, window)
        rows = []
        for n in numbers.tolist():
            first, length = windows[n].tolist()
            target = target_in(start, end, n, first, length, window)
            rows.append([n, first, length, *target.span, *target.frames])
        vectors = vectors_of(golden, query)
        ours = {
            "query_feat": vectors.tokens,
            "query_cls": vectors.sentence,
            "first_window_first_frame": features[windows[numbers[0], 0]],
            "pos_windows": np.array(rows),
            "pos_prob": draw_probabilities(numbers),
            "neg_windows": np.setdiff1d(np.arange(len(windows)), numbers),
            "eval_windows": windows,
        }
        compare(golden, f"data/{number}/", ours)


# --- whole videos ------------------------------------------------------------------------------------------


def search_all(golden, *, released: bool) -> tuple[list[Query], list, SearchConfig]:
    given = sizes(golden)
    config = SearchConfig(
        windows=given["topk_window"],
        matching_by_retrieval=given["dset_name"] == "ego4d",
        before_nms=given["max_before_nms"],
        nms=given["nms_thd"],
        keep=given["max_after_nms"],
        pairs_at_once=5,
    )
    model = build(golden, released_mask=released)
    model.adapter = None  # recorded without
    search = LongVideoSearch(model, config, window=given["max_v_l"], seconds_per_row=given["clip_length"])
    queries = queries_of(golden)
    videos = {}
    for query in queries:
        features = torch.from_numpy(golden.arrays[f"e2e/in/video/{query.video}"])
        videos[query.video] = search.prepare(features, features)
    requests = []
    for query in queries:
        vectors = vectors_of(golden, query)
        requests.append(
            (
                videos[query.video],
                TextVectors(torch.from_numpy(vectors.tokens), torch.from_numpy(vectors.sentence)),
            )
        )
    size = given["eval_bsz"]
    batches = [requests[start : start + size] for start in range(0, len(requests), size)]
    return queries, [found for batch in batches for found in search.search(batch)], config


def ranked_by(column: int, found, config) -> np.ndarray:
    """The final list of a search as it would be by another score."""
    rows = np.concatenate([found.rows, ranking.fuse(found.rows)[:, None]], axis=1)
    kept, _ = ranking.rank(rows, by=column, limit=config.before_nms, threshold=config.nms, keep=config.keep)
    return kept


@pytest.mark.parametrize("mode", ["clamp", "fixed"])
def test_whole_videos_agree_from_features_to_metrics(golden, mode):
    queries, found, config = search_all(golden, released=mode == "clamp")
    recorded = golden.group(f"e2e/{mode}/")
    columns = {"fusion": ranking.FUSED, "proposal": ranking.PROPOSAL, "matching": ranking.MATCHING}
    predictions = []
    for query, one in zip(queries, found, strict=True):
        np.testing.assert_array_equal(one.order, recorded.pop(f"window_rank/{query.id}"))
        np.testing.assert_allclose(one.rows, recorded.pop(f"raw/{query.id}"), **ROUNDED)
        for name, column in columns.items():
            rows = ranked_by(column, one, config)
            np.testing.assert_allclose(rows, recorded.pop(f"{name}/{query.id}"), **ROUNDED, err_msg=name)
        rows, _ = one.ranked(config)
        predictions.append(
            Prediction(query=query.id, video=query.video, moments=rows[:, :2], scores=rows[:, ranking.FUSED])
        )
    scores = ego4d_nlq(ranks=(1, 5, 10)).score(queries, predictions).values
    table = [[scores[f"R@{k},IoU@{m:g}"] for k in (1, 5, 10)] for m in (0.3, 0.5)]
    np.testing.assert_array_equal(np.float32(table), recorded.pop("metric"))
    np.testing.assert_allclose(scores["R@1,mIoU"], recorded.pop("mIoU"), **TOLERANCE)
    np.testing.assert_array_equal(
        np.float32(recall_of_windows(golden, queries, [one.order for one in found])),
        recorded.pop("window_recall"),
    )
    assert not recorded, "recorded but not compared"


def recall_of_windows(
    golden, queries: list[Query], orders: list[np.ndarray], ranks=(1, 2, 3, 5)
) -> np.ndarray:
    width = max(map(len, orders))
    ranked = np.array([np.pad(order, (0, width - len(order)), constant_values=-1) for order in orders])
    positive = metrics.positive_windows(
        np.concatenate([query.moments for query in queries]),
        clip_length=sizes(golden)["clip_length"],
        window_clips=sizes(golden)["max_v_l"],
    )
    return metrics.window_recall(ranked, positive, ranks)


def test_what_is_a_number_in_the_unchanged_program_agrees(golden):
    # its matching scores are not numbers where a candidate reads past its window, which spoils its ranked lists
    queries, found, _ = search_all(golden, released=True)
    recorded = golden.group("e2e/orig/")
    for query, one in zip(queries, found, strict=True):
        np.testing.assert_array_equal(one.order, recorded[f"window_rank/{query.id}"])
        wanted = recorded[f"raw/{query.id}"]
        finite = np.isfinite(wanted)
        np.testing.assert_allclose(one.rows[finite], wanted[finite], **ROUNDED)
    assert np.isnan(np.concatenate([recorded[f"raw/{query.id}"] for query in queries])).any()
    np.testing.assert_array_equal(
        np.float32(recall_of_windows(golden, queries, [one.order for one in found])),
        recorded["window_recall"],
    )


# --- ranking and metrics on made-up predictions ------------------------------------------------------------


def test_fusion_suppression_and_metrics_agree_on_made_up_predictions(golden):
    recorded, given = golden.group("eval/"), sizes(golden)
    queries, predictions = [], []
    truth = recorded.pop("in/gt")
    for number, moment in enumerate(truth):
        rows = recorded.pop(f"in/pred_{number}").astype(np.float64)
        fused = ranking.fuse(rows)
        np.testing.assert_allclose(fused, recorded.pop(f"out/fused_score_{number}"), **TOLERANCE)
        rows = np.concatenate([rows, fused[:, None]], axis=1)
        lists = {}
        for name, keep in ((f"out/nms_{number}", given["max_after_nms"]), (f"out/nms5_{number}", 5)):
            lists[name], _ = ranking.rank(
                rows, by=ranking.FUSED, limit=given["max_before_nms"], threshold=given["nms_thd"], keep=keep
            )
            np.testing.assert_allclose(lists[name], recorded.pop(name), **TOLERANCE)
        kept = lists[f"out/nms_{number}"]
        query = Query(id=str(number), video="v", text="", duration=1e4, moments=[moment])
        queries.append(query)
        predictions.append(
            Prediction(query=query.id, video="v", moments=kept[:, :2], scores=kept[:, ranking.FUSED])
        )
    ranks = (1, 5, 10, 50, 100)
    scores = ego4d_nlq(ranks=ranks).score(queries, predictions).values
    table = [[scores[f"R@{k},IoU@{m:g}"] for k in ranks] for m in (0.3, 0.5)]
    np.testing.assert_array_equal(np.float32(table), recorded.pop("out/ego4d_recall"))
    np.testing.assert_allclose(scores["R@1,mIoU"], recorded.pop("out/ego4d_mIoU"), **TOLERANCE)
    scores = mad().score(queries, predictions).values
    table = [[scores[f"R@{k},IoU@{m:g}"] for m in (0.1, 0.3, 0.5)] for k in ranks]
    np.testing.assert_array_equal(np.float32(table), recorded.pop("out/mad_recall"))
    found = recall_of_windows(golden, queries, list(recorded.pop("in/window_rank")), (1, 2, 5, 10))
    np.testing.assert_array_equal(np.float32(found), recorded.pop("out/window_recall"))
    assert not recorded, "recorded but not compared"
