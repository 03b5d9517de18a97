"""RGNet against numbers measured on the released code: every recorded stage, loss, gradient, list and metric."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from judging import (
    Judged,
    agrees,
    best_first,
    gradient_limits,
    ranks_of,
    same_scores_along,
    share_of_right_guesses,
    stated,
)
from rgnet import losses, window_metrics
from rgnet.config import LossConfig, ModelConfig, SearchConfig
from rgnet.matching import candidate_frames, matching_scores, moment_similarities, top_sum, unit_frames
from rgnet.model import Frames, Output, RGNet, Tokens
from rgnet.official import NAMES, from_official
from rgnet.query_features.store import QueryVectors, normalise
from rgnet.search import ranking
from rgnet.search.result import SearchResult
from rgnet.search.search import LongVideoSearch, TextVectors
from rgnet.windows import draw_probabilities, moment_rows, target_in, video_windows, windows_of_moment
from vmr_common import metrics
from vmr_common.evaluation import Protocol, protocol
from vmr_common.types import Query

PACKAGE = "rgnet"
INPUTS = ("param/", "in/", "e2e/in/", "eval/in/")
ROUNDED = {"rtol": 0, "atol": 2e-4}  # rows that were rounded to four decimals
PROTOCOLS = {"ego4d": "ego4d-nlq", "mad": "mad"}
COLUMNS = {"fusion": ranking.FUSED, "proposal": ranking.PROPOSAL, "matching": ranking.MATCHING}


def sizes(golden) -> dict:
    return golden.config


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
        "adapter": weights.get("loss_adapter", 0),
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
    golden.compare(prefix, {**named(output), **matchings(golden, given)})


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
    seen["enc_layer0"] = encoder.self_layers[0](first).transpose(0, 1)
    whole = encoder.self_layers[-1](encoded)
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
    golden.compare("mid/", seen)
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
) -> dict[str, Tensor]:
    """The unweighted terms under their recorded names."""
    found = {}
    for suffix, logits, spans in layers(output):
        terms = losses.layer_losses(logits, spans, targets.spans, background, config)
        found |= {
            f"loss_span{suffix}": terms["span"] / config.span,
            f"loss_giou{suffix}": terms["giou"] / config.giou,
            f"loss_label{suffix}": terms["label"] / config.label,
        }
    return found


def layers(output: Output) -> list[tuple[str, Tensor, Tensor]]:
    """Suffix of the terms of each decoder layer, its logits and its spans; the last layer's suffix is empty."""
    endings = [*(f"_{number}" for number in range(len(output.logits) - 1)), ""]
    return list(zip(endings, output.logits, output.spans, strict=True))


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
        adapter=extra.get("loss_adapter", 0) if scratch else 0,
        negatives="window",
    )
    output = model(texts, frames, uniform=gate_draws(given["gumbel_uniform_pos"]))
    without = windows_of(given, "neg_vid_motion")
    negative = losses.Negative(
        model(texts, without, uniform=gate_draws(given["gumbel_uniform_neg"])), without.mask
    )
    similarity = None
    if scratch and model.adapter is not None:
        similarity = moment_similarities(frames.features, given["src_cls_txt"], targets.frames, model.adapter)
    terms = losses.total(output, targets, negative, similarity, config, masked_max=False)
    return SimpleNamespace(
        model=model, output=output, negative=negative, targets=targets, config=config, terms=terms,
        similarity=similarity,
    )  # fmt: skip


def losses_agree(golden, prefix: str, run: SimpleNamespace, background: Tensor | None) -> None:
    config, terms = run.config, run.terms
    ours = {
        "loss_saliency": terms["saliency"] / config.saliency,
        "total": terms["total"],
        **layer_terms(run.output, run.targets, background, config),
    }
    for name in ("retrieval", "adapter"):
        if name in terms:
            ours[f"loss_{name}"] = terms[name] / getattr(config, name)
    wrong = {f"class_error{suffix}": (logits, spans) for suffix, logits, spans in layers(run.output)}
    for name in golden.recorded(prefix):
        if name not in wrong:
            golden.same(prefix + name, ours[name])
            continue
        logits, spans = wrong[name]
        matched = losses.match(logits, spans, run.targets.spans, config)
        logits = logits[torch.arange(len(logits)), matched]
        foreground = torch.zeros(len(logits), dtype=torch.int64)
        right = 1 - float(golden.wanted(prefix + name)) / 100
        share_of_right_guesses(logits, foreground, foreground == 0, right)


