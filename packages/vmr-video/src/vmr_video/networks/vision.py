"""Networks of the library torchvision, an extra."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmr_common.boundary import boundary, reason
from vmr_common.errors import UserError, listed
from vmr_video.extractor import ExtractorOptions
from vmr_video.networks.network import NetworkExtractor
from vmr_video.networks.presets import Preset
from vmr_video.networks.weights import hash_of

if TYPE_CHECKING:
    from torch import Tensor


def load(preset: Preset, options: ExtractorOptions) -> NetworkExtractor:
    """The extractor of a network of torchvision.

    Raises:
        UserError: if torchvision is not installed, the weights are not there or of another network, or an option does
            not fit.
    """
    import torch

    models = _torchvision(preset.name)
    name = preset.families[0]
    with boundary(f"{preset.name}: cannot be built by this version of torchvision"), torch.device("meta"):
        module = models.get_model(name, weights=None)  # no memory is filled before the weights are there
    state, source = _weights(models, name, options.weights)
    with boundary(f"weights: {source}: not the weights of {name}"):
        lacking = module.load_state_dict(state, strict=False, assign=True)
    if lacking.missing_keys or lacking.unexpected_keys:
        wrong = [*lacking.missing_keys, *lacking.unexpected_keys]
        raise UserError(
            f"weights: {source}: not the weights of {name} ({listed(wrong, 3)} missing or unknown)"
        )
    module.eval().requires_grad_(False)
    assert preset.size is not None
    assert preset.clip is not None
    return NetworkExtractor(
        preset,
        options,
        module=module,
        forward=_FORWARD.get(name, _resnet),
        size=preset.size,
        clip=preset.clip,
        weights_hash=hash_of(module.state_dict()),
        weights=source,
    )


def _torchvision(name: str) -> Any:
    try:
        from torchvision import models
    except ImportError:
        raise UserError(
            f"extractor {name}: needs torchvision; install it with: pip install 'vmr-video[torchvision]'"
        ) from None
    return models


def _weights(models: Any, name: str, given: str | None) -> tuple[Mapping[str, Tensor], str]:
    """A state dict, from a file or torchvision's own download, and where it came from."""
    if given is not None:
        return read_state(Path(given)), given
    chosen = next(iter(models.get_model_weights(name)))  # the first: of the network's paper
    try:
        state: Mapping[str, Tensor] = chosen.get_state_dict(progress=False, check_hash=True)
    except Exception as error:  # no connection, a broken download
        raise UserError(
            f"weights: cannot download {chosen.url} ({reason(error)[:120]}); fetch that file where it can be reached "
            "and give it as --weights FILE"
        ) from None
    return state, f"torchvision {chosen}"


def read_state(path: Path) -> Mapping[str, Tensor]:
    """Tensors by name from a safetensors or a PyTorch file; of the latter, no code is run.

    Raises:
        UserError: if the file is missing or holds no tensors by name.
    """
    import torch
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"weights: {path}: no such file (expected .safetensors or .pth)")
    with boundary(f"weights: {path}: not weights that can be read safely", path):
        packed = path.suffix == ".safetensors"
        found: Any = load_file(path) if packed else torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise UserError(f"weights: {path}: holds no tensors by name")
    return {
        str(name).removeprefix("module."): value.float() if value.is_floating_point() else value
        for name, value in found.items()
    }


def _vgg(module: Any, pixels: Tensor) -> Tensor:
    found: Tensor = module.classifier[:5](module.avgpool(module.features(pixels)).flatten(1))
    return found


def _resnet(module: Any, pixels: Tensor) -> Tensor:
    for name, layer in module.named_children():
        if name != "fc":
            pixels = layer(pixels)
    return pixels.flatten(1)


def _s3d(module: Any, pixels: Tensor) -> Tensor:
    found: Tensor = module.avgpool(module.features(pixels.transpose(1, 2))).mean((2, 3, 4))
    return found


def _r2plus1d(module: Any, pixels: Tensor) -> Tensor:
    found = pixels.transpose(1, 2)
    for layer in (module.stem, module.layer1, module.layer2, module.layer3, module.layer4, module.avgpool):
        found = layer(found)
    return found.flatten(1)


_FORWARD: Mapping[str, Callable[[Any, Any], Any]] = {"vgg16": _vgg, "s3d": _s3d, "r2plus1d_18": _r2plus1d}
