"""``leorn-objects``: what object features hold, whether they fit a split, converting them, and those of Shapes."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from leorn.object_features.box_form import ORDERS, UNITS, BoxForm
from leorn.object_features.checking import check_objects
from leorn.object_features.convert import convert_objects
from leorn.object_features.layouts import ASSUMED, ObjectManifest
from leorn.object_features.regions import SLOTS, RegionFolder
from leorn.object_features.store import ObjectStore
from vmr_common.cli import query_options
from vmr_common.cli.entrypoint import command, echo, free_text
from vmr_common.cli.info import manifest_lines, span
from vmr_common.cli.numbers import real, whole
from vmr_common.cli.query_options import chosen_split
from vmr_common.cli.shared import (
    PATHS,
    Commands,
    add_conversion,
    bar,
    conclude,
    echo_each,
    progress,
    stated,
    videos_of,
)
from vmr_common.errors import UserError, counted
from vmr_common.features.manifest import creator
from vmr_common.splits.sources import found_path, require_files
from vmr_shapes.spec import LONG, SHORT


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``leorn-objects``."""
    _commands().run(argv)


def _commands() -> Commands:
    commands = Commands("leorn-objects", f"Looks into object features of videos. {PATHS}")

    _add_objects(commands.add("info", _info, "Describe a file of object features."))

    about = "List every problem of object features; status 2 if there is one."
    check = commands.add("check", _check, about)
    query_options.add_options(check)
    _add_objects(check)
    check.add_argument("--slots", type=whole(1), help="objects per frame that are wanted")
    check.add_argument("--dim", type=whole(1), help="expected width of an object's feature")

    convert = commands.add("convert", _convert, "Write object features as one HDF5 file.")
    query_options.add_options(convert)
    _add_objects(convert, " (also a folder of npy or npz files per video or frame)")
    add_conversion(convert, "float16")
    _add_objects_conversion(convert)

    about = "Make the object features of the embedded data set Shapes (also done on first use)."
    shapes = commands.add("shapes", _shapes, about)
    shapes.add_argument("--long", action="store_true", help="those of shapes-long")
    shapes.add_argument(
        "--folder", help="of the data set (default: shapes or shapes-long under the data root)"
    )

    return commands


