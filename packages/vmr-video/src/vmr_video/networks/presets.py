"""The networks that can be named, and how each wants its pictures; light, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vmr_video.recipe import Filter, Resize

Triple = tuple[float, float, float]
CLIP_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION: Triple = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION: Triple = (0.229, 0.224, 0.225)
KINETICS_MEAN: Triple = (0.43216, 0.394666, 0.37645)
KINETICS_DEVIATION: Triple = (0.22803, 0.22145, 0.216989)
HALF: Triple = (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A network and the way of its pictures.

    Attributes:
        name: As in ``--extractor``.
        about: What a row is, for the list of extractors.
        library: Where its code comes from.
        weights: Default of ``--weights``: name on the hub, or None for the library's own download.
        families: Model types that it takes (transformers), or the name of its constructor (torchvision).
        mean: Of the pixels, from 0 to 1, red green blue.
        deviation: Likewise.
        size: Side of its pictures; None: as its configuration says.
        scaled: Size that a picture is scaled to, over `size`; the centre is cut out of it.
        resize: See `FrameRecipe`.
        filter: See `FrameRecipe`.
        fps: Frames per second, unless said otherwise.
        clip: Frames that a row sees: 1, or None for as many as its configuration says.
        stride_s: Seconds from row to row of a network on clips.
        text: Sentences have a vector in the space of its rows.
    """

    name: str
    about: str
    library: Literal["transformers", "torchvision"] = "transformers"
    weights: str | None = None
    families: tuple[str, ...]
    mean: Triple = IMAGENET_MEAN
    deviation: Triple = IMAGENET_DEVIATION
    size: int | None = None
    scaled: float = 1.0
    resize: Resize = "shorter"
    filter: Filter = "bicubic"
    fps: float = 1.0
    clip: int | None = 1
    stride_s: float = 1.0
    text: bool = False

    @property
    def of_clips(self) -> bool:
        """True if a row sees several frames."""
        return self.clip != 1


def _clip(name: str, of: str, hub: str) -> Preset:
    return Preset(
        name=name,
        about=f"CLIP {of}: projected picture vectors, beside which sentences have vectors too",
        weights=hub,
        families=("clip",),
        mean=CLIP_MEAN,
        deviation=CLIP_DEVIATION,
        text=True,
    )


PRESETS = (
    _clip("clip-vit-b32", "ViT-B/32", "openai/clip-vit-base-patch32"),
    _clip("clip-vit-b16", "ViT-B/16", "openai/clip-vit-base-patch16"),
    _clip("clip-vit-l14", "ViT-L/14", "openai/clip-vit-large-patch14"),
    Preset(
        name="siglip2-b16",
        about="SigLIP 2 B/16 at 224: picture vectors, beside which sentences have vectors too",
        weights="google/siglip2-base-patch16-224",
        families=("siglip",),
        mean=HALF,
        deviation=HALF,
        resize="stretch",
        filter="bilinear",
        text=True,
    ),
    Preset(
        name="dinov2-b14",
        about="DINOv2 B/14: the class token of a picture",
        weights="facebook/dinov2-base",
        families=("dinov2", "dinov2_with_registers"),
        size=224,
        scaled=256 / 224,
    ),
    Preset(
        name="dinov3-b16",
        about="DINOv3 B/16: the class token of a picture",
        weights="facebook/dinov3-vitb16-pretrain-lvd1689m",
        families=("dinov3_vit", "dinov3_convnext"),
        size=224,
        resize="stretch",
        filter="bilinear",
    ),
    Preset(
        name="videomae-b16",
        about="VideoMAE B/16 on clips of 16 frames: the mean over its tokens",
        weights="MCG-NJU/videomae-base",
        families=("videomae",),
        filter="bilinear",
        fps=8,
        clip=None,
    ),
    Preset(
        name="vjepa2-l16",
        about="V-JEPA 2 L/16 on clips of 64 frames: the mean over its tokens",
        weights="facebook/vjepa2-vitl-fpc64-256",
        families=("vjepa2",),
        scaled=292 / 256,
        filter="bilinear",
        fps=8,
        clip=None,
    ),
    Preset(
        name="vgg16-fc7",
        about="VGG16 of ImageNet: fc7 after its ReLU, 4096 wide",
        families=("vgg16",),
        library="torchvision",
        size=224,
        scaled=256 / 224,
        filter="bilinear",
    ),
    Preset(
        name="resnet50",
        about="ResNet-50 of ImageNet: after the last pooling, 2048 wide",
        families=("resnet50",),
        library="torchvision",
        size=224,
        scaled=256 / 224,
        filter="bilinear",
    ),
    Preset(
        name="resnet152",
        about="ResNet-152 of ImageNet: after the last pooling, 2048 wide",
        families=("resnet152",),
        library="torchvision",
        size=224,
        scaled=256 / 224,
        filter="bilinear",
    ),
    Preset(
        name="s3d",
        about="S3D of Kinetics-400 on clips of 16 frames: after the last pooling, 1024 wide",
        families=("s3d",),
        library="torchvision",
        mean=KINETICS_MEAN,
        deviation=KINETICS_DEVIATION,
        size=224,
        scaled=256 / 224,
        filter="bilinear",
        fps=16,
        clip=16,
    ),
    Preset(
        name="r2plus1d-18",
        about="R(2+1)D-18 of Kinetics-400 on clips of 16 frames: after the last pooling, 512 wide",
        families=("r2plus1d_18",),
        library="torchvision",
        mean=KINETICS_MEAN,
        deviation=KINETICS_DEVIATION,
        size=112,
        scaled=128 / 112,
        filter="bilinear",
        fps=16,
        clip=16,
    ),
)
"""All of them, in the order of the list of extractors."""
