"""The features of Shapes for any video: the extractor ``shapes-pixels`` of `vmr_video`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from vmr_common.errors import UserError
from vmr_common.features.manifest import BaseManifest, Manifest
from vmr_common.splits.load import data_root
from vmr_shapes.features import EXTRACTOR, Projection, manifest_of, statistics
from vmr_shapes.generate import ensure, projection_of, read_spec
from vmr_shapes.spec import LONG, SHORT, ShapesSpec
from vmr_video.extractor import FEATURES, Extractor, ExtractorKind, ExtractorOptions, Frames, Rows
from vmr_video.recipe import FrameRecipe

SEEN = 2
"""Frames before and after a row that its motion looks at."""


def recipe_of(spec: ShapesSpec) -> FrameRecipe:
    """The frames of a data set: its rate, each the mean of the square of pixels that it was written as."""
    return FrameRecipe(
        fps=float(spec.fps), sampling="middle", size=spec.size, filter="area", full_chroma=True
    )


@dataclass(frozen=True)
class ShapesPixels:
    """Pixel statistics and the projection of one Shapes data set."""

    spec: ShapesSpec
    projection: Projection

    @property
    def recipe(self) -> FrameRecipe:
        """See `recipe_of`."""
        return recipe_of(self.spec)

    @property
    def row_frames(self) -> int:
        """As in the spec."""
        return self.spec.frames_per_row

    @property
    def context(self) -> tuple[int, int]:
        """`SEEN` frames on both sides; before, whole rows of them."""
        rows = -(-SEEN // self.row_frames)
        return rows * self.row_frames, SEEN

    def __call__(self, frames: Frames, before: int, after: int) -> Rows:
        """Features ``(T, D)`` float32, those of the data set's file where frames are those of its videos."""
        per_row = self.row_frames
        rows = (len(frames) - before - after) // per_row
        first = before // per_row
        table = statistics(frames, per_row)[first : first + rows]
        return {FEATURES: self.projection(table)}

    def manifest(self) -> BaseManifest:
        """That of the data set, with how frames were taken."""
        from vmr_video.media import decoder

        made = manifest_of(self.spec, self.projection)
        return Manifest.from_mapping(
            {
                **{name: value for name, value in vars(made).items() if value is not None},
                **self.recipe.to_manifest(),
                "decoder": decoder(),
                "source": None,
            }
        )


def load(options: ExtractorOptions) -> ShapesPixels:
    """The extractor of a Shapes folder; without one, of that under the data root, which is made if it is not there.

    Raises:
        UserError: if the folder holds no Shapes data, or an option asks for something else than it was made with.
    """
    if options.weights is not None:
        folder = Path(options.weights)
    else:
        name, spec = ("shapes-long", LONG) if options.fps == LONG.fps else ("shapes", SHORT)
        folder = ensure(data_root() / name, spec)
    spec = read_spec(folder)
    wanted = {
        "fps": (options.fps, spec.fps),
        "sampling": (options.sampling, "middle"),
        "normalise": (options.normalise, False),
    }
    for name, (found, expected) in wanted.items():
        if found is not None and found != expected:
            raise UserError(
                f"shapes-pixels: {name} {found}, the features of {folder} were made with {expected}"
            )
    return ShapesPixels(spec, projection_of(folder))


def like(manifest: BaseManifest) -> ExtractorOptions | None:
    """The options that make features of the kind of a manifest; None if they are not those of Shapes."""
    extractor = getattr(manifest, "extractor", None)
    if (
        not isinstance(manifest, Manifest)
        or not isinstance(extractor, str)
        or not extractor.startswith(EXTRACTOR)
    ):
        return None
    return ExtractorOptions(fps=manifest.fps, sampling="middle", normalise=False)


KIND = ExtractorKind(
    name="shapes-pixels",
    about="statistics of the pixels, as in the embedded data set Shapes (--weights: its folder)",
    load=lambda options: cast(Extractor, load(options)),
    like=like,
)
