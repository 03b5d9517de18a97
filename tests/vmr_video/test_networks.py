"""Networks against straight calls of the libraries that they come from, and against PIL's pictures."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

import tiny_networks
from videos import pictures, write_video
from vmr_common.errors import UserError
from vmr_video.extractor import FEATURES, Extractor, ExtractorOptions, kind_of, kinds
from vmr_video.frames import frames
from vmr_video.networks.presets import CLIP_DEVIATION, CLIP_MEAN, PRESETS
from vmr_video.pipeline import extract
from vmr_video.scaling import scaled_size

pytestmark = pytest.mark.e2e  # real decoders, engines or processes


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("film") / "film.mp4", pictures(40, 96, 64))


def loaded(name: str, folder: Path, **options) -> Extractor:
    return kind_of(name).load(ExtractorOptions(weights=str(folder), **options))


def rows_of(extractor: Extractor, path: Path, **options) -> np.ndarray:
    (found,) = extract(extractor, [("film", path)], workers=0, **options)
    return found.rows[FEATURES]


def seen(extractor: Extractor, path: Path) -> np.ndarray:
    """The pictures of the recipe, ``(n, H, W, 3)``."""
    return np.concatenate(list(frames(path, extractor.recipe)))


def test_clip_is_a_straight_call_on_pictures_that_its_processor_made(film, tmp_path):
    folder = tiny_networks.clip(tmp_path / "clip")
    extractor = loaded("clip-vit-b32", folder, fps=5)
    taken = seen(extractor, film)
    assert taken.shape == (20, 32, 32, 3)
    # pictures that have the network's size already pass the processor's scaling unchanged
    processor = hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    inputs = processor([Image.fromarray(one) for one in taken], return_tensors="pt")
    whole = hf.CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = whole.get_image_features(**inputs).pooler_output
    assert np.abs(rows_of(extractor, film, batch=7) - expected.numpy()).max() < 1e-5
    # and by numbers alone
    by_hand = (taken / 255 - np.array(CLIP_MEAN)) / np.array(CLIP_DEVIATION)
    assert np.abs(by_hand.transpose(0, 3, 1, 2) - inputs["pixel_values"].numpy()).max() < 1e-5

    unit = rows_of(loaded("clip-vit-b32", folder, fps=5, normalise=True), film)
    assert np.allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)


def test_scaling_is_that_of_pil_within_a_grey_level(tmp_path):
    """Of smooth pictures: the two programs' filters differ a little."""
    y, x = np.mgrid[:240, :320]
    smooth = np.stack([x / 320, y / 240, 0.5 + np.sin(x / 60 + y / 80) / 2], axis=-1) * 255
    drawn = [smooth.astype(np.uint8), smooth[::-1].astype(np.uint8)]
    path = write_video(tmp_path / "big.mkv", drawn, codec="ffv1", pixels="bgr0", rate=1)
    extractor = loaded("clip-vit-b32", tiny_networks.clip(tmp_path / "clip"))
    size = extractor.recipe.size
    for ours, picture in zip(seen(extractor, path), drawn, strict=True):
        scaled = Image.fromarray(picture).resize(
            scaled_size(320, 240, extractor.recipe), Image.Resampling.BICUBIC
        )
        left = (scaled.width - size) // 2
        theirs = np.asarray(scaled.crop((left, 0, left + size, size)), np.int64)
        assert np.abs(ours - theirs).max() <= 1


STRAIGHT = {
    "siglip2-b16": (tiny_networks.siglip, hf.SiglipVisionModel, lambda model, x: model(x).pooler_output),
    "dinov2-b14": (tiny_networks.dinov2, hf.Dinov2Model, lambda model, x: model(x).last_hidden_state[:, 0]),
    "dinov3-b16": (
        tiny_networks.dinov3,
        hf.DINOv3ViTModel,
        lambda model, x: model(x).last_hidden_state[:, 0],
    ),
    "videomae-b16": (
        tiny_networks.videomae,
        hf.VideoMAEModel,
        lambda model, x: model(x).last_hidden_state.mean(1),
    ),
    "vjepa2-l16": (
        tiny_networks.vjepa2,
        hf.VJEPA2Model,
        lambda model, x: model.get_vision_features(x).mean(1),
    ),
}


@pytest.mark.parametrize("name", STRAIGHT)
def test_rows_are_those_of_a_straight_call(name, film, tmp_path):
    build, kind, call = STRAIGHT[name]
    folder = build(tmp_path / name)
    preset = next(preset for preset in PRESETS if preset.name == name)
    extractor = loaded(name, folder, fps=4)
    taken, side = seen(extractor, film), preset.size or 32
    edge = (taken.shape[1] - side) // 2
    cut = taken[:, edge : edge + side, edge : edge + side] / 255
    pixels = (
        torch.from_numpy((cut - np.array(preset.mean)) / np.array(preset.deviation))
        .float()
        .permute(0, 3, 1, 2)
    )
    if preset.of_clips:  # rows of one second, 4 frames; the first window begins at the first row
        assert extractor.row_frames == 4
        pixels = pixels.unflatten(0, (4, 4))
    with torch.no_grad():
        expected = call(kind.from_pretrained(folder).eval(), pixels)
    assert np.abs(rows_of(extractor, film) - expected.numpy()).max() < 1e-5


