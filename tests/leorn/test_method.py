"""LEORN's method: predictions, batches, what is computed once, precision and memory."""

import dataclasses

import numpy as np
import pytest
import torch

from factories import WORDS, shake
from leorn.config import Config, DecodeConfig, LossConfig, ModelConfig, ReasoningConfig
from leorn.data import Dataset, Preprocessor
from leorn.inputs import VideoArrays
from leorn.method import LEORNMethod
from leorn.model import LEORN
from leorn.object_features.prepare import ObjectInputs
from leorn.reasoning import temporal_context_shift
from vmr_common.errors import UserError
from vmr_common.types import Query
from vmr_train.cli.config import bundled_config
from vmr_train.method import Progress
from vmr_train.word_lookup import WordLookup

FRAMES, OBJECTS, DIM, CLIP_DIM = 16, 3, 7, 5
PROGRESS = Progress(update=0, epoch=1, epochs=2)
SIZES = ModelConfig(
    hidden=16,
    heads=2,
    text_layers=1,
    blocks=2,
    feed_forward=24,
    reasoning=ReasoningConfig(shift=1),
    clips=8,
    scales=[4, 2],
    layers=2,
    kernel=3,
    dropout=0.0,
    box_dropout=0.0,
)


def make_video(number: int) -> VideoArrays:
    rng = np.random.default_rng(number)
    mask = rng.random((FRAMES, OBJECTS)) < 0.6
    mask[3] = False  # a frame without any object
    features = rng.normal(size=(FRAMES, OBJECTS, DIM)).astype(np.float32) * mask[..., None]
    boxes = rng.random((FRAMES, OBJECTS, 4)).astype(np.float32) * mask[..., None]
    return VideoArrays(
        ObjectInputs(features, mask, boxes), rng.normal(size=(FRAMES, CLIP_DIM)).astype(np.float32)
    )


VIDEOS = {f"v{n}": make_video(n) for n in range(4)}


def make_dataset(count: int = 9, *, clips: bool = False) -> Dataset:
    rng = np.random.default_rng(3)
    videos = {name: video if clips else video._replace(clips=None) for name, video in VIDEOS.items()}
    queries = [
        Query(
            id=str(n),
            video=f"v{n % 4}",
            text=" ".join(f"word{k}" for k in rng.integers(0, 34, size=rng.integers(1, 9))),
            duration=20.0,
            moments=[[2 + n % 3, 8 + n]],
        )
        for n in range(count)
    ]
    return Dataset(queries, videos, WordLookup(WORDS), clips=SIZES.clips)


def make_method(*, clips: bool = False, sizes: ModelConfig = SIZES) -> LEORNMethod:
    torch.manual_seed(0)
    model = LEORN(sizes, object_dim=DIM, word_dim=6, clip_dim=CLIP_DIM if clips else None)
    shake(model, 0.3)
    return LEORNMethod(model.eval(), LossConfig(), DecodeConfig(), Preprocessor(WORDS))


def logits(method: LEORNMethod, dataset: Dataset, indices: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return method.output(dataset.batch(indices, None)).logits


@pytest.mark.parametrize("clips", [False, True])
def test_scores_do_not_depend_on_the_rest_of_the_batch(clips):
    dataset = make_dataset(clips=clips)
    together = logits(make_method(clips=clips), dataset, list(range(9)))
    alone = torch.cat([logits(make_method(clips=clips), dataset, [n]) for n in range(9)], dim=1)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("quirks", ["released", "fixed"])
def test_certainty_ends_the_gradient_with_the_released_quirks_alone(quirks):
    config = bundled_config("leorn", Config, "shapes", "--quirks", quirks, "--data.objects.dim", str(DIM))
    method = LEORNMethod.build(dataclasses.replace(config, model=SIZES), Preprocessor(WORDS))
    batch, scorer = make_dataset().batch(list(range(9)), 1), method.model.scorer
    for logit, silent in ((20.0, quirks == "released"), (10.0, False)):
        with torch.no_grad():
            scorer.weight.zero_()
            scorer.bias.fill_(logit)
        scorer.bias.grad = None
        method.loss(batch, PROGRESS)["total"].backward()
        assert (scorer.bias.grad == 0).all() == silent


@pytest.mark.parametrize("clips", [False, True])
def test_evaluation_by_video_gives_the_numbers_of_a_plain_pass(clips):
    method, batch = make_method(clips=clips), make_dataset(clips=clips).batch(list(range(9)), None)
    with torch.no_grad():
        plain = method.model(batch.features, batch.video_of, batch.words).logits
        torch.testing.assert_close(method.output(batch).logits, plain, rtol=1e-5, atol=1e-5)


def test_each_video_is_encoded_once(monkeypatch):
    dataset, method = make_dataset(), make_method()
    seen: list[int] = []
    original = method.model.encode_video
    monkeypatch.setattr(
        method.model, "encode_video", lambda v, *a: seen.append(len(v.objects.mask)) or original(v, *a)
    )
    for start in range(0, 9, 2):
        logits(method, dataset, list(range(start, min(start + 2, 9))))
    assert sum(seen) == 4


@pytest.mark.parametrize("change", ["train", "load"])
def test_new_weights_encode_videos_anew(change):
    dataset, method = make_dataset(), make_method()
    before = logits(method, dataset, [0, 1])
    weights = {
        name: value + 0.2 if value.is_floating_point() else value
        for name, value in method.model.state_dict().items()
    }
    if change == "load":
        method.model.load_state_dict(weights)
    else:
        method.loss(dataset.batch([0, 1], 1), PROGRESS)
        with torch.no_grad():
            for name, tensor in method.model.state_dict().items():
                tensor.copy_(weights[name])
    after = logits(method, dataset, [0, 1])
    fresh = make_method()
    fresh.model.load_state_dict(weights)
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after, logits(fresh, dataset, [0, 1]), rtol=1e-5, atol=1e-5)


