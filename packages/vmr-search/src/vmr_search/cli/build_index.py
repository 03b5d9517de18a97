"""Builds an index of videos, adds to it, or takes videos out."""

from __future__ import annotations

import contextlib
import logging
import shlex
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from vmr_common.cli.entrypoint import echo, free_text, word_of
from vmr_common.cli.query_options import add_data_root
from vmr_common.errors import UserError, counted
from vmr_search.cli.retriever_options import (
    ZERO_SHOT,
    Corpus,
    add_options,
    device_of,
    trained,
    without_training,
)

if TYPE_CHECKING:
    from vmr_common.features.store import FeatureStore
    from vmr_search.folder import CorpusIndex
    from vmr_video.decoding import Failed

ABOUT = (
    "Encodes every video of a collection once, so that a sentence is found in all of them. Give video files and "
    "folders, or files of features that are there already (--features); and a trained model (--checkpoint), or none "
    "(--retriever zero-shot). Killed, the same command goes on."
)
logger = logging.getLogger(__name__)


def add(parser: ArgumentParser) -> None:
    """Sets the options."""
    option = parser.add_argument
    option("index", type=Path, metavar="INDEX", help="folder of the index")
    option(
        "videos",
        nargs="*",
        type=Path,
        metavar="VIDEO",
        help="video files, and folders with them at any depth",
    )
    add_options(parser.add_argument_group("what makes the vectors"))
    ready = parser.add_argument_group("features that are there").add_argument
    ready(
        "--features",
        nargs="+",
        help="HDF5 file or folder with features instead of videos; several are joined",
    )
    ready("--key", help="data set inside a video's group, or array of an npz file")
    ready("--durations", help="seconds by video: CSV with id and length, or a JSON object")
    ready("--split", help="only the videos of a registered split, such as shapes/test, with their durations")
    ready(
        "--allow-other-features", action="store_true", help="features made otherwise than the model's: go on"
    )
    add_data_root(parser)
    kept = parser.add_argument_group("where they are kept").add_argument
    kept(
        "--engine",
        help="scan (exact, default), lance (a local folder or an object store) or qdrant (a server)",
    )
    kept("--url", help="where the engine is, if not in the folder")
    change = parser.add_argument_group("changing an index").add_argument
    change("--add", action="store_true", help="add further videos; those that are there are kept")
    change("--replace", action="store_true", help="likewise; those that are there are encoded anew")
    change("--remove", nargs="+", type=free_text, metavar="ID", help="take videos out")
    change("--compact", action="store_true", help="free the space of what was removed")
    change("--verify", action="store_true", help="read all of it, and compare the checksums")


def run(options: Namespace) -> None:
    """Builds, or changes.

    Raises:
        UserError: if options do not fit together; as what they ask for.
    """
    from vmr_common.splits.load import data_root

    options.data_root = data_root(options.data_root)
    if options.remove or options.compact or options.verify:
        _maintain(options)
    else:
        try:
            _build(options)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on where it stopped") from None


def _maintain(options: Namespace) -> None:
    for name in (
        "videos",
        "checkpoint",
        "retriever",
        "features",
        "durations",
        "split",
        "engine",
        "add",
        "replace",
    ):
        if getattr(options, name):
            shown = "VIDEO" if name == "videos" else f"--{name}"
            raise UserError(f"{shown} builds or adds; give it without --remove, --compact and --verify")
    from vmr_search.folder import open_index
    from vmr_search.video_features import drop_features

    with contextlib.closing(open_index(options.index)) as index:
        if options.remove:
            gone = list(dict.fromkeys(options.remove))
            index.engine.remove(gone)
            drop_features(index.folder, set(gone))
            echo(f"{counted(len(gone), 'video')} removed")
        if options.compact:
            index.engine.compact()
        if options.verify:
            index.verify()
            echo("all of it is as it was written")
        echo(_summary(index))


def _build(options: Namespace) -> None:
    _check(options)
    from vmr_search.folder import address_of, is_index

    exists = is_index(options.index)
    if (options.add or options.replace) and not exists:
        raise UserError(f"{options.index}: no index to add to")
    if not exists:
        address_of(options.engine or "scan", options.url, "--url")
        if options.engine == "qdrant" and options.url is None:
            logger.warning(
                "qdrant without --url: the embedded mode of its client, in the folder of the index, for trials alone"
            )
    corpus = _of_features(options) if options.features else _of_videos(options)
    failed: list[Failed] = []
    with contextlib.closing(_opened(options) if exists else _created(options, corpus)) as index:
        if exists or corpus.files:
            _extend(options, index, corpus, failed, exists=exists)
        echo(_summary(index), *_next(options, index))
    _require_all(failed, len(corpus.videos))


def _extend(
    options: Namespace, index: CorpusIndex, corpus: Corpus, failed: list[Failed], *, exists: bool
) -> None:
    """Adds the videos of a corpus, whose features are made if there are none; says how many, if some may be there."""
    from vmr_search.building import absent, extend

    before = absent(index, corpus.videos)
    if exists and not (options.add or options.replace):
        _require_resumable(index, corpus.videos)
    with _made(options, index, corpus, failed) if corpus.store is None else corpus.store as store:
        count = extend(
            index,
            store,
            corpus.seconds,
            videos=[video for video in corpus.videos if video in corpus.seconds or not corpus.files],
            replace=options.replace,
            report=_report,
            allow_other_features=options.allow_other_features,
        )
    if exists:
        there = len(corpus.videos) - len(before)
        echo(f"{counted(count, 'video')} encoded" + _there(there, options.replace))


