"""The frames that an extractor sees of a video: which moments of it, and how each picture is scaled and cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sampling = Literal["middle", "start"]
Resize = Literal["shorter", "stretch", "none"]
Filter = Literal["bicubic", "bilinear", "area"]


@dataclass(frozen=True, kw_only=True)
class FrameRecipe:
    """Decides the frames of a video, ``(n, H, W, 3)`` uint8 RGB, to the last bit for one version of FFmpeg.

    Attributes:
        fps: Frames per second F that are taken.
        sampling: Two rules, half a frame apart. `middle` takes as frame k the last picture before (k + 1/2) / F, and
            round(duration F) frames, as FFmpeg's filter ``fps`` does by itself (features of HERO, Moment-DETR and
            QVHighlights); `start` takes the picture that shows at k / F, and ceil(duration F) frames.
        resize: `shorter` scales the shorter side to `size` and keeps the shape, `stretch` scales to a square of
            `size`, `none` leaves pictures as they are.
        size: Pixels; also of the square that is cut from the centre where `crop` is set.
        crop: Cut the central square of `size`.
        filter: Interpolation of the scaler (swscale).
        full_chroma: Compute colours at the full resolution of the frame and round them once; else as the scaler does by
            itself, and with it the field's extractors: faster, and a little blurred.
    """

    fps: float
    sampling: Sampling = "middle"
    resize: Resize = "shorter"
    size: int = 224
    crop: bool = True
    filter: Filter = "bicubic"
    full_chroma: bool = False

    def to_manifest(self) -> dict[str, str | float]:
        """The fields of a manifest that say it.

        Example:
            >>> FrameRecipe(fps=1).to_manifest()["resize"]
            'shorter side to 224, bicubic'
        """
        sides = {"shorter": "shorter side to", "stretch": "both sides to", "none": "none"}[self.resize]
        colours = ", full chroma" if self.full_chroma else ""
        return {
            "fps": self.fps,
            "sampling": self.sampling,
            "resize": sides if self.resize == "none" else f"{sides} {self.size}, {self.filter}{colours}",
            "crop": f"centre {self.size}" if self.crop else "none",
        }
