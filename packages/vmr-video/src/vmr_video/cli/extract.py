"""``vmr-extract``: features of videos and of sentences, in files that all papers read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vmr_common.cli import query_options
from vmr_common.cli.entrypoint import Parser, command, echo
from vmr_common.cli.numbers import real, seconds, whole
from vmr_common.errors import UserError, counted, one_line, quoted
from vmr_common.splits.load import data_root

if TYPE_CHECKING:
    from vmr_video.extractor import ExtractorKind, ExtractorOptions

_DEFAULT = "clip-vit-b32"
_MOST_SHARDS = 1_000_000


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``vmr-extract``."""
    options = _parser().parse_intermixed_args(argv)
    options.data_root = data_root(options.data_root)
    if options.list_extractors:
        _list()
    elif options.clear_cache:
        _clear(options)
    elif options.verify is not None:
        _verify(options)
    elif options.annotations is not None or options.split is not None:
        _sentences(options)
    else:
        try:
            _videos(options)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on with the videos that are left") from None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="vmr-extract",
        description="Makes features of videos (VIDEO ... --out features.h5) or of sentences (--annotations FILE --out "
        "text.h5) by a pretrained network. Killed, the same command goes on; an --out that is there is added to.",
    )
    add = parser.add_argument
    add(
        "inputs",
        nargs="*",
        type=Path,
        metavar="VIDEO",
        help="video files, and folders with video files at any depth",
    )
    add("--out", type=Path, help="HDF5 file to write")
    add("--extractor", default=None, help=f"what makes the rows, see --list-extractors (default {_DEFAULT})")
    add("--list-extractors", action="store_true", help="list what can be named, and end")
    add(
        "--weights",
        help="folder or file with the network's weights, or a name on a hub (default: the published ones)",
    )
    add(
        "--fps",
        type=real(0, 1000, above=True),
        help="frames per second of video that are taken (default: 1 of networks on pictures)",
    )
    add("--stride", type=seconds, help="seconds from row to row, of networks on clips of frames (default 1)")
    add(
        "--sampling",
        choices=("middle", "start"),
        help="frame k is the last before (k + 1/2) / fps, as most published "
        "features (middle, default), or that at k / fps (start)",
    )
    add("--normalise", action="store_true", help="divide each row by its length")
    add("--dtype", choices=("float16", "float32"), help="of the stored numbers (default float32)")
    add("--device", help="auto (default), cpu, cuda, cuda:0 or mps")
    add(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        default="fp32",
        help="in which the network computes (default fp32)",
    )
    add(
        "--batch",
        type=whole(1, 100_000),
        default=None,
        help="frames in one call of the network (default 32, on a GPU 256)",
    )
    add(
        "--workers",
        type=whole(0, 256),
        default=None,
        help="processes that decode; 0: none, and no time limit (default: by the number of processors)",
    )
    add(
        "--time-limit",
        type=seconds,
        default=120.0,
        help="seconds without a new picture after which a video is given up (default 120)",
    )
    add(
        "--shard",
        type=shard,
        metavar="I/N",
        help="of the videos only the I-th of N parts, told by their ids: the same command with 1/N to N/N on as many "
        "machines, each with an --out of its own",
    )
    add("--strict", action="store_true", help="stop at the first video that cannot be read")
    add("--overwrite", action="store_true", help="replace --out instead of adding to it")
    add(
        "--verify",
        type=Path,
        metavar="FILE",
        help="instead: extract a few of the videos anew, and say how a file made elsewhere was made",
    )
    add("--sample", type=whole(1), default=3, help="videos that --verify compares (default 3)")
    add(
        "--cache",
        type=Path,
        help="folder of rows that commands with --video-file keep (default: $XDG_CACHE_HOME/vmr, else ~/.cache/vmr)",
    )
    add(
        "--clear-cache", action="store_true", help="delete the rows in that folder, and nothing else, and end"
    )
    query_options.add_data_root(parser)
    query_options.add_options(parser)
    return parser


def _list() -> None:
    from vmr_video.extractor import kinds

    width = max(map(len, kinds()))
    echo(*(f"{name:{width}}  {kind.about}" for name, kind in kinds().items()))


def _clear(options: argparse.Namespace) -> None:
    from vmr_video.cache import Cache

    cache = Cache(options.cache)
    count, size = cache.clear()
    echo(f"{cache.folder}: deleted the rows of {counted(count, 'video')}, {size / 1e6:.1f} MB")


def shard(text: str) -> tuple[int, int]:
    """The type of ``--shard``: number of a part and how many there are.

    Example:
        >>> shard("2/16")
        (2, 16)
    """
    number, _, count = (part.strip() for part in text.partition("/"))
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) <= _MOST_SHARDS):
        raise argparse.ArgumentTypeError(
            f"expected I/N with 1 <= I <= N <= {_MOST_SHARDS:,}, found {quoted(text, 60)}"
        )
    return int(number), int(count)


