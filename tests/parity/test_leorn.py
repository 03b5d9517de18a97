"""LEORN against numbers measured on the released code: every recorded stage, loss, gradient, batch and metric."""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from judging import map_batch, map_scores, ranked
from leorn import losses
from leorn.config import ModelConfig, ReasoningConfig
from leorn.data import VideoArrays, stack
from leorn.model import LEORN, Videos
from leorn.objects import Objects
from leorn.official import from_official
from leorn.task import LEORNTask
from vmr_common.annotations import read_annotations, read_durations
from vmr_common.map_decoding import DecodeConfig
from vmr_common.metrics import iou, map_overlaps, nms
from vmr_common.nn.map_loss import MapLossConfig, scaled_iou
from vmr_common.objects import ObjectStore, PreparedObjects
from vmr_common.pooling import pool, unit_rows
from vmr_common.records import Query
from vmr_common.text import WordLookup, WordVectors, plain_words
from vmr_common.training import OptimConfig, build_optimizer
from vmr_common.training.map_supervised import MapExamples, MapInputs, QueryWords

PACKAGE = "leorn"
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
GROUPS = ("param/", "in/", "mid/", "out/", "loss/", "grad/", "bn_after/", "opt/", "eval/", "data/")
DATASETS = {"charades": 0.1, "charades_two_stream": 0.1, "tacos": 0.0, "tacos_two_stream": 0.0}