def test_windows_lie_around_their_rows_and_repeat_the_edges(film, tmp_path):
    folder = tiny_networks.videomae(tmp_path / "mae")
    extractor = loaded("videomae-b16", folder, fps=4, stride_s=0.5)
    assert (extractor.row_frames, extractor.context) == (2, (1, 1))
    assert (extractor.manifest().stride_s, extractor.manifest().window_s) == (0.5, 1.0)
    taken = seen(extractor, film)
    padded = np.concatenate([taken[:1], taken, taken[-1:]])
    windows = [
        loaded("videomae-b16", folder, fps=4)(padded[k : k + 4], 0, 0)[FEATURES][0] for k in range(0, 16, 2)
    ]
    for batch in (4, 9, 100):  # however many rows come at once
        assert np.allclose(rows_of(extractor, film, batch=batch), windows, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "width"),
    [
        pytest.param("vgg16-fc7", 4096, marks=pytest.mark.slow),
        ("resnet50", 2048),
        pytest.param("s3d", 1024, marks=pytest.mark.slow),
        pytest.param("r2plus1d-18", 512, marks=pytest.mark.slow),
    ],
)
def test_networks_of_torchvision(name, width, tmp_path, film):
    vision = pytest.importorskip("torchvision").models
    constructor = next(preset.families[0] for preset in PRESETS if preset.name == name)
    torch.manual_seed(0)
    model = vision.get_model(constructor, weights=None).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    extractor = loaded(name, tmp_path / "weights.pth", fps=1)
    rows = torch.from_numpy(rows_of(extractor, film))
    assert rows.shape == (4, width)
    # the network's last layer makes of them the network's own answer
    pixels = extractor.pixels(seen(extractor, film))
    with torch.no_grad():
        if name == "vgg16-fc7":
            assert (rows >= 0).all()
            assert torch.allclose(model.classifier[6](rows), model(pixels), atol=1e-4)
        elif name == "resnet50":
            assert torch.allclose(model.fc(rows), model(pixels), atol=1e-4)
        else:  # windows of 16 frames around each of 4, 7 before it
            clip = pixels[(torch.arange(16) - 7).clamp(0, 3)].transpose(0, 1)[None]
            last = (
                model.fc
                if name == "r2plus1d-18"
                else lambda row: model.classifier(row[..., None, None, None]).mean((2, 3, 4))
            )
            assert torch.allclose(last(rows[:1]), model(clip), atol=1e-4)


def test_weights_that_do_not_fit_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(
        UserError, match=r"cannot load openai/clip-vit-base-patch32 from the hub.*copy the folder"
    ):
        kind_of("clip-vit-b32").load(ExtractorOptions())
    with pytest.raises(UserError, match=r"found a network of type 'dinov2', expected clip"):
        loaded("clip-vit-b32", tiny_networks.dinov2(tmp_path / "dino"))
    with pytest.raises(UserError, match=r"expected a folder with config\.json"):
        loaded("clip-vit-b32", tmp_path / "nothing")
    (tmp_path / "half").mkdir()
    with pytest.raises(UserError, match=f"cannot load {tmp_path}/half"):
        loaded("clip-vit-b32", tmp_path / "half")
    with pytest.raises(UserError, match="makes a row of each frame"):
        loaded("clip-vit-b32", tiny_networks.clip(tmp_path / "clip"), stride_s=2)
    with pytest.raises(UserError, match="torch finds no such device"):
        loaded("clip-vit-b32", tmp_path / "clip", device="cuda:9")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not the weights of resnet50"):
        loaded("resnet50", tmp_path / "other.pth")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(UserError, match=r"pip install 'vmr-video\[torchvision\]'"):
        loaded("resnet50", tmp_path / "other.pth")


def test_missing_tensors_are_no_random_numbers(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tiny_networks.clip(tmp_path / "clip")
    state = load_file(folder / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"1 tensors of the network are missing.*visual_projection"):
        loaded("clip-vit-b32", folder)


def test_half_precision_is_close(film, tmp_path):
    folder = tiny_networks.clip(tmp_path / "clip")
    exact, near = (rows_of(loaded("clip-vit-b32", folder, precision=kind), film) for kind in ("fp32", "bf16"))
    cosine = (exact * near).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(near, axis=1)
    assert cosine.min() > 0.999
    assert exact.dtype == near.dtype == np.float32


def test_every_preset_is_named_once():
    assert len({preset.name for preset in PRESETS}) == len(PRESETS)
    assert {preset.name for preset in PRESETS} <= set(kinds())