def test_predictions_are_suppressed_moments_inside_the_video_best_first():
    method = make_method()
    with torch.no_grad():
        found = method.predict(make_dataset().batch(list(range(9)), None))
    for prediction in found:
        assert 1 <= len(prediction.moments) <= 5
        assert (np.diff(prediction.scores) <= 0).all()
        assert ((prediction.scores > 0) & (prediction.scores < 1)).all()
        assert ((prediction.moments >= 0) & (prediction.moments <= 20)).all()


def test_queries_about_one_video_train_as_if_each_had_brought_its_own():
    dataset = make_dataset()
    batch = dataset.batch([0, 4, 8, 1], 1)
    assert batch.videos == ("v0", "v1")
    apart = dataclasses.replace(
        batch, features=batch.features.rows(batch.video_of), video_of=torch.arange(4), videos=tuple("abcd")
    )
    found = []
    for given in (batch, apart):
        method = make_method()
        method.model.train()
        loss = method.loss(given, PROGRESS)["total"]
        loss.backward()
        found.append(
            (
                loss,
                {n: p.grad for n, p in method.model.named_parameters()},
                dict(method.model.named_buffers()),
            )
        )
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


SWITCHES = ["language", "self_attention", "attentive_pool", "boxes", "sentinel"]


@pytest.mark.parametrize("switch", [None, *SWITCHES])
def test_every_parameter_takes_part_in_the_loss_whatever_is_switched_off(switch):
    parts = ReasoningConfig(shift=1, **({} if switch is None else {switch: False}))
    method = make_method(clips=True, sizes=dataclasses.replace(SIZES, reasoning=parts))
    method.model.train()
    method.loss(make_dataset(clips=True).batch(list(range(9)), 1), PROGRESS)["total"].backward()
    assert [n for n, p in method.model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in method.model.parameters())
    with torch.no_grad():
        attention = method.attention(make_dataset(clips=True).batch([0], None))
    assert attention.shape == (1, FRAMES, OBJECTS + (switch != "sentinel"))
    # a frame without objects: all on the sentinel, or nothing at all
    assert attention[0, 3].sum() == pytest.approx(float(switch != "sentinel"))


def test_boxes_order_and_absent_objects_matter_as_they_should():
    dataset, method = make_dataset(), make_method()
    batch = dataset.batch([0], None)
    objects = batch.features.objects
    wanted = logits(method, dataset, [0])
    order = torch.tensor([2, 0, 1])
    turned = dataclasses.replace(
        objects,
        features=objects.features[:, :, order],
        mask=objects.mask[:, :, order],
        boxes=objects.boxes[:, :, order],
    )
    garbage = dataclasses.replace(
        objects, features=torch.where(objects.mask[..., None], objects.features, 9.0)
    )
    moved = dataclasses.replace(objects, boxes=objects.boxes * 0.5)
    with torch.no_grad():
        for changed, same in ((turned, True), (garbage, True), (moved, False)):
            videos = dataclasses.replace(batch.features, objects=changed)
            found = method.model(videos, batch.video_of, batch.words).logits
            assert torch.allclose(found, wanted, atol=1e-5) == same


def test_recomputing_gives_the_same_gradients_and_statistics_with_dropout():
    batch, found = make_dataset().batch(list(range(9)), 1), []
    for recompute in (False, True):
        sizes = dataclasses.replace(SIZES, dropout=0.3, box_dropout=0.2, recompute=recompute)
        method = make_method(sizes=sizes)
        method.model.train()
        torch.manual_seed(5)
        method.loss(batch, PROGRESS)["total"].backward()
        found.append(
            ({n: p.grad for n, p in method.model.named_parameters()}, dict(method.model.named_buffers()))
        )
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-7)


def test_it_trains_and_predicts_in_bf16():
    method, batch = make_method(clips=True), make_dataset(clips=True).batch(list(range(9)), 1)
    with torch.no_grad():
        exact = method.output(batch).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        method.model.train()
        loss = method.loss(batch, PROGRESS)["total"]
        loss.backward()
        method.model.eval()
        with torch.no_grad():
            assert len(method.predict(batch)) == 9
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in method.model.parameters())
    method = make_method(clips=True)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rough = method.output(batch).logits.float()
    assert (rough - exact).norm() < 0.1 * exact.norm()


def test_the_shift_takes_a_quarter_from_before_and_one_from_after():
    frames = torch.arange(1.0, 6.0)[None, :, None].expand(1, 5, 9)  # frame f holds f + 1
    moved = temporal_context_shift(frames, 2)[0]
    assert moved[:, :2].T.tolist() == [[0, 0, 1, 2, 3]] * 2
    assert moved[:, 2:4].T.tolist() == [[3, 4, 5, 0, 0]] * 2
    assert moved[:, 4:].T.tolist() == [[1, 2, 3, 4, 5]] * 5
    torch.testing.assert_close(temporal_context_shift(frames, 0), frames)
    assert temporal_context_shift(frames, 9)[0, :, :4].abs().max() == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden": 30, "heads": 4}, "model.hidden"),
        ({"kernel": 4}, "model.kernel"),
        ({"clips": 16, "scales": [20]}, "do not fit a map of 16 clips"),
        ({"dropout": 1.0}, "model.dropout"),
    ],
)
def test_sizes_that_cannot_work_are_refused_by_name(values, message):
    with pytest.raises(UserError, match=message):
        ModelConfig(**values)
