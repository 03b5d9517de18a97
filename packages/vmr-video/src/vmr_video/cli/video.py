"""``vmr-video``: moments of video files without any training, and what a file is."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vmr_common.cli.entrypoint import Parser, command, echo, free_text, option_words, word_of
from vmr_common.cli.numbers import real, seconds, whole
from vmr_common.cli.query_options import add_data_root, add_options, chosen_split
from vmr_common.errors import UserError, counted, one_line, quoted
from vmr_common.io import read_text
from vmr_common.splits.load import data_root
from vmr_common.types import encode_id
from vmr_video.answers import files

if TYPE_CHECKING:
    from vmr_video.answers import Answer

_SEARCH = """
Finds the moments of sentences in videos by the likeness of frames and sentence alone (CLIP, SigLIP): no training, and a
baseline for what is trained. An argument that is there as a file or folder is a video, any other a sentence. Over
features that are there already (--features, --sentences, --annotations) it writes predictions that vmr-score reads.
"""


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``vmr-video``."""
    options = parse(argv)
    options.run(options)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options; videos and sentences may also stand behind some of them.

    Raises:
        UserError: if they are not understood.
    """
    parser = Parser(prog="vmr-video", description="Looks into video files.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_search(commands.add_parser("search", help="find moments, without any training", description=_SEARCH))
    about = "Says what the pictures of video files are."
    probe = commands.add_parser("probe", help="say what a file is", description=about)
    probe.add_argument("inputs", nargs="+", metavar="VIDEO", help="video files or folders")
    probe.add_argument("--json", action="store_true", help="print JSON lines")
    probe.set_defaults(run=_probe)
    options: argparse.Namespace
    options, more = parser.parse_known_args(argv)
    cut = more.index("--") if "--" in more else len(more)
    unknown = [word for word in more[:cut] if word.startswith("-")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.inputs += more[:cut] + more[cut + 1 :]
    return options


def _add_search(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_search)
    add = parser.add_argument
    add("inputs", nargs="*", metavar="VIDEO|SENTENCE", help="video files and folders, and sentences")
    about = "a sentence, whatever it looks like; may be repeated"
    add("--query", action="append", type=free_text, default=[], help=about)
    add("--queries", metavar="FILE", help="text file with a sentence on each line")
    add("-k", type=whole(1, 1000), default=5, help="moments of each sentence in each video (default 5)")
    add("--json", action="store_true", help="print JSON lines")
    files.add_options(parser)
    making = parser.add_argument_group("features of videos").add_argument
    making("--extractor", default="clip-vit-b32", help="one that reads sentences (default clip-vit-b32)")
    making("--weights", help="folder with its weights, or a name on a hub (default: the published ones)")
    making("--fps", type=real(0, 1000, above=True), help="frames per second that are encoded (default 2)")
    making("--cache", type=Path, help="folder that keeps features of videos (default: that of vmr-extract)")
    making("--device", help="auto (default), cpu, cuda, cuda:0 or mps")
    making("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="(default fp32)")
    making(
        "--workers", type=whole(1, 256), help="processes that decode (default: by the number of processors)"
    )
    group = parser.add_argument_group("or features that are there")
    ready = group.add_argument
    ready(
        "--features",
        nargs="+",
        help="file or folder with frame features of videos; several are joined",
    )
    ready("--key", help="data set in each video's group, or array in each npz file")
    ready(
        "--sentences",
        type=Path,
        help="file with sentence vectors by query, as vmr-extract --annotations writes it",
    )
    ready("--stride", type=seconds, help="seconds from row to row (default: as the manifest says)")
    ready("--out", type=Path, help="file of predictions to write")
    add_options(group)
    add_data_root(group)


def _search(options: argparse.Namespace) -> None:
    options.data_root = data_root(options.data_root)
    if options.features or options.sentences or options.out:
        _over_features(options)
        return
    files.check(options)
    paths, texts = _inputs(options)
    from vmr_video.alike import require_all_read
    from vmr_video.decoding import Failed, default_workers
    from vmr_video.extractor import ExtractorOptions
    from vmr_video.media import video_files
    from vmr_video.search import search

    chosen = ExtractorOptions(
        weights=options.weights, fps=options.fps, device=options.device, precision=options.precision
    )
    videos = video_files(paths)
    failed: list[Failed] = []
    answers = search(
        [path for _, path in videos],
        texts,
        extractor=options.extractor,
        options=chosen,
        cache=options.cache,
        workers=options.workers or default_workers(),
        k=options.k,
        failed=failed,
    )
    if options.json:
        numbers = {text: str(number) for number, text in enumerate(texts)}
        for answer in answers:
            number = numbers[answer.text]
            query = f"{answer.video.path.stem}/{number}" if len(videos) > 1 else number
            echo(json.dumps(_row(query, answer), ensure_ascii=False))
    else:
        echo("\n\n".join(map(_table, answers)))
    title = texts[0] if len(texts) == 1 else f"{len(texts)} sentences"
    lines = files.write(options, answers, title=title, k=options.k)
    if lines and not options.json:
        echo("", *lines)
    require_all_read(failed, len(videos))


def _inputs(options: argparse.Namespace) -> tuple[list[Path], list[str]]:
    """The videos and the sentences."""
    from vmr_video.media import SUFFIXES

    paths, texts = [], list(options.query)
    for word in options.inputs:
        path = Path(word)
        if path.exists() or path.is_symlink():
            paths.append(path)
        elif path.suffix.lower() in SUFFIXES:
            raise UserError(
                f"{word}: no such file or folder (a sentence that looks like one is given by --query)"
            )
        else:
            texts.append(word)
    if options.queries:
        texts += [line.strip() for line in read_text(options.queries).splitlines()]
    texts = [text for text in texts if text.strip()]
    if not paths:
        found = f"; found {quoted(options.inputs[0], 60)}, which is no file here" if options.inputs else ""
        raise UserError(f"name at least one video (a file or a folder){found}")
    if not texts:
        raise UserError('give at least one sentence, for example: vmr-video search movie.mp4 "a dog jumps"')
    return paths, list(dict.fromkeys(texts))


def _table(answer: Answer) -> str:
    from vmr_video.answers import time_code

    lines = [f"{answer.video.path.name}  {answer.text}"]
    lines.append(f"{'rank':>4}  {'start':>10}  {'end':>10}  {'score':>8}")
    lines += [
        f"{rank:>4}  {time_code(start):>10}  {time_code(end):>10}  {score:8.3f}"
        for rank, start, end, score in answer.within()
    ]
    return "\n".join(lines)


def _row(query: str, answer: Answer) -> dict[str, object]:
    found = [[start, end, score] for _, start, end, score in answer.within()]
    return {
        "qid": encode_id(query),
        "query": answer.text,
        "vid": answer.video.path.stem,
        "pred_relevant_windows": found,
    }


def _over_features(options: argparse.Namespace) -> None:
    if not (options.features and options.sentences and options.out):
        raise UserError("--features, --sentences and --out go together, with --annotations or --split")
    if options.inputs or options.query or options.queries or options.page or options.cut or options.export:
        raise UserError("give either videos and sentences, or --features with --sentences and --out")
    from vmr_common.features.store import FeatureStore
    from vmr_common.splits.sources import found_path
    from vmr_common.types import write_predictions
    from vmr_video.search import search_files, sentence_vectors

    split = chosen_split(options, options.split, count=False)
    if split is None:
        raise UserError("which queries? give --annotations FILE or --split NAME")
    frames = FeatureStore([found_path(path, options.data_root) for path in options.features], key=options.key)
    sentences = sentence_vectors(found_path(str(options.sentences), options.data_root))
    predictions = search_files(frames, sentences, split.queries, stride=options.stride, k=options.k)
    write_predictions(options.out, predictions)
    name = "split" if options.split else "annotations"
    which = shlex.join([word_of(options.out), *option_words(f"--{name}", getattr(options, name))])
    echo(f"{options.out}: answers to {counted(len(predictions), 'query')}", f"next  vmr-score {which}")


def _probe(options: argparse.Namespace) -> None:
    from vmr_video.answers import time_code
    from vmr_video.media import files_of, probe

    failed = 0
    for path in sorted({path for given in options.inputs for path in files_of(Path(given))}):
        try:
            info = probe(path)
        except UserError as error:
            echo(f"failed: {one_line(str(error))}")
            failed += 1
            continue
        if options.json:
            facts = {
                name: getattr(info, name)
                for name in ("duration", "width", "height", "fps", "codec", "rotation")
            }
            echo(json.dumps({"file": str(path), **facts}))
        else:
            turned = f", turned by {info.rotation} degrees" if info.rotation else ""
            size = f"{info.width} x {info.height}{turned}"
            shown, rate = one_line(str(path)), f"{info.fps:.4g} frames per second"
            echo(f"{shown}: {time_code(info.duration)}, {size}, {rate}, {info.codec}")
    if failed:
        files_are = (
            "1 file cannot be read as a video"
            if failed == 1
            else f"{failed:,} files cannot be read as videos"
        )
        raise UserError(f"{files_are}, listed above")
