"""Detectors that make object features of pictures: torchvision's Faster R-CNN and transformers' RT-DETR.

Both give the `SLOTS` surest objects of a picture by falling confidence; empty slots are zeros.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leorn.object_features.from_video import FASTER_RCNN, FPS, RT_DETR, detector_manifest, object_rows
from leorn.object_features.layouts import BOX, ObjectFrames, ObjectManifest
from leorn.object_features.regions import SLOTS
from vmr_common.boundary import reason
from vmr_common.errors import UserError
from vmr_common.io import sha256
from vmr_train.device import autocast, select_device
from vmr_train.released_weights import read_weights
from vmr_train.weights import load_weights
from vmr_video.extractor import ExtractorOptions, Rows
from vmr_video.recipe import FrameRecipe

BATCH = 8  # pictures that pass through a network together
RT_DETR_SIZE = 640
RT_DETR_HUB = "PekingU/rtdetr_r50vd"


class Found(NamedTuple):
    """The objects of one picture, the surest first: features ``(n, D)``, confidences ``(n,)``, boxes ``(n, 4)``."""

    features: Tensor
    confidence: Tensor
    boxes: Tensor


class Detector(ABC):
    """A detector as an extractor of `vmr_video`: every picture for itself.

    Args:
        network: In eval mode afterwards, and on `device`.
        recipe: The pictures that it sees.
        detector: What the manifest says of it.
        network_name: Where the weights come from.
        weights_hash: Their SHA-256.
        options: Device and precision.
    """

    row_frames = 1
    context: tuple[int, int] | None = (0, 0)

    def __init__(
        self,
        network: Any,
        recipe: FrameRecipe,
        *,
        detector: str,
        network_name: str,
        weights_hash: str | None,
        options: ExtractorOptions,
    ) -> None:
        self.device = select_device(options.device or "auto")
        self.network = network.eval().to(self.device)
        self.recipe = recipe
        self._precision = options.precision
        self._manifest = detector_manifest(
            detector,
            recipe,
            network=network_name,
            weights_hash=weights_hash,
            precision=options.precision,
        )

    def manifest(self) -> ObjectManifest:
        """The manifest of the objects."""
        return self._manifest

    def __call__(self, frames: NDArray[np.uint8], before: int, after: int) -> Rows:
        """The objects of pictures ``(T, H, W, 3)``: `features`, `confidence` and `boxes` of `SLOTS` slots each."""
        rows: list[Found] = []
        for start in range(0, len(frames), BATCH):
            pictures = torch.from_numpy(frames[start : start + BATCH]).to(self.device)
            with torch.inference_mode(), autocast(self.device, self._precision):
                rows += self.detect(pictures.permute(0, 3, 1, 2).float() / 255)
        return object_rows(_slots(rows, self.dim))

    @property
    @abstractmethod
    def dim(self) -> int:
        """Columns of a feature."""

    @abstractmethod
    def detect(self, pictures: Tensor) -> list[Found]:
        """The objects of pictures ``(B, 3, H, W)``, values from 0 to 1; boxes as fractions, x1 y1 x2 y2."""


def _slots(rows: list[Found], dim: int) -> ObjectFrames:
    shape = (len(rows), SLOTS)
    features = np.zeros((*shape, dim), np.float32)
    confidence, boxes = np.zeros(shape, np.float32), np.zeros((*shape, BOX), np.float32)
    for row, found in enumerate(rows):
        count = min(len(found.confidence), SLOTS)
        for table, values in zip((features, confidence, boxes), found, strict=True):
            table[row, :count] = values[:count].float().cpu().numpy()
    return ObjectFrames(features, confidence, boxes.clip(0, 1))


# --- Faster R-CNN ------------------------------------------------------------------------------------------


class FasterRCNN(Detector):
    """torchvision's Faster R-CNN: a feature is the box head's state over the box that was found.

    The head pools the picture's features anew over each final box, as it did over the proposal that became it.
    """

    @classmethod
    def load(cls, options: ExtractorOptions) -> FasterRCNN:
        """With the weights of a file (PyTorch or safetensors), or those that torchvision publishes.

        Raises:
            UserError: if torchvision is not there, or the weights are of another network.
        """
        models = _torchvision()
        path = Path(options.weights) if options.weights else _published(models)
        weights = read_weights(path)
        score = weights.get("roi_heads.box_predictor.cls_score.weight")
        if score is None or score.ndim != 2:
            raise UserError(f"{path}: not the weights of a Faster R-CNN of torchvision")
        first = "roi_heads.box_head.fc6.weight" in weights
        name = "fasterrcnn_resnet50_fpn" if first else "fasterrcnn_resnet50_fpn_v2"
        network = getattr(models, name)(weights=None, weights_backbone=None, num_classes=len(score))
        own = network.state_dict()
        # counters of batches, which older files lack
        kept = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
        load_weights(network, {**kept, **weights}, path)
        # the network's own scaling is to the same size, and finds nothing left to do but for the widest pictures
        recipe = FrameRecipe(
            fps=options.fps or FPS,
            sampling=options.sampling or "middle",
            resize="shorter",
            size=800,
            crop=False,
            filter="bilinear",
        )
        return cls(
            network,
            recipe,
            detector=f"{FASTER_RCNN}, {name}, {len(score)} classes, box head over final boxes",
            network_name=str(path.absolute()) if options.weights else name,
            weights_hash=sha256(path),
            options=options,
        )

    @property
    def dim(self) -> int:
        """Columns of the box head."""
        width: int = self.network.roi_heads.box_predictor.cls_score.in_features
        return width

    def detect(self, pictures: Tensor) -> list[Found]:
        """See `Detector.detect`."""
        network, heads = self.network, self.network.roi_heads
        images, _ = network.transform(list(pictures))
        maps = network.backbone(images.tensors)
        if isinstance(maps, Tensor):
            maps = {"0": maps}
        proposals, _ = network.rpn(images, maps)
        results, _ = heads(maps, proposals, images.image_sizes)
        boxes = [result["boxes"][:SLOTS] for result in results]
        states = heads.box_head(heads.box_roi_pool(maps, boxes, images.image_sizes))
        parts = states.split([len(part) for part in boxes])
        return [
            Found(features, result["scores"][:SLOTS], box / box.new_tensor((width, height, width, height)))
            for features, result, box, (height, width) in zip(
                parts, results, boxes, images.image_sizes, strict=True
            )
        ]


def _torchvision() -> Any:
    try:
        from torchvision.models import detection
    except ImportError:
        raise UserError('faster-rcnn needs torchvision: pip install "vmr-leorn[video]"') from None
    return detection


def _published(models: Any) -> Path:
    """The file of torchvision's own weights, downloaded into torch's cache where it is not there yet."""
    address = models.FasterRCNN_ResNet50_FPN_V2_Weights.DEFAULT.url
    name = address.rpartition("/")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = name.rpartition("-")[2].partition(".")[0]
        try:
            torch.hub.download_url_to_file(address, os.fspath(path), hash_prefix=digest)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"cannot fetch the weights of faster-rcnn ({reason(error)}): download {address} and give the file "
                "as --weights"
            ) from None
    return path


# --- RT-DETR -----------------------------------------------------------------------------------------------


class RTDetr(Detector):
    """transformers' RT-DETR: a feature is the last state of the decoder query that found the object."""

    @classmethod
    def load(cls, options: ExtractorOptions, size: int = RT_DETR_SIZE) -> RTDetr:
        """From a local folder, or a name on the hub.

        Raises:
            UserError: if transformers is not there, or has no such model.
        """
        try:
            from transformers import RTDetrForObjectDetection
        except ImportError:
            raise UserError('rt-detr needs transformers: pip install "vmr-leorn[video]"') from None
        from vmr_video.networks.weights import hash_of, lasting, quiet

        name = options.weights or RT_DETR_HUB
        try:
            with quiet():
                network = RTDetrForObjectDetection.from_pretrained(name)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{name}: no RT-DETR of transformers ({reason(error)}); give a folder that holds one as --weights"
            ) from None
        recipe = FrameRecipe(
            fps=options.fps or FPS,
            sampling=options.sampling or "middle",
            resize="stretch",
            size=size,
            crop=False,
            filter="bilinear",
        )
        return cls(
            network,
            recipe,
            detector=f"{RT_DETR}, {network.config.num_labels} classes, last states of the decoder",
            network_name=lasting(name),
            weights_hash=hash_of(network.state_dict()),
            options=options,
        )

    @property
    def dim(self) -> int:
        """Columns of the decoder."""
        width: int = self.network.config.d_model
        return width

    def detect(self, pictures: Tensor) -> list[Found]:
        """See `Detector.detect`."""
        output = self.network(pixel_values=pictures)
        confidence, order = output.logits.sigmoid().amax(-1).sort(dim=1, descending=True, stable=True)
        order = order[:, :SLOTS]
        states = output.intermediate_hidden_states[:, -1]  # (B, Q, D)
        rows = torch.arange(len(order), device=order.device)[:, None]
        centre, half = output.pred_boxes[rows, order].split(2, dim=-1)
        boxes = torch.cat([centre - half / 2, centre + half / 2], dim=-1)
        return [Found(*parts) for parts in zip(states[rows, order], confidence, boxes, strict=True)]