def _chosen(options: argparse.Namespace) -> tuple[ExtractorKind, ExtractorOptions]:
    from vmr_video.extractor import ExtractorOptions, kind_of

    kind = kind_of(options.extractor or _DEFAULT)
    chosen = ExtractorOptions(
        weights=options.weights,
        fps=options.fps,
        stride_s=options.stride,
        sampling=options.sampling,
        normalise=options.normalise or None,
        device=options.device,
        precision=options.precision,
    )
    return kind, chosen


def _out(options: argparse.Namespace) -> Path:
    out: Path | None = options.out
    if out is None:
        raise UserError("--out is missing: the file to write, for example --out features.h5")
    if not out.parent.is_dir() and out.parent.exists():
        raise UserError(f"--out {out}: {out.parent} is no folder")
    if out.is_dir():
        raise UserError(f"--out {out}: expected the name of a file, found a folder")
    return out


def _workers(options: argparse.Namespace) -> int:
    if options.workers is not None:
        return int(options.workers)
    from vmr_video.decoding import default_workers

    return default_workers()


def _videos(options: argparse.Namespace) -> None:
    if not options.inputs:
        raise UserError(
            "nothing to do: name video files or folders, or --annotations (see vmr-extract --help)"
        )
    out = _out(options)
    from vmr_video.extract import extract_file, held_already, of_shard, sources_of
    from vmr_video.media import video_files

    videos = video_files(options.inputs)
    if not videos:
        raise UserError(f"{sources_of(options.inputs)}: no video files there")
    if options.shard is not None:
        total, videos = len(videos), of_shard(videos, *options.shard)
        if not videos:  # with few videos in many parts that is as it should be
            echo(f"{out}: none of {counted(total, 'video')} is in this part, nothing to write")
            return
    kind, chosen = _chosen(options)
    if not options.overwrite and (kept := held_already(out, kind, chosen, videos, options.dtype)):
        echo(_nothing_new(out, kept))
        return
    extractor = kind.load(chosen)
    gpu = _is_gpu(options.device)
    outcome = extract_file(
        out,
        kind,
        extractor,
        videos,
        workers=_workers(options),
        batch=options.batch or (256 if gpu else 32),
        across=gpu,
        dtype=options.dtype,
        source=sources_of(options.inputs),
        strict=options.strict,
        overwrite=options.overwrite,
        time_limit=options.time_limit,
    )
    for failure in outcome.failed:
        echo(f"failed: {one_line(failure.reason)}")
    beside = f", beside {outcome.kept:,} that it held before" if outcome.kept else ""
    said = (
        f"{out}: rows of {counted(outcome.added, 'video')}{beside}"
        if outcome.added
        else _nothing_new(out, outcome.kept)
    )
    if outcome.failed:
        raise UserError(
            f"{said}; {len(outcome.failed):,} of {counted(len(videos), 'video')} failed, listed above"
        )
    echo(said)


def _nothing_new(out: Path, kept: int) -> str:
    return f"{out}: nothing new beside {counted(kept, 'video')} that it holds"


def _is_gpu(device: str | None) -> bool:
    from vmr_video.networks.weights import device_of

    return device_of(device).type != "cpu"


def _sentences(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    if options.inputs:
        raise UserError("give either videos or --annotations, and not both")
    out = _out(options)
    if out.exists() and not options.overwrite:
        raise UserError(f"{out}: is there already; --overwrite replaces it")
    split = query_options.chosen_split(options, options.split)
    assert split is not None
    from vmr_video.sentences import SentenceEncoder, pairs, write_sentences

    kind, chosen = _chosen(options)
    queries = pairs(split.queries)
    encoder = SentenceEncoder(kind.name, chosen)
    with tqdm(total=len(queries), unit="sentence", delay=2, disable=None, leave=False) as bar:
        count = write_sentences(
            out,
            encoder,
            queries,
            dtype=options.dtype or "float32",
            source=options.annotations or options.split,
            step=bar.update,
        )
    echo(f"{out}: token and sentence vectors of {counted(count, 'query')}")


def _verify(options: argparse.Namespace) -> None:
    from vmr_video.media import video_files
    from vmr_video.verify import verify

    if not options.inputs:
        raise UserError("--verify compares a file with videos: name some of those that it was made of")
    videos = video_files(options.inputs)
    _, chosen = _chosen(options)
    names = [options.extractor] if options.extractor else []
    workers = _workers(options)
    echo(
        verify(
            options.verify,
            videos,
            extractors=names,
            options=chosen,
            sample=options.sample,
            workers=workers,
            batch=options.batch or 32,
        )
    )