def gradients_agree(golden, prefix: str, model: RGNet, total: Tensor) -> None:
    total.backward()
    ours = {
        name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    norm = torch.nn.utils.get_total_norm(list(ours.values()))
    golden.same(f"{prefix}__norm__", norm, rtol=1e-4)
    for name, wanted in golden.recorded(prefix).items():
        if name != "__norm__":
            found = ours.get(NAMES.ours(name), torch.zeros(wanted.shape))
            golden.same(prefix + name, found, **gradient_limits(wanted, norm.item()))


def matching_agrees(golden, name: str, run: SimpleNamespace) -> None:
    """The recorded candidates cost no more than any other, up to rounding."""
    logits, spans, config = run.output.logits[-1], run.output.spans[-1], run.config
    wanted = run.targets.spans[:, None]
    overlap = losses.generalised_iou(losses.to_edges(spans), losses.to_edges(wanted))
    cost = config.span * (spans - wanted).abs().sum(-1)
    cost = cost - config.giou * overlap - config.label * logits.softmax(-1)[..., 0]
    matched = torch.from_numpy(golden.wanted(name)).long()[:, None]
    torch.testing.assert_close(cost.gather(1, matched)[:, 0], cost.amin(1), rtol=0, atol=1e-4)
    assert torch.equal(losses.match(logits, spans, run.targets.spans, config), cost.argmin(1))


def test_contrastive_outputs_losses_and_gradients_agree(golden):
    golden.recorded("out/winret/")
    run = winret(golden)
    output = run.output
    ours = {
        "retrieval_matrix": output.retrieval,
        "selected": output.selected,
        "pred_spans": output.spans[-1],
        "saliency_scores": output.saliency,
    }
    for name in set(golden.recorded("out/winret/")) - {"matched_query"}:
        golden.same(f"out/winret/{name}", ours[name])
    matching_agrees(golden, "out/winret/matched_query", run)
    losses_agree(golden, "loss/winret/", run, None)
    gradients_agree(golden, "grad/winret/", run.model, run.terms["total"])


@pytest.mark.parametrize("recipe", ["finetune", "scratch"])
def test_negative_window_outputs_losses_and_gradients_agree(golden, recipe):
    golden.recorded(f"loss/{recipe}/")
    run = negative_window(golden, scratch=recipe == "scratch")
    negative = run.negative.output
    ours = {
        "neg_saliency_scores": negative.saliency,
        "neg_pred_logits": negative.logits[-1],
        "pred_logits": run.output.logits[-1],
        "pred_spans": run.output.spans[-1],
    }
    golden.compare("out/negwin/", ours)
    if run.similarity is not None and golden.holds("out/scratch/"):
        golden.compare("out/scratch/", {"adapter_logits": run.similarity})
    losses_agree(golden, f"loss/{recipe}/", run, negative.logits[-1])
    gradients_agree(golden, f"grad/{recipe}/", run.model, run.terms["total"])


# --- data --------------------------------------------------------------------------------------------------


def queries_of(golden) -> list[Query]:
    return [
        Query(
            id=row["query_id"], video=row.get("clip_id", row["video_id"]), text=row["query"], duration=row["duration"],
            moments=[row["timestamps"]],
        )
        for row in sizes(golden)["annotations"]
    ]  # fmt: skip


def vectors_of(golden, query: Query) -> QueryVectors:
    tokens, sentence = (golden.given(f"e2e/in/{kind}/{query.id}") for kind in ("tokens", "cls"))
    return normalise(QueryVectors(tokens, sentence), sizes(golden)["max_q_l"])


def test_windows_targets_draws_and_texts_agree(golden):
    window, seconds = sizes(golden)["max_v_l"], sizes(golden)["clip_length"]
    for number, query in enumerate(queries_of(golden)):
        features = golden.given(f"e2e/in/video/{query.video}")
        windows = video_windows(len(features), window)
        start, end = moment_rows(query, len(features), seconds)
        numbers = windows_of_moment(start, end, window)
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
        golden.compare(f"data/{number}/", ours)


# --- whole videos ------------------------------------------------------------------------------------------


def search_config(golden) -> SearchConfig:
    given = sizes(golden)
    return SearchConfig(
        windows=given["topk_window"],
        matching_by_retrieval=given["dset_name"] == "ego4d",
        pre_nms_top_k=given["max_before_nms"],
        nms=given["nms_thd"],
        post_nms_top_k=given["max_after_nms"],
        window_batch_size=5,
    )


def search_all(golden, *, released: bool) -> list[tuple[Query, SearchResult]]:
    given, config = sizes(golden), search_config(golden)
    model = build(golden, released_mask=released)
    model.adapter = None  # recorded without
    search = LongVideoSearch(model, config, window=given["max_v_l"], feature_stride=given["clip_length"])
    queries = queries_of(golden)
    videos = {}
    for query in queries:
        features = torch.from_numpy(golden.given(f"e2e/in/video/{query.video}"))
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
    found = [one for batch in batches for one in search.search(batch)]
    return list(zip(queries, found, strict=True))


MODES = ("clamp", "fixed", "orig")


@pytest.mark.parametrize("mode", MODES)
def test_candidates_of_whole_videos_agree(golden, mode):
    golden.recorded(f"e2e/{mode}/")
    for query, found in search_all(golden, released=mode != "fixed"):
        order = golden.wanted(f"e2e/{mode}/window_rank/{query.id}")
        same_scores_along(found.retrieval, found.order, order, 1e-5)
        raw = golden.wanted(f"e2e/{mode}/raw/{query.id}")
        candidates_agree(found, order[: len(set(found.row_windows.tolist()))], raw)


def candidates_agree(found: SearchResult, windows: np.ndarray, raw: np.ndarray) -> None:
    """Compares rows window by window, by falling proposal score; those of equal score may be exchanged.

    Where the unchanged program reads past a window, its matching score is not a number, and is left out.

    Args:
        found: Ours.
        windows: ``(K,)`` numbers of the best windows in the recorded order.
        raw: ``(K * Q, 4)`` recorded rows.
    """
    for window, block in zip(windows, np.split(raw.astype(np.float64), len(windows)), strict=True):
        left = found.rows[found.row_windows == window]
        if not len(left):  # not among our best ones
            worst = found.retrieval[found.row_windows[-1]]
            np.testing.assert_allclose(found.retrieval[window], worst, rtol=0, atol=1e-5)
            continue
        np.testing.assert_allclose(left[:, ranking.PROPOSAL], block[:, ranking.PROPOSAL], **ROUNDED)
        for row in block:
            known = np.isfinite(row)
            nearest = np.abs(left[:, known] - row[known]).max(axis=1).argmin()
            np.testing.assert_allclose(left[nearest, known], row[known], **ROUNDED)
            left = np.delete(left, nearest, axis=0)


@pytest.mark.parametrize("mode", MODES)
def test_lists_and_metrics_of_the_recorded_candidates_agree(golden, mode):
    golden.recorded(f"e2e/{mode}/")
    rules, config = protocol(PROTOCOLS.get(sizes(golden)["dset_name"], "ego4d-nlq")), search_config(golden)
    queries, lists, orders = queries_of(golden), [], []
    for query in queries:
        raw = golden.arrays[f"e2e/{mode}/raw/{query.id}"].astype(np.float64).round(ranking.DECIMALS)
        for name, column in COLUMNS.items():
            found = final_list(raw, column, config)
            golden.same(f"e2e/{mode}/{name}/{query.id}", found, rtol=1e-6, atol=1e-6)
        lists.append(golden.arrays[f"e2e/{mode}/fusion/{query.id}"])
        orders.append(golden.arrays[f"e2e/{mode}/window_rank/{query.id}"])
    truth = np.array([truth_of(golden, query) for query in queries])
    judged = best_first([rows[:, :2] for rows in lists], truth, np.full(len(queries), 1e6))
    recalls_agree(golden, f"e2e/{mode}/metric", rules, judged)
    if golden.holds(f"e2e/{mode}/mIoU"):
        agrees(rules, judged, {"R@1,mIoU": float(golden.wanted(f"e2e/{mode}/mIoU"))})
    window_recall_agrees(golden, f"e2e/{mode}/window_recall", queries, orders, (1, 2, 3, 5))


def final_list(raw: np.ndarray, column: int, config: SearchConfig) -> np.ndarray:
    """The final list of recorded rows ``(R, 4)``, ranked by a score."""
    if np.isnan(raw).any():
        return list_with_scores_that_are_no_numbers(raw, column, config)
    if column == ranking.FUSED:
        nothing = np.zeros(len(raw), dtype=np.int64)
        return SearchResult(nothing, nothing, raw, nothing, matched=True).ranked(config)[0]
    rows = np.concatenate([raw, ranking.fuse(raw)[:, None]], axis=1)
    kept, _ = ranking.rank(
        rows, by=column, limit=config.pre_nms_top_k, threshold=config.nms, keep=config.post_nms_top_k
    )
    return kept


def list_with_scores_that_are_no_numbers(raw: np.ndarray, column: int, config: SearchConfig) -> np.ndarray:
    """The list of the unchanged program: Python's min, max and sorted let them fall where they stand."""

    def spread(values: list[float]) -> np.ndarray:
        low, high = min(values), max(values)
        return np.array(values) if low == high else (np.array(values) - low) / (high - low)

    fused = spread(raw[:, ranking.PROPOSAL].tolist()) + spread(raw[:, ranking.MATCHING].tolist())
    rows = np.concatenate([raw, fused[:, None]], axis=1).tolist()
    distinct = {(row[0], row[1]): row for row in rows}
    best = sorted(distinct.values(), key=lambda row: row[column], reverse=True)[: config.pre_nms_top_k]
    kept = metrics.nms(
        np.array(best)[:, :2], config.nms, limit=config.post_nms_top_k, union="hull", empty=0.0
    )
    return np.array(best)[kept]


def truth_of(golden, query: Query) -> np.ndarray:
    """A query's moment as the evaluation reads it, in Ego4D from the challenge's own file."""
    for video in sizes(golden).get("ego4d_annotations", {}).get("videos", []):
        for clip in video["clips"]:
            for annotation in clip["annotations"]:
                for number, asked in enumerate(annotation["language_queries"]):
                    here = f"{annotation['annotation_uid']}_{number}" == query.id
                    if here and clip["clip_uid"] == query.video and asked["query"]:
                        return np.array([asked["clip_start_sec"], asked["clip_end_sec"]])
    return query.moments[0]


def recalls_agree(golden, name: str, rules: Protocol, judged: Judged) -> None:
    """Compares a table of recalls; which n and overlaps it holds, and which way round, the case says."""
    wanted, said = golden.wanted(name), golden.said(name)
    thresholds = stated(said, "IoU", default=rules.thresholds)
    ranks = ranks_of(stated(said, "R@", default=rules.ranks))
    by_rank = said.find("R@") < said.find("IoU")
    table = wanted.T if by_rank else wanted
    if table.shape != (len(thresholds), len(ranks)):
        # the case does not say: the table of its data set's released evaluation
        thresholds, table = rules.thresholds, wanted.T if rules.name == "mad" else wanted
        ranks = rules.ranks[: table.shape[1]]
    assert table.shape == (len(thresholds), len(ranks)), f"{name}: {wanted.shape}, {said}"
    recorded = {
        f"R@{n},IoU@{m:g}": float(table[row, column])
        for row, m in enumerate(thresholds)
        for column, n in enumerate(ranks)
    }
    agrees(rules, judged, recorded)


def window_recall_agrees(
    golden, name: str, queries: list[Query], orders: list[np.ndarray], ranks: tuple[int, ...]
) -> None:
    width = max(map(len, orders))
    ranked = np.array([np.pad(order, (0, width - len(order)), constant_values=-1) for order in orders])
    positive = window_metrics.positive_windows(
        np.concatenate([query.moments for query in queries]),
        clip_length=sizes(golden)["clip_length"],
        window_clips=sizes(golden)["max_v_l"],
    )
    ranks = ranks_of(stated(golden.said(name), "top", default=ranks))
    golden.same(name, window_metrics.window_recall(ranked, positive, ranks), rtol=0, atol=1e-6)


# --- ranking and metrics on synthetic predictions ------------------------------------------------------------


def test_fusion_suppression_and_metrics_agree_on_generated_predictions(golden):
    golden.recorded("eval/")
    given, config = sizes(golden), search_config(golden)
    truth, lists = golden.given("eval/in/gt"), []
    for number in range(len(truth)):
        rows = golden.given(f"eval/in/pred_{number}").astype(np.float64)
        fused = ranking.fuse(rows)
        golden.same(f"eval/out/fused_score_{number}", fused, rtol=0, atol=1e-6)
        rows = np.concatenate([rows, fused[:, None]], axis=1)
        for name in golden.recorded("eval/out/"):
            listed = re.fullmatch(rf"nms(\d*)_{number}", name)
            if listed is None:
                continue
            (threshold,) = stated(golden.said(f"eval/out/{name}"), "NMS", default=[config.nms])
            found, _ = ranking.rank(
                rows,
                by=ranking.FUSED,
                limit=config.pre_nms_top_k,
                threshold=threshold,
                keep=int(listed[1] or given["max_after_nms"]),
            )
            golden.same(f"eval/out/{name}", found, rtol=1e-6, atol=1e-6)
        lists.append(golden.arrays[f"eval/out/nms_{number}"][:, :2])
    judged = best_first(lists, truth, np.full(len(truth), 1e6))
    for name, preset in PROTOCOLS.items():
        if golden.holds(f"eval/out/{name}_recall"):
            recalls_agree(golden, f"eval/out/{name}_recall", protocol(preset), judged)
        if golden.holds(f"eval/out/{name}_mIoU"):
            mean = float(golden.wanted(f"eval/out/{name}_mIoU"))
            agrees(protocol(preset), judged, {"R@1,mIoU": mean})
    orders = list(golden.given("eval/in/window_rank"))
    window_recall_agrees(golden, "eval/out/window_recall", judged[0], orders, (1, 2, 5, 10))


def test_every_recorded_array_is_read_or_compared(golden, left_over):
    assert left_over(INPUTS) == []