def _report(done: int) -> None:
    logger.info("%s encoded, and in the index", counted(done, "video"))


def _there(count: int, replaced: bool) -> str:
    if not count:
        return ""
    became = "replaced" if replaced else "there already and kept (--replace encodes anew)"
    return f"; {counted(count, 'video')} {became}"


def _check(options: Namespace) -> None:
    if bool(options.videos) == bool(options.features):
        raise UserError("give either video files and folders, or --features")
    for name in ("key", "durations", "split"):
        if getattr(options, name) and not options.features:
            raise UserError(f"--{name} is for --features")
    if options.checkpoint is not None and options.retriever == ZERO_SHOT:
        raise UserError(f"--checkpoint is for a trained model, {ZERO_SHOT} has none")
    for name in ("extractor", "fps"):
        if getattr(options, name) and options.retriever != ZERO_SHOT:
            raise UserError(f"--{name} is for --retriever {ZERO_SHOT}; a trained model says what it needs")


def _of_features(options: Namespace) -> Corpus:
    from vmr_common.features.store import FeatureStore
    from vmr_common.splits.load import load_split
    from vmr_common.splits.sources import found_path, require_files
    from vmr_common.splits.text_files import read_durations
    from vmr_search.video_features import seconds_of

    root, known, videos = options.data_root, {}, None
    if options.split is not None:  # first: an embedded data set is made on its first use
        queries = load_split(options.split, root, count=False).queries
        known = {query.video: query.duration for query in queries}
        videos = list(known)
    require_files([*options.features, *([options.durations] if options.durations else ())], root)
    store = FeatureStore([found_path(path, root) for path in options.features], key=options.key)
    if options.durations is not None:
        known |= read_durations(found_path(options.durations, root))
    wanted = store.videos() if videos is None else videos
    if not wanted:
        raise store.empty()
    return Corpus(wanted, store, seconds_of(store, wanted, known), [])


def _of_videos(options: Namespace) -> Corpus:
    from vmr_video.media import video_files

    files = video_files(options.videos)
    return Corpus([video for video, _ in files], None, {}, files)


def _made(options: Namespace, index: CorpusIndex, corpus: Corpus, failed: list[Failed]) -> FeatureStore:
    """The features of video files, as the retriever of an index needs them."""
    from vmr_search.video_features import extend_features

    manifest = index.retriever.manifest
    if corpus.extractor is None:
        from vmr_video.alike import extractor_like

        corpus.extractor = extractor_like(manifest, weights=options.weights, device=device_of(options))
    store, corpus.seconds = extend_features(
        index.folder,
        corpus.extractor,
        corpus.files,
        failed=failed,
        anew=options.replace,
        dtype=getattr(manifest, "dtype", None),
        workers=options.workers,
    )
    return store


def _created(options: Namespace, corpus: Corpus) -> CorpusIndex:
    """A new index: of features that are there with all of them, for video files an empty one."""
    from vmr_search.building import build
    from vmr_search.folder import create, require_writable

    require_writable(options.index)  # before a network is loaded
    retriever = without_training(options, corpus) if options.retriever == ZERO_SHOT else trained(options)
    engine, url = options.engine or "scan", options.url
    if corpus.store is None:
        return create(options.index, retriever, engine=engine, url=url, features=retriever.manifest)
    with corpus.store as store:
        return build(
            options.index,
            retriever,
            store,
            corpus.seconds,
            videos=corpus.videos,
            engine=engine,
            url=url,
            report=_report,
            allow_other_features=options.allow_other_features,
        )


def _opened(options: Namespace) -> CorpusIndex:
    from vmr_search.folder import address_of, open_index
    from vmr_video.networks.weights import device_of as torch_device

    index = open_index(options.index, device=str(torch_device(options.device)))
    for name, there in (
        ("engine", index.facts.engine),
        ("url", index.facts.url),
        ("retriever", index.facts.retriever),
    ):
        given = getattr(options, name)
        if name == "url":
            given = address_of(index.facts.engine, given, "--url")
        if given not in (None, there):
            raise UserError(f"{options.index}: its {name} is {there}, --{name} says {given}")
    if options.checkpoint is not None:
        index.require_same(trained(options))
    return index


def _require_resumable(index: CorpusIndex, videos: list[str]) -> None:
    foreign = sorted(set(index.engine.videos()) - set(videos))
    if foreign:
        raise UserError(
            f"{index.folder}: holds an index with other videos ({foreign[0]!r} is not among those given); --add or "
            "--replace adds to it, or choose another folder"
        )


def _summary(index: CorpusIndex) -> str:
    facts = index.facts
    size = sum(path.stat().st_size for path in index.folder.rglob("*") if path.is_file())
    where = facts.url or f"{size / 1e6:,.1f} MB"
    return (
        f"{index.folder}: {counted(len(index.engine), 'video')}, {facts.retriever} in {facts.engine}, {where}"
    )


def _next(options: Namespace, index: CorpusIndex) -> list[str]:
    if not len(index.engine):
        return []
    return [f'next  {shlex.join(["vmr-search", "search", word_of(options.index)])} "..."']


def _require_all(failed: list[Failed], total: int) -> None:
    if failed:
        from vmr_video.alike import require_all_read

        require_all_read(failed, total)
