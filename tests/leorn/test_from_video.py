"""Objects straight from pictures: of Shapes as in its own file, and of detectors that know nothing yet."""

import numpy as np
import pytest
import torch

from leorn.object_features import from_video
from leorn.object_features.layouts import ObjectManifest
from leorn.object_features.regions import SLOTS
from leorn.object_features.shapes_objects import object_frames
from leorn.object_features.store import ObjectStore
from tiny_papers import SPEC
from vmr_common import UserError
from vmr_shapes.render import render
from vmr_shapes.scene import make_scene
from vmr_video.extractor import ExtractorOptions
from vmr_video.recipe import FrameRecipe

pytestmark = pytest.mark.e2e  # real decoders, engines or processes

RECIPE = FrameRecipe(fps=2, resize="none", crop=False)


def pictures(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def checked(rows, count: int, dim: int) -> None:
    """Shapes, falling confidences, boxes inside the picture, zeros in empty slots."""
    features, confidence, boxes = rows["features"], rows["confidence"], rows["boxes"]
    assert features.shape == (count, SLOTS, dim)
    assert confidence.shape == (count, SLOTS)
    assert boxes.shape == (count, SLOTS, 4)
    assert {rows[name].dtype for name in rows} == {np.dtype("float32")}
    assert (np.diff(confidence, axis=1) <= 0).all()
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    assert not features[confidence == 0].any()


@pytest.fixture
def faster_rcnn():
    """A Faster R-CNN of three classes on a backbone of one convolution, with weights that were never trained."""
    detection = pytest.importorskip("torchvision.models.detection")
    from leorn.object_features.detectors import FasterRCNN

    torch.manual_seed(0)
    backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 7, stride=16), torch.nn.ReLU())
    backbone.out_channels = 8
    anchors = detection.anchor_utils.AnchorGenerator(((16, 32),), ((1.0,),))
    network = detection.FasterRCNN(
        backbone,
        num_classes=3,
        rpn_anchor_generator=anchors,
        min_size=96,
        box_score_thresh=0.0,
        box_detections_per_img=SLOTS + 4,
    )
    return FasterRCNN(
        network,
        RECIPE,
        detector=f"{from_video.FASTER_RCNN}, tiny",
        network_name="tiny.pth",
        weights_hash="0",
        options=ExtractorOptions(device="cpu"),
    )


def test_faster_rcnn_gives_the_head_s_state_over_each_box(faster_rcnn):
    frames = pictures(3)
    rows = faster_rcnn(frames, 0, 0)
    checked(rows, 3, faster_rcnn.dim)
    assert faster_rcnn.dim == 1024
    assert rows["confidence"].all()
    # the same picture has the same objects whatever is beside it, and those that the model gives by itself
    alone = faster_rcnn(frames[1:2], 0, 0)
    np.testing.assert_allclose(alone["features"][0], rows["features"][1], atol=1e-5)
    picture = torch.from_numpy(frames[1]).permute(2, 0, 1).float() / 255
    with torch.inference_mode():
        (own,) = faster_rcnn.network([picture])
    count = min(len(own["scores"]), SLOTS)
    np.testing.assert_allclose(alone["confidence"][0, :count], own["scores"][:count], atol=1e-6)
    scaled = own["boxes"][:count].numpy() / (64, 48, 64, 48)
    np.testing.assert_allclose(alone["boxes"][0, :count], scaled, atol=1e-4)


def test_objects_of_a_detector_are_stored_with_what_makes_them_alike(faster_rcnn, tmp_path):
    path, videos = tmp_path / "objects.h5", [("kitchen", faster_rcnn(pictures(2), 0, 0))]
    from_video.FASTER_RCNN_KIND.write(path, videos, faster_rcnn.manifest(), "float16")
    with ObjectStore(path, objects=SLOTS, dim=1024) as store:
        found, manifest = store["kitchen"], store.manifest
    np.testing.assert_array_equal(found.boxes, videos[0][1]["boxes"])
    assert (manifest.objects, manifest.dim, manifest.fps, manifest.stride_s) == (SLOTS, 1024, 2.0, 0.5)
    options = from_video.FASTER_RCNN_KIND.like(manifest)
    assert (options.weights, options.fps, options.sampling) == ("tiny.pth", 2.0, "middle")
    assert from_video.RT_DETR_KIND.like(manifest) is None
    assert from_video.SHAPES_OBJECTS.like(manifest) is None


def test_rt_detr_gives_the_decoder_s_last_states(tmp_path):
    transformers = pytest.importorskip("transformers")
    from leorn.object_features.detectors import RTDetr

    torch.manual_seed(0)
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = transformers.RTDetrConfig(
        backbone_config=backbone,
        encoder_hidden_dim=16,
        encoder_in_channels=[8, 16, 16],
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        d_model=16,
        decoder_in_channels=[16, 16, 16],
        decoder_ffn_dim=16,
        decoder_layers=2,
        decoder_attention_heads=2,
        num_queries=20,
        num_denoising=0,
        num_labels=3,
    )
    transformers.RTDetrForObjectDetection(config).save_pretrained(tmp_path / "tiny")
    detector = RTDetr.load(ExtractorOptions(weights=str(tmp_path / "tiny"), device="cpu", fps=2), size=64)
    frames = pictures(2, 64, 64)
    rows = detector(frames, 0, 0)
    checked(rows, 2, 16)
    assert (rows["confidence"] > 0).sum() == 2 * 20
    with torch.inference_mode():
        own = detector.network(pixel_values=torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255)
    best = own.logits.sigmoid().amax(-1).argmax(1)
    for picture, query in enumerate(best.tolist()):
        state = own.intermediate_hidden_states[picture, -1, query]
        np.testing.assert_allclose(rows["features"][picture, 0], state, atol=1e-5)
    manifest = detector.manifest()
    assert manifest.resize == "both sides to 64, bilinear"
    assert len(manifest.weights_hash) == 64
    assert from_video.RT_DETR_KIND.like(manifest) == ExtractorOptions(
        weights=str(tmp_path / "tiny"), fps=2.0, sampling="middle"
    )
    with pytest.raises(UserError, match="no RT-DETR of transformers"):
        RTDetr.load(ExtractorOptions(weights=str(tmp_path)))


def test_shapes_objects_are_those_of_the_data_set():
    frames = render(make_scene("test-0001", SPEC))
    extractor = from_video.ShapesObjects(SPEC)
    assert from_video.SHAPES_OBJECTS.load(ExtractorOptions()).recipe.size == 56
    rows, stored = extractor(frames, 0, 0), object_frames(frames, SPEC.frames_per_row)
    for name in rows:
        np.testing.assert_array_equal(rows[name], getattr(stored, name))
    made = extractor.manifest()
    known = ExtractorOptions(fps=4.0, sampling="middle")
    assert from_video.SHAPES_OBJECTS.like(made) == known
    # a checkpoint of version 0.1 knows neither rate nor stride
    assert from_video.SHAPES_OBJECTS.like(ObjectManifest(detector=made.detector)) == known
    assert from_video.SHAPES_OBJECTS.like(ObjectManifest(detector="another")) is None