def build(golden, **options) -> LEORN:
    given = golden.about["config"]
    config = ModelConfig(
        hidden=given["hidden"],
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


def loss_config(golden) -> MapLossConfig:
    given = golden.about["config"]
    return MapLossConfig(min_iou=given["min_iou"], max_iou=given["max_iou"])


def inputs_of(golden) -> tuple[Videos, Tensor, QueryWords]:
    given = golden.tensors("in/")
    lengths = given["text_mask"].sum(dim=(1, 2)).long()
    assert lengths.tolist() == golden.about["config"]["text_lengths"]
    objects = Objects(given["object"], given["object_mask"], given["object_box"])
    videos = Videos(objects, given.get("clip"))
    return videos, torch.arange(len(lengths)), QueryWords(given["text"], lengths)


def task_of(golden, model: LEORN) -> LEORNTask:
    nothing = MapInputs(WordVectors((), np.zeros((0, 1), np.float32)))
    return LEORNTask(model, loss_config(golden), DecodeConfig(), nothing)


def train_pass(golden, model: LEORN) -> SimpleNamespace:
    output = model(*inputs_of(golden))
    overlaps = model.map.gather(torch.from_numpy(golden.arrays["in/iou_map"])[:, 0])
    return SimpleNamespace(
        output=output, terms=losses.total(output.logits, overlaps, loss_config(golden), released=True)
    )


def ours_of(golden, prefix: str, ours: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Recorded tensors below `prefix` in our names and shapes, each beside ours."""
    recorded = from_official(golden.tensors(prefix))
    assert recorded
    assert len(recorded) == len(golden.group(prefix)), "recorded but not compared"
    return {name: (ours[name].detach(), wanted) for name, wanted in recorded.items()}


def test_every_group_of_recorded_numbers_is_known(golden):
    assert not [name for name in golden.arrays if not name.startswith(GROUPS)]


def test_released_weights_load_by_name_with_nothing_missing_or_left_over(golden):
    model = build(golden)
    prefixed = {f"module.{name}": value for name, value in golden.tensors("param/").items()}
    assert set(from_official(prefixed)) == set(model.state_dict())


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
    seen["map_feature"] = model.map.scatter(seen.pop("fusion_input"))
    fused = seen.pop("fused")
    seen["fused_map"] = model.map.scatter(fused)
    network = model.map_network
    rows = network.layers(fused, network.training_reach)
    last = network.training_reach.plans[-1]
    seen["map_conv_out"] = last.full_outputs(rows)
    query = model.text(words)
    seen["text_words"] = model.text.words(words)
    seen["text_sentence"], seen["text_relational"] = query
    seen["object_linear"] = model.objects.project(videos.objects)
    return seen


def test_every_intermediate_stage_agrees(golden):
    with torch.no_grad():
        seen = stages(golden, build(golden).eval())
    attention = seen.pop("pooled")
    golden.compare("mid/", seen)
    if "out/object_attention" in golden.arrays:
        np.testing.assert_allclose(attention, golden.arrays["out/object_attention"], **TOLERANCE)


def test_a_map_layer_computes_the_same_where_evaluation_stops_early(golden):
    model = build(golden).eval()
    with torch.no_grad():
        network = model.map_network
        rows = torch.rand(model.map.size, 2, model.config.hidden)
        everywhere = network.layers(rows, network.training_reach)[network.cells_of_live]
        torch.testing.assert_close(network(rows), everywhere, rtol=1e-5, atol=1e-5)


def test_inference_outputs_and_losses_agree(golden):
    model, arrays = build(golden).eval(), golden.arrays
    with torch.no_grad():
        run = train_pass(golden, model)
        trained = train_pass(golden, build(golden).train())
    prediction, cells, config = model.map.scatter(run.output.logits), model.map.cells, loss_config(golden)
    target = scaled_iou(torch.from_numpy(arrays["in/iou_map"]), config.min_iou, config.max_iou)
    durations = arrays["in/duration"]
    ours = {
        "prediction": prediction,
        "prediction_train": model.map.scatter(trained.output.logits),
        "map_mask": cells.float().expand_as(prediction),
        "score": prediction.sigmoid() * cells,
        "target": target * cells,
        "object_attention": arrays.get("out/object_attention"),  # compared among the stages
        "top_times": ranked(cells.numpy(), (prediction.sigmoid() * cells).numpy(), durations, 10, 1.0),
    }
    golden.compare("out/", ours)
    golden.compare("loss/", {"eval_mode": run.terms["total"], "total": trained.terms["total"]})


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_statistics_and_one_update_agree(golden, recompute):
    model = build(golden, recompute=recompute).train()
    train_pass(golden, model).terms["total"].backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values()), "a parameter takes part in nothing"
    for name, (found, wanted) in ours_of(golden, "grad/", gradients).items():
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3 * wanted.abs().max().item(), err_msg=name)
    for name, (found, wanted) in ours_of(golden, "bn_after/", dict(model.named_buffers())).items():
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6, err_msg=name)
    norm = torch.nn.utils.get_total_norm(list(gradients.values()))
    np.testing.assert_allclose(norm, golden.arrays["opt/grad_norm"], rtol=1e-4)

    for gradient in gradients.values():
        gradient.mul_(1000)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    build_optimizer(model, OptimConfig(lr=1e-3)).step()
    compared = 1
    for prefix, ours in (
        ("opt/clipped_grad/", gradients),
        ("opt/after_step/", dict(model.named_parameters())),
    ):
        for name, (found, wanted) in ours_of(golden, prefix, ours).items():
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5, err_msg=name)
            compared += 1
    assert compared == len(golden.group("opt/")), "recorded but not compared"


def metrics(moments: np.ndarray, truth: np.ndarray, durations: np.ndarray) -> dict[str, np.ndarray]:
    recall, mean = map_scores(moments, truth, durations, thresholds=(0.1, 0.3, 0.5, 0.7), nms=0.5)
    return {"recall": recall, "miou": mean}


def test_ranking_suppression_and_metrics_agree(golden):
    recorded = golden.group("eval/")
    if not recorded:
        pytest.skip("this case holds no predictions to judge")
    scores, durations, truth = (recorded.pop(name) for name in ("score", "duration", "gt"))
    cells = scores[0, 0] > 0
    assert (cells == (scores[:, 0] > 0)).all()
    every = ranked(cells, scores[:, 0], durations, int(cells.sum()), 1.0)
    np.testing.assert_allclose(every, recorded.pop("sorted_times"), rtol=1e-6, atol=1e-5)
    kept = ranked(cells, scores[:, 0], durations, 5, 0.5)
    np.testing.assert_allclose(kept, recorded.pop("nms"), rtol=1e-6, atol=1e-5)
    pairs = iou(recorded.pop("iou_pred")[:, None], recorded.pop("iou_gt")[None], union="hull")
    candidates = recorded.pop("nms_in")
    order = nms(candidates, 0.5)
    ours = {
        **metrics(kept, truth, durations),
        "iou": pairs,
        "nms_out": candidates[order],
        # one query whose first candidate overlaps by exactly one half
        **{
            f"strict_{name}": value
            for name, value in metrics(
                np.array([[[0.0, 5.0]]]), np.array([[0.0, 10.0]]), np.array([100.0])
            ).items()
        },
    }
    assert set(recorded) == set(ours), "recorded but not compared"
    for name, wanted in recorded.items():
        np.testing.assert_allclose(ours[name], wanted, atol=1e-6, err_msg=name)


def test_the_task_predicts_what_was_recorded(golden):
    model, arrays = build(golden).eval(), golden.arrays
    durations = arrays["in/duration"]
    with torch.no_grad():
        found = task_of(golden, model).predict(map_batch(durations, *inputs_of(golden)))
    wanted = ranked(model.map.cells.numpy(), arrays["out/score"][:, 0], durations, 5, 0.5)
    for prediction, moments in zip(found, wanted, strict=True):
        np.testing.assert_allclose(prediction.moments, moments, rtol=1e-6, atol=1e-5)


def test_the_recorded_targets_are_the_overlaps_of_the_recorded_moments(golden):
    arrays = golden.arrays
    size = arrays["in/iou_map"].shape[-1]
    above = np.triu(np.ones((size, size), dtype=bool))  # below the diagonal nothing has a meaning
    for moment, duration, wanted in zip(
        arrays["in/gt"], arrays["in/duration"], arrays["in/iou_map"], strict=True
    ):
        found = map_overlaps(moment, duration, size)
        np.testing.assert_allclose(found[above], wanted[0][above], atol=1e-6)


def records_of(golden, dataset: str, folder) -> list[Query]:
    """The made-up annotation files of a data set, read as its registered split is."""
    arrays = golden.arrays
    if dataset.startswith("tacos"):
        (folder / "train.json").write_text(str(arrays["data/tacos_json"]))
        return read_annotations(folder / "train.json", "tacos", policy="drop-then-cut").queries
    (folder / "train.txt").write_text("\n".join(arrays["data/charades_lines"].tolist()) + "\n")
    rows = [row.split() for row in arrays["data/charades_durations"].tolist()]
    (folder / "train.csv").write_text("id,length\n" + "".join(f"{name},{length}\n" for name, length in rows))
    table = read_durations(folder / "train.csv")
    return read_annotations(
        folder / "train.txt", "charades-sta", durations=table, policy="cut-then-drop"
    ).queries


@pytest.mark.parametrize("dataset", DATASETS)
def test_files_become_the_recorded_batch(golden, dataset, tmp_path):
    shared = golden.group("data/")
    recorded = golden.group(f"data/{dataset}/")
    if not recorded:
        pytest.skip("this case holds no such files")
    other = tuple(f"{name}/" for name in DATASETS)
    inputs = {"glove_words", "glove_vectors", "charades_lines", "charades_durations", "tacos_json"}
    raw = ("object_raw/", "clip_raw/")
    assert all(name in inputs or name.startswith((*other, *raw)) for name in shared), (
        "recorded but not compared"
    )

    path = tmp_path / "objects.h5"
    with h5py.File(path, "w") as file:
        for name, values in golden.group("data/object_raw/").items():
            file[name] = values
    slots = recorded["object_mask"].shape[-1]
    objects = PreparedObjects(ObjectStore(path, objects=slots), frames=None, threshold=DATASETS[dataset])
    clips = {}
    if "clip" in recorded:
        length = recorded["clip"].shape[1]
        clips = {n: pool(unit_rows(rows), length) for n, rows in golden.group("data/clip_raw/").items()}

    class Sources:
        def __getitem__(self, video: str) -> VideoArrays:
            return VideoArrays(objects[video], clips.get(video))

    words = WordVectors(tuple(shared["glove_words"].tolist()), shared["glove_vectors"])
    queries = records_of(golden, dataset, tmp_path)
    batch = MapExamples(
        queries,
        Sources(),
        WordLookup(words),
        lambda text: plain_words(text, drop_full_stop=dataset.startswith("charades")),
        clips=recorded["iou_map"].shape[-1],
        stack=stack,
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
    above = np.triu(np.ones(recorded["iou_map"].shape[-2:], dtype=bool))
    assert not set(recorded) - set(ours), "recorded but not compared"
    for name, wanted in recorded.items():
        value = np.asarray(ours[name]).reshape(wanted.shape)
        if name == "iou_map":  # below the diagonal nothing has a meaning
            value, wanted = value[..., above], wanted[..., above]
        np.testing.assert_allclose(value, wanted, **TOLERANCE, err_msg=name)
