"""Pictures or clips of frames to rows, by one network: its pictures, its arithmetic, its manifest."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from vmr_common.errors import UserError
from vmr_common.features.manifest import Manifest
from vmr_video.extractor import FEATURES, ExtractorOptions, Frames, Rows
from vmr_video.networks.presets import Preset
from vmr_video.networks.weights import device_of, lasting, words_of
from vmr_video.recipe import FrameRecipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Forward = Callable[[Any, "Tensor"], "Tensor"]
"""Vectors ``(n, D)`` that a module makes of pixels, ``(n, 3, H, W)`` or ``(n, frames, 3, H, W)``."""


class NetworkExtractor:
    """An `Extractor` around a network.

    Args:
        preset: The network's name and pictures.
        options: What the user wants otherwise.
        module: It, with its weights; is copied where it has to move.
        forward: See `Forward`.
        size: Side of its pictures.
        clip: Frames that a row sees.
        weights_hash: Of its weights.
        weights: Where they came from.

    Raises:
        UserError: if an option does not fit the network.
    """

    def __init__(
        self,
        preset: Preset,
        options: ExtractorOptions,
        *,
        module: Any,
        forward: Forward,
        size: int,
        clip: int,
        weights_hash: str,
        weights: str,
    ) -> None:
        self._preset, self._options, self._forward = preset, options, forward
        self._device = device_of(options.device)
        self._dtype = dtype_of(options.precision)
        self._module = moved(module, self._device, self._dtype)
        self._size, self._clip, self._hash, self._weights = size, clip, weights_hash, weights
        scaled = round(size * preset.scaled)
        self.recipe = FrameRecipe(
            fps=float(options.fps or preset.fps),
            sampling=options.sampling or "middle",
            resize=preset.resize,
            size=scaled + (scaled - size) % 2,  # so that the middle of the middle is the middle
            crop=True,
            filter=preset.filter,
        )
        if options.stride_s is not None and not preset.of_clips:
            raise UserError(f"stride: {preset.name} makes a row of each frame, --fps says how many there are")
        stride = options.stride_s or preset.stride_s
        self.row_frames = max(1, round(self.recipe.fps * stride)) if preset.of_clips else 1
        around = max(0, clip - self.row_frames)
        self.context = (around // 2, around - around // 2)

    def __call__(self, frames: Frames, before: int, after: int) -> Rows:
        """The rows, ``{"features": (T, D) float32}``; where a clip reaches over an end, its frame is repeated."""
        import torch

        with torch.inference_mode():
            pixels = self.pixels(frames)
            if self._preset.of_clips:
                pixels = self._clips(pixels, before, after)
            found = self._forward(self._module, pixels).float()
            if self._options.normalise:
                found = torch.nn.functional.normalize(found, dim=-1)
            return {FEATURES: found.cpu().numpy()}

    def pixels(self, frames: Frames) -> Tensor:
        """The pixels that the network sees of frames ``(n, H, W, 3)``: ``(n, 3, size, size)``."""
        import torch

        edge = (frames.shape[1] - self._size) // 2
        cut = frames[:, edge : edge + self._size, edge : edge + self._size]
        # to the device as bytes, a quarter of what floats are
        found = torch.from_numpy(np.ascontiguousarray(cut)).to(self._device).permute(0, 3, 1, 2).float()
        mean, deviation = (
            torch.tensor(values, device=self._device).view(1, 3, 1, 1)
            for values in (self._preset.mean, self._preset.deviation)
        )
        return ((found / 255 - mean) / deviation).to(self._dtype)

    def _clips(self, pixels: Tensor, before: int, after: int) -> Tensor:
        """The window of every row, ``(T, frames, 3, H, W)``."""
        import torch

        rows = (len(pixels) - before - after) // self.row_frames
        start = before - self.context[0] + max(0, self.row_frames - self._clip) // 2
        place = start + torch.arange(rows)[:, None] * self.row_frames + torch.arange(self._clip)
        return pixels[place.clamp(0, len(pixels) - 1).to(pixels.device)]

    def manifest(self) -> Manifest:
        """All that decides the rows."""
        from vmr_common.version import __version__
        from vmr_video.media import decoder

        fps = self.recipe.fps
        facts: dict[str, Any] = self.recipe.to_manifest()
        facts["crop"] = f"centre {self._size}"
        return Manifest(
            extractor=self._preset.name,
            network=lasting(self._weights),
            weights_hash=self._hash,
            stride_s=self.row_frames / fps,
            window_s=self._clip / fps if self._preset.of_clips else 0.0,
            normalised=bool(self._options.normalise),
            decoder=decoder(),
            value_range=words_of(self._preset.mean, self._preset.deviation),
            precision=self._options.precision,
            creator=f"vmr-video {__version__}",
            **facts,
        )


def dtype_of(precision: str) -> torch.dtype:
    """The type in which a network computes."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def moved(module: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A module on a device and of a type: itself where it is so already, else a copy."""
    import torch

    if device.type == "cpu" and dtype == torch.float32:
        return module
    return copy.deepcopy(module).to(device, dtype)
