"""Networks of the library transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vmr_video.extractor import ExtractorOptions
from vmr_video.networks.network import Forward, NetworkExtractor
from vmr_video.networks.presets import Preset
from vmr_video.networks.weights import pretrained

if TYPE_CHECKING:
    from torch import Tensor


def load(preset: Preset, options: ExtractorOptions) -> NetworkExtractor:
    """The extractor of a network of transformers.

    Raises:
        UserError: as `pretrained`, or if an option does not fit.
    """
    weights = options.weights or preset.weights
    assert weights is not None
    model, weights_hash = pretrained(weights, preset.families, tokenizer=preset.text)
    config = getattr(model.config, "vision_config", model.config)
    return NetworkExtractor(
        preset,
        options,
        module=_part(model),
        forward=_FORWARD.get(model.config.model_type, _pooled),
        size=preset.size or _side(config),
        clip=preset.clip or _clip(config),
        weights_hash=weights_hash,
        weights=weights,
    )


def _side(config: Any) -> int:
    found = getattr(config, "image_size", None) or config.crop_size
    return int(found if isinstance(found, int) else found[0])


def _clip(config: Any) -> int:
    return int(getattr(config, "num_frames", None) or config.frames_per_clip)


def _part(model: Any) -> Any:
    """The part of a network that sees pictures: what reads sentences need not move with it."""
    import torch

    if model.config.model_type == "clip":
        return torch.nn.ModuleList([model.vision_model, model.visual_projection])
    return model.vision_model if model.config.model_type == "siglip" else model


def _clip_vector(module: Any, pixels: Tensor) -> Tensor:
    vision, projection = module
    found: Tensor = projection(vision(pixel_values=pixels).pooler_output)
    return found


def _pooled(module: Any, pixels: Tensor) -> Tensor:
    """The pooled vector; of DINO it is the class token after the last layer norm."""
    found: Tensor = module(pixel_values=pixels).pooler_output
    return found


def _token_mean(module: Any, pixels: Tensor) -> Tensor:
    found: Tensor = module(pixel_values=pixels).last_hidden_state.mean(1)
    return found


def _vjepa(module: Any, pixels: Tensor) -> Tensor:
    """The mean over the encoder's tokens; the predictor is left out."""
    found: Tensor = module(pixel_values_videos=pixels, skip_predictor=True).last_hidden_state.mean(1)
    return found


_FORWARD: Mapping[str, Forward] = {
    "clip": _clip_vector,
    "siglip": _pooled,
    "videomae": _token_mean,
    "vjepa2": _vjepa,
}
