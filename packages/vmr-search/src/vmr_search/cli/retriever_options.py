"""The options that say which retriever an index has."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vmr_common.cli.numbers import real, whole
from vmr_common.cli.query_options import Options
from vmr_common.errors import UserError

if TYPE_CHECKING:
    from vmr_common.features.store import FeatureStore
    from vmr_search.retriever import Retriever
    from vmr_video.extractor import Extractor

ZERO_SHOT = "zero-shot"
"""Name of the retriever without training."""
_FPS = 1.0


@dataclass
class Corpus:
    """The videos that are to be in the index.

    Attributes:
        videos: Their ids.
        store: Their features; None: not made yet.
        seconds: By video.
        files: Where they are video files.
        extractor: Makes the features of those.
    """

    videos: list[str]
    store: FeatureStore | None
    seconds: dict[str, float]
    files: list[tuple[str, Path]]
    extractor: Extractor | None = None


def add_options(group: Options) -> None:
    """Sets them."""
    made = group.add_argument
    made("--checkpoint", type=Path, help="a trained model: a checkpoint file or a run folder (cfmr-train)")
    made("--retriever", help=f"its kind where several are installed, or {ZERO_SHOT}: CLIP or SigLIP alone")
    made("--extractor", help="network of frames and sentences for zero-shot (default clip-vit-b32)")
    made("--weights", help="folder or name on a hub of the network's weights (default: the published ones)")
    made("--fps", type=real(0, 1000, above=True), help="frames per second that zero-shot sees (default 1)")
    made("--device", default="auto", help="auto (default), cpu, cuda, ...")
    made("--workers", type=whole(0, 256), help="processes that decode (default: by the number of processors)")


def device_of(options: Namespace) -> str | None:
    """The device as `vmr_video` names it."""
    return None if options.device == "auto" else options.device


def trained(options: Namespace) -> Retriever:
    """The retriever of ``--checkpoint``.

    Raises:
        UserError: if there is none, or it is not said which of several it is; as `open_retriever`.
    """
    from vmr_search.retriever import open_retriever, retrievers

    if options.checkpoint is None:
        raise UserError(
            f"give --checkpoint with a trained model (a run of cfmr-train), or --retriever {ZERO_SHOT}"
        )
    name = options.retriever
    if name is None:
        trained = [one for one in retrievers() if one != ZERO_SHOT]
        if not trained:
            raise UserError(
                "--checkpoint: no installed package has a trained retriever; pip install vmr-cfmr brings one"
            )
        if len(trained) > 1:
            raise UserError(f"--retriever: which one? installed are {', '.join(trained)}")
        name = trained[0]
    return open_retriever(name, options.checkpoint, {}, options.device)


def without_training(options: Namespace, corpus: Corpus) -> Retriever:
    """The retriever zero-shot, of features that are there or of an extractor, which `corpus` then has.

    Raises:
        UserError: if the network cannot be loaded, or reads no sentences.
    """
    from vmr_search import zero_shot

    if corpus.store is not None:
        facts = zero_shot.facts_of(
            corpus.store.manifest,
            corpus.store.dim,
            name=corpus.store.name,
            extractor=options.extractor,
            weights=options.weights,
        )
    else:
        from vmr_search.video_features import manifest_of
        from vmr_video.extractor import ExtractorOptions, kind_of

        chosen = ExtractorOptions(weights=options.weights, fps=options.fps or _FPS, device=device_of(options))
        kind = kind_of(options.extractor or "clip-vit-b32")
        zero_shot.require_sentences(kind.name)
        corpus.extractor = kind.load(chosen)
        manifest = manifest_of(corpus.extractor)
        facts = zero_shot.facts_of(manifest, int(manifest.dim or 0), weights=options.weights)
    return zero_shot.load(None, facts, options.device)
