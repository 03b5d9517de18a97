"""Pretrained networks that turn pictures, clips and sentences into vectors."""

from vmr_video.extractor import ExtractorKind

KINDS: tuple[ExtractorKind, ...] = ()
