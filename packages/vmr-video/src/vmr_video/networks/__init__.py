"""Pretrained networks that turn pictures, clips and sentences into vectors."""

from __future__ import annotations

from functools import partial

from vmr_common.features.manifest import BaseManifest, Manifest, same_extractor
from vmr_video.extractor import Extractor, ExtractorKind, ExtractorOptions, precision_of, sampling_of
from vmr_video.networks.presets import PRESETS, Preset


def _load(preset: Preset, options: ExtractorOptions) -> Extractor:
    if preset.library == "torchvision":
        from vmr_video.networks import vision

        return vision.load(preset, options)
    from vmr_video.networks import transformer

    return transformer.load(preset, options)


def _like(preset: Preset, manifest: BaseManifest) -> ExtractorOptions | None:
    if not isinstance(manifest, Manifest) or not same_extractor(manifest.extractor or "", preset.name):
        return None
    rate = 1 / manifest.stride_s if manifest.stride_s and not preset.of_clips else None
    return ExtractorOptions(
        weights=manifest.network,
        fps=manifest.fps or rate,
        stride_s=manifest.stride_s if preset.of_clips else None,
        sampling=sampling_of(manifest),
        normalise=manifest.normalised,
        precision=precision_of(manifest),
    )


KINDS: tuple[ExtractorKind, ...] = tuple(
    ExtractorKind(preset.name, preset.about, partial(_load, preset), partial(_like, preset))
    for preset in PRESETS
)