def _add_objects(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument("--objects", required=True, help=f"object features: an HDF5 file{more}")


def _info(arguments: argparse.Namespace) -> None:
    require_files([arguments.objects], arguments.data_root)
    with _open_store(arguments) as store:
        lengths = [store.length(video) for video in progress(store.videos(), "reading lengths")]
        echo(*object_lines(store, lengths))


def object_lines(store: ObjectStore, lengths: Sequence[int]) -> list[str]:
    """Describes an object file, given the frames of each video, and how it was made.

    Raises:
        UserError: if it holds no video.
    """
    objects, dim = store.objects, store.dim
    about = (
        f"{store.name}: {counted(len(lengths), 'video')}, {span(lengths, 'frame')} of {counted(objects, 'object')}, "
        f"{counted(dim, 'column')}"
    )
    boxes = f"boxes {ASSUMED.box_order}, {ASSUMED.box_units}, objects by {ASSUMED.object_order}"
    return [about, *manifest_lines(store.manifest, f"; assumed: {boxes}")]


def _check(arguments: argparse.Namespace) -> None:
    split = chosen_split(arguments, arguments.split)
    if split is not None:
        echo(*split.report.lines())
    with _open_store(arguments) as store:
        videos = videos_of(store, split)
        if not videos:
            raise UserError(f"{store.name}: holds no video")
        problems = sum(
            echo_each(check_objects(store, [video], arguments.dim, arguments.slots))
            for video in progress(videos, "checking objects")
        )
    conclude(store.name, problems, counted(len(videos), "video"))


def _shapes(arguments: argparse.Namespace) -> None:
    from leorn.object_features.shapes_file import ensure_objects

    name, spec = ("shapes-long", LONG) if arguments.long else ("shapes", SHORT)
    folder = Path(arguments.folder) if arguments.folder else arguments.data_root / name
    echo(f"the objects of Shapes are in {ensure_objects(folder, spec)}")


def _open_store(arguments: argparse.Namespace) -> ObjectStore:
    return ObjectStore(found_path(arguments.objects, arguments.data_root))


def _add_objects_conversion(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dim", type=whole(1), help="width of an object's feature")
    add(
        "--slots",
        type=whole(1),
        help=f"objects to keep per frame (default: those of an HDF5 file, {SLOTS} of a folder)",
    )
    add("--frames", type=whole(1), help="frames to keep per video, evenly (default: all)")
    add("--box-order", choices=ORDERS, help=f"what the numbers of a box are (default: {ORDERS[0]!r})")
    add(
        "--box-units",
        choices=UNITS,
        help="default: pixels where the picture's size is known, else normalised",
    )
    add(
        "--image-size",
        nargs=2,
        type=real(0, 1e6, above=True),
        metavar=("W", "H"),
        help="pixels, where the files do not say it",
    )
    add(
        "--missing",
        choices=("error", "fill"),
        default="error",
        help="files without confidences or boxes: an error (default), or confidence 1 and the whole picture",
    )
    add(
        "--detector",
        type=free_text,
        help="manifest: network, training data and weights that made the features",
    )
    add("--weights-hash", help="manifest: SHA-256 of the detector's weights")
    add(
        "--frame-sampling",
        type=free_text,
        help="manifest: which frames of the video the detector saw, in words",
    )
    add("--source", type=free_text, help="manifest: where the features come from")


def _convert(arguments: argparse.Namespace) -> None:
    split = chosen_split(arguments, arguments.split)
    with contextlib.closing(_open_source(arguments)) as source:
        boxes = None
        if isinstance(source, ObjectStore):
            boxes = _restated_boxes(arguments, source.manifest or ASSUMED)
        videos = videos_of(source, split)
        with bar(len(videos), "video") as done:
            written = convert_objects(
                source,
                arguments.out,
                _manifest(arguments, source, boxes),
                dtype=arguments.dtype,
                frames=arguments.frames,
                boxes=boxes,
                videos=videos,
                step=done.update,
            )
        echo(f"{arguments.out}: {written:,} videos of {source.objects} objects per frame written")


def _open_source(arguments: argparse.Namespace) -> ObjectStore | RegionFolder:
    """The source that ``--objects`` of a conversion names: a folder of detections, or an HDF5 file."""
    path = found_path(arguments.objects, arguments.data_root)
    if not path.is_dir():
        if arguments.missing != "error":
            raise UserError(f"--missing {arguments.missing} is for folders, {path} is none")
        return ObjectStore(path, objects=arguments.slots, dim=arguments.dim)
    slots = SLOTS if arguments.slots is None else arguments.slots
    return RegionFolder(
        path, objects=slots, dim=arguments.dim, boxes=_box_form(arguments), missing=arguments.missing
    )


def _box_form(arguments: argparse.Namespace) -> BoxForm:
    size = arguments.image_size
    return BoxForm(
        order=arguments.box_order or ORDERS[0],
        units=arguments.box_units,
        size=None if size is None else (size[0], size[1]),
    )


def _restated_boxes(arguments: argparse.Namespace, manifest: ObjectManifest) -> BoxForm | None:
    """The form of the boxes of an HDF5 file, or None where it is ours already."""
    form = _box_form(arguments)
    order = arguments.box_order or manifest.box_order or ORDERS[0]
    units = arguments.box_units or ("pixels" if form.size else manifest.box_units) or UNITS[0]
    if (order, units) == (ORDERS[0], UNITS[0]):
        return None
    return dataclasses.replace(form, order=order, units=units)


def _manifest(
    arguments: argparse.Namespace, source: ObjectStore | RegionFolder, boxes: BoxForm | None
) -> ObjectManifest:
    given = stated(arguments, ("detector", "weights_hash", "frame_sampling", "source"))
    if boxes is not None:
        given |= {"box_order": ASSUMED.box_order, "box_units": ASSUMED.box_units}
    if arguments.frames is not None:
        given |= {"stride_s": None}  # frames are spread over each video
    return dataclasses.replace(source.manifest or ASSUMED, creator=creator(), **given)
