"""What ``vmr-data`` does with object features: options, describing, checking, converting."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

from leorn.object_features.convert import convert_objects
from leorn.object_features.prepare import ASSUMED, ObjectManifest, ObjectStore, check_objects
from leorn.object_features.regions import ORDERS, SLOTS, UNITS, BoxForm, RegionFolder
from vmr_common.cli.numbers import real, whole
from vmr_common.errors import UserError
from vmr_common.features.manifest import creator
from vmr_common.splits.load import found_path


def add_options(parser: argparse.ArgumentParser) -> None:
    """The option that says where object features are."""
    about = "object features: HDF5 file (for convert also a folder of npy or npz files per video or frame)"
    parser.add_argument("--objects", help=about)


def add_slots(parser: argparse.ArgumentParser) -> None:
    """The option that says how many objects a frame has."""
    parser.add_argument("--slots", type=whole(1), help="objects per frame: those wanted of --objects")


def add_conversion(parser: argparse.ArgumentParser) -> None:
    """The options of a conversion of object features."""
    group = parser.add_argument_group("object features")
    add = group.add_argument
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
    add("--detector", help="manifest: network, training data and weights that made the features")
    add("--weights-hash", help="manifest: SHA-256 of the detector's weights")
    add("--frame-sampling", help="manifest: which frames of the video the detector saw, in words")


def open_store(arguments: argparse.Namespace, **expected: int | None) -> ObjectStore:
    """The HDF5 file of ``--objects``."""
    return ObjectStore(found_path(arguments.objects, arguments.data_root), **expected)


def problems(store: ObjectStore, videos: Iterable[str], arguments: argparse.Namespace) -> Iterator[str]:
    """What is wrong with the objects of some videos, one by one."""
    for video in videos:
        yield from check_objects(store, [video], arguments.dim, arguments.slots)


def open_source(arguments: argparse.Namespace) -> ObjectStore | RegionFolder:
    """What ``--objects`` of a conversion names: a folder of detections, or an HDF5 file."""
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


def convert(
    arguments: argparse.Namespace,
    source: ObjectStore | RegionFolder,
    videos: Sequence[str],
    step: Callable[[int], object],
) -> int:
    """Writes the objects of some videos to ``--out``; the number of videos.

    Raises:
        UserError: as `convert_objects`.
    """
    boxes = None
    if isinstance(source, ObjectStore):
        boxes = _restated_boxes(arguments, source.manifest or ASSUMED)
    return convert_objects(
        source,
        arguments.out,
        _manifest(arguments, source, boxes),
        dtype=arguments.dtype or "float16",
        frames=arguments.frames,
        boxes=boxes,
        videos=videos,
        step=step,
    )


def _restated_boxes(arguments: argparse.Namespace, manifest: ObjectManifest) -> BoxForm | None:
    """How the boxes of an HDF5 file are written, or None where they are in our form already."""
    form = _box_form(arguments)
    order = arguments.box_order or manifest.box_order or ORDERS[0]
    units = arguments.box_units or ("pixels" if form.size else manifest.box_units) or UNITS[0]
    if (order, units) == (ORDERS[0], UNITS[0]):
        return None
    return dataclasses.replace(form, order=order, units=units)


def _manifest(
    arguments: argparse.Namespace, source: ObjectStore | RegionFolder, boxes: BoxForm | None
) -> ObjectManifest:
    names = ("detector", "weights_hash", "frame_sampling", "source")
    stated = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if boxes is not None:
        stated |= {"box_order": ASSUMED.box_order, "box_units": ASSUMED.box_units}
    return dataclasses.replace(source.manifest or ASSUMED, creator=creator(), **stated)
