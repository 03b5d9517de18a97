"""Trained models from Python: the shared parts of `load`, `train` and `load_config`, which every paper offers.

A paper's `api.py` says how its inputs are opened and what it can show of an answer; everything else is here.
"""

from __future__ import annotations

import logging
import os
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from vmr_common.errors import UserError, listed, quoted
from vmr_common.splits.load import data_root as chosen_root
from vmr_common.types import Query
from vmr_train import needs
from vmr_train.answers import Explanation, Html, Moment, Predictions, Rows
from vmr_train.caches import LRUCache
from vmr_train.cli import requests
from vmr_train.cli.config import bundled_config, completed_config, stored_values, to_dict
from vmr_train.cli.fields import build, check_values, merged
from vmr_train.cli.options import train_options
from vmr_train.config import RunConfig
from vmr_train.feature_files import with_features
from vmr_train.given_features import given_features, is_video_file, several_features
from vmr_train.known_features import require_known
from vmr_train.run_files import PAGE
from vmr_train.video_files import Making

if TYPE_CHECKING:  # torch takes seconds to load, and configurations do without
    from torch import nn

    from vmr_common.features.manifest import Manifest
    from vmr_common.features.sameness import HasManifest
    from vmr_train.checkpoint import Checkpoint
    from vmr_train.cli.results import Results
    from vmr_train.feature_files import VideoStore
    from vmr_train.method import Asked

__all__ = [
    "Explanation",
    "Html",
    "Making",
    "Model",
    "Moment",
    "Opened",
    "Predictions",
    "Rows",
    "Run",
    "given_features",
    "load_config",
    "open_checkpoint",
    "train",
]
logger = logging.getLogger(__name__)
FILES = 4
"""Video files whose features a model keeps."""
Config = TypeVar("Config", bound=RunConfig)


# --- configurations ----------------------------------------------------------------------------------------


def load_config(
    package: str,
    schema: type[Config],
    config: str | os.PathLike[str] | Config,
    changes: Mapping[str, Any] | None,
) -> Config:
    """A configuration: a bundled name, a YAML file, or one at hand, with changes by dotted name.

    Raises:
        UserError: for a file that cannot be read, an unknown key (names the accepted ones) and a value that its field
            cannot hold.
    """
    if isinstance(config, schema):
        known = config
    else:
        known = bundled_config(
            package, schema, _path(config, "config", "a bundled name, a YAML file or a Config")
        )
    values = to_dict(known)
    for name, value in (changes or {}).items():
        *sections, key = name.split(".")
        nested: Any = {key: list(value) if isinstance(value, tuple) else value}
        for section in reversed(sections):
            nested = {section: nested}
        check_values(nested, schema, f"{package}: {name}")
        values = merged(values, nested, schema)
    return build(schema, values, f"{package}: ")


# --- training ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run; where a path is taken, it stands for its folder (``rgn.load(run)``).

    Attributes:
        folder: The run folder, ``runs/<package>/<name>``.
        results: Scores on the test split, as in its ``results.json``.

    Example:
        >>> run = Run(Path("runs/rgn/shapes"), Rows([], "rgn  47.0"))
        >>> run
        runs/rgn/shapes
        rgn  47.0
        >>> run.report, os.fspath(run)
        (PosixPath('runs/rgn/shapes/report.html'), 'runs/rgn/shapes')
    """

    folder: Path
    results: Rows

    @property
    def report(self) -> Path:
        """The page that shows it."""
        return self.folder / PAGE

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"{self.folder}\n{self.results!r}"


def train(
    package: str,
    run: Callable[[Config, Namespace], Results],
    config: Config,
    *,
    data_root: str | os.PathLike[str] | None,
    runs: str | os.PathLike[str],
    **given: bool,
) -> Run:
    """Trains as ``<package>-train`` does, with its options `given`; nothing is printed.

    Raises:
        UserError: if files of the configuration are missing, or as the run.
    """
    root = None if data_root is None else os.fspath(data_root)
    options = train_options(package, data_root=root, runs=os.fspath(runs), **given)
    needs.require_files(config, options.root)
    results = run(config, options)
    return Run(Path(runs) / package / config.name, _rows(results))


def _rows(results: Results) -> Rows:
    return Rows(results.to_dict(), results.text())


# --- a trained model ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Opened(Generic[Config]):
    """A checkpoint, its configuration with changes, and the data root.

    Attributes:
        package: The paper's package.
        config: The configuration.
        checkpoint: The checkpoint.
        root: The data root.
        allow_other_features: Features may be made in another way than those of the training.
    """

    package: str
    config: Config
    checkpoint: Checkpoint
    root: Path
    allow_other_features: bool = False
    _said: set[str] = field(default_factory=set)

    def require_known(self, store: VideoStore, **further: HasManifest | None) -> None:
        """Makes sure that features are made as those of the training; what is not known is a warning, once.

        Raises:
            UserError: as `known_features.require_known`.
        """
        described, allow = self.checkpoint.meta["describe"], self.allow_other_features
        require_known(self.config, store, described, allow=allow, warn=self.warn, **further)

    def warn(self, line: str) -> None:
        """Logs a warning that was not given before."""
        if line not in self._said:
            self._said.add(line)
            logger.warning("%s", line)


def open_checkpoint(
    package: str,
    schema: type[Config],
    checkpoint: str | os.PathLike[str],
    data_root: str | os.PathLike[str] | None,
    changes: Mapping[str, Any],
    allow_other_features: bool = False,
) -> Opened[Config]:
    """Reads a checkpoint file, or the best one of a run folder.

    Raises:
        UserError: as `load_checkpoint` and `load_config`.
    """
    from vmr_train.checkpoint import load_checkpoint

    path = _path(
        checkpoint, "checkpoint", "the path of a checkpoint file or of a run folder, or a finished Run"
    )
    found = load_checkpoint(path, package=package)
    stored = completed_config(stored_values(found), schema, package, f"configuration in {found.path}")
    root = chosen_root(None if data_root is None else os.fspath(data_root), found.data_root)
    return Opened(package, load_config(package, schema, stored, changes), found, root, allow_other_features)


class Model:
    """A trained model with its data, as `load` of a paper's package makes it.

    Attributes:
        package: The paper's package.
        config: The configuration that it was trained with.
        root: The data root, where its videos' features and annotations are.
        method: The paper's method: the network, its loss and its predictions.

    Args:
        opened: The checkpoint.
        method: With the checkpoint's weights.
        own: Opens the inputs of the configuration; called when a video is first asked for by its id.
        given: Inputs for a video that is not in them, and the id that they have it under; how those of a video file
            are made is its second argument.
        dataset: Queries as batches, from inputs and queries.
        explain: What the paper can show of the answer to the one query of a dataset.
        query_id: The id of a query, from its text and number.
        asked: As `dataset`, of sentences that are asked for, where vectors of new ones are made; how is the last
            argument.

    Example:
        >>> import rgn
        >>> model = rgn.load("runs/rgn/shapes")
        >>> found = model.predict("test-0000", "the orange triangle slides down", k=3)
        >>> len(found), found.moments.shape
        (3, (3, 2))
        >>> model.explain("test-0000", "the orange triangle slides down").show()[:7]
        '<figure'
        >>> model.evaluate("test")[0]["name"]
        'rgn'
    """

    def __init__(
        self,
        opened: Opened[Any],
        method: Any,
        *,
        own: Callable[[], Any],
        given: Callable[[Any, Making], tuple[str, Any]],
        dataset: Callable[[Any, Sequence[Query]], Asked],
        explain: Callable[..., Explanation],
        query_id: Callable[[str, int], str] = lambda text, number: str(number),
        asked: Callable[[Any, Sequence[Query], Making], Asked] | None = None,
    ) -> None:
        self.package, self.config, self.root = opened.package, opened.config, opened.root
        self._opened = opened
        self.checkpoint, self.method = opened.checkpoint, method
        self._open, self._given, self._dataset = own, given, dataset
        self._explain, self._query_id = explain, query_id
        self._presence = opened.checkpoint.presence
        self._of_asked = asked or (lambda inputs, queries, making: dataset(inputs, queries))
        self._own: Any = None
        self._durations: dict[str, float] = {}
        self._files: LRUCache[tuple[str, int, int], tuple[str, Any]] = LRUCache(FILES)
        self._met: dict[str, object] = {}
        method.model.eval()

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.network.parameters())
        return f"{self.package} ({count:,} parameters) of {self.checkpoint.path}, data in {self.root}"

    @property
    def network(self) -> nn.Module:
        """The torch module."""
        found: nn.Module = self.method.model
        return found

    @property
    def inputs(self) -> Any:
        """The inputs of its own videos by id, as the network reads them; opened on first use."""
        if self._own is None:
            own = self._open()
            self._opened.require_known(own.store)
            self._own = own
        return self._own

    @overload
    def predict(
        self,
        video: Any,
        sentence: str,
        k: int = 5,
        *,
        duration: float | None = None,
        cache: str | os.PathLike[str] | None = None,
        weights: str | os.PathLike[str] | None = None,
    ) -> Predictions: ...
    @overload
    def predict(
        self,
        video: Any,
        sentence: Sequence[str],
        k: int = 5,
        *,
        duration: float | None = None,
        cache: str | os.PathLike[str] | None = None,
        weights: str | os.PathLike[str] | None = None,
    ) -> list[Predictions]: ...
    def predict(
        self,
        video: Any,
        sentence: str | Sequence[str],
        k: int = 5,
        *,
        duration: float | None = None,
        cache: str | os.PathLike[str] | None = None,
        weights: str | os.PathLike[str] | None = None,
    ) -> Predictions | list[Predictions]:
        """The moments that a sentence describes, best first; of several sentences a list.

        Args:
            video: The id of a video in the model's data, an array of its features ``(T, D)``, the path of a file that
                holds those of one video (npy, npz, HDF5), or that of a video file: its features are made as those that
                the model was trained on (extra ``video``), and are kept for the next questions.
            sentence: In words; with several each is answered by itself.
            k: Moments at the most.
            duration: Length of the video in seconds, where neither annotations nor the features' stride tell it.
            cache: Folder in which features that are made of video files are kept.
            weights: Of the network that makes them, where it is not where the checkpoint says.

        Raises:
            UserError: if the video has no features or other ones than the model was trained on and none can be made
                alike, its length is not known, or the model knows no word of a sentence.
        """
        from vmr_train.cli.moments import find_moments

        if not isinstance(k, Integral):
            raise UserError(f"k: found {quoted(k, 60)}, expected a whole number")
        if k < 1:
            raise UserError(f"k: found {k}, expected at least 1")
        making, asked = self._making(cache, weights), [sentence] if isinstance(sentence, str) else sentence
        _, queries, dataset = self._asked(video, asked, duration, making)
        answers = find_moments(self.config, self.method, dataset, queries, k, self._presence)
        file = Path(video) if is_video_file(video) else None
        found = [Predictions(one, query.duration, file) for one, query in zip(answers, queries, strict=True)]
        return found[0] if isinstance(sentence, str) else found

    def predict_many(
        self,
        videos: Sequence[Any],
        sentence: str,
        k: int = 5,
        *,
        durations: Sequence[float | None] | None = None,
        manifest: Manifest | None = None,
    ) -> list[Predictions]:
        """The moments of one sentence in each of several videos, as `predict` gives them, in batches.

        Args:
            videos: Ids in the model's data, or arrays of features ``(T, D)``; all of one kind.
            sentence: In words.
            k: Moments of each video at the most.
            durations: Lengths of the videos in seconds, where neither annotations nor the stride tell them.
            manifest: How the arrays were made; what is not known is a warning, once.

        Raises:
            UserError: as `predict`.
        """
        from vmr_train.cli.moments import find_moments

        if not videos:
            return []
        making = self._making(None, None)
        seconds = [None] * len(videos) if durations is None else list(durations)
        if all(isinstance(video, str) for video in videos):
            names = list(videos)
            for name in names:
                self._require_video(name)
                self._meet(name, None)
            inputs = self.inputs
            self._know([name for name, one in zip(names, seconds, strict=True) if one is None])
            known = [
                self._durations.get(name) if one is None else one
                for name, one in zip(names, seconds, strict=True)
            ]
        else:
            names, store = several_features(videos, self.config.data.features, manifest)
            _, inputs = self._given(store, making)
            self._opened.require_known(inputs.store)
            known = [
                self._rows_times_stride(store, name) if one is None else one
                for name, one in zip(names, seconds, strict=True)
            ]
        ids = [self._query_id(sentence, number) for number in range(len(names))]
        count = f" in {len(names):,} of {len(names):,} queries"  # all of them the one sentence

        def said(line: str) -> None:
            self._opened.warn(line.replace(count, ""))

        parts = [range(len(names))]
        if len(set(ids)) < len(ids):  # the id of a sentence is that of its vectors: one at a time
            parts = [range(number, number + 1) for number in range(len(names))]
        found = []
        for part in parts:
            queries = [self._query(ids[n], names[n], sentence, known[n]) for n in part]
            dataset = self._dataset_of(inputs, queries, making)
            answers = find_moments(self.config, self.method, dataset, queries, k, self._presence, said)
            found += [Predictions(one, query.duration) for one, query in zip(answers, queries, strict=True)]
        return found

    def explain(
        self,
        video: Any,
        sentence: str,
        *,
        duration: float | None = None,
        cache: str | os.PathLike[str] | None = None,
        weights: str | os.PathLike[str] | None = None,
        **shown: Any,
    ) -> Explanation:
        """The grounds of an answer, as far as the paper shows them; arguments and errors as those of `predict`.

        The function `explain` of each paper's `api` module tells them, with the further arguments.
        """
        inputs, (query,), dataset = self._asked(video, [sentence], duration, self._making(cache, weights))
        dataset.unknown.warn()
        return self._explain(self, inputs, dataset, query, **shown)

    def evaluate(self, split: str = "test", *, annotations: str | os.PathLike[str] | None = None) -> Rows:
        """Scores by the protocols of the configuration, beside chance and bias, as ``<package>-eval`` gives them.

        Args:
            split: test, validation or train of the run, or a registered split.
            annotations: An annotation file instead.

        Raises:
            UserError: if the split cannot be read, or a video of it has no features.
        """
        from vmr_train.cli import commands

        path = None if annotations is None else os.fspath(annotations)
        read_as = {"fields": None, "subset": None, "strip_extension": False}  # as the file itself says
        wanted = Namespace(annotations=path, split=split, root=self.root, **read_as)
        needs.require_requested(self.config, wanted)
        chosen, train_queries = requests.requested_split(self.config, wanted, self.root)
        queries = with_features(self.config, self.inputs.store, chosen.name, chosen.queries)
        dataset = commands.require_answerable(self._dataset(self.inputs, queries), chosen)
        results = commands.evaluate(
            self.package,
            self.config,
            self.method,
            dataset,
            chosen,
            train_queries,
            inputs=self.inputs,
            presence=self._presence,
        )
        return _rows(results)

    def longest_trained(self) -> float | None:
        """Seconds of the longest video of its training split, None where the annotations are not at hand."""
        from vmr_common.splits.registry import ENTRIES
        from vmr_train.splits import load

        train = self.config.data.splits.train
        entry = ENTRIES.get(train.split or "")
        if entry is not None and entry.generated_by is not None and not (self.root / entry.made).is_dir():
            return None  # nothing is generated for a question
        try:
            return max((query.duration for query in load(train, self.root).queries), default=None)
        except UserError:
            return None

    def _making(self, cache: str | os.PathLike[str] | None, weights: str | os.PathLike[str] | None) -> Making:
        device = self.config.train.device
        return Making(
            package=self.package,
            checkpoint=self.checkpoint,
            root=self.root,
            cache=None if cache is None else Path(cache),
            weights=() if weights is None else (os.fspath(weights),),
            device=None if device == "auto" else device,
        )

    def _asked(
        self, video: Any, sentences: Sequence[str], duration: float | None, making: Making
    ) -> tuple[Any, list[Query], Asked]:
        """The inputs with the video, the queries, and both as a dataset."""
        if not isinstance(sentences, Sequence):
            raise UserError(
                f"sentence: found {quoted(sentences, 60)}, expected words, or a list of sentences"
            )
        if not sentences or not all(isinstance(text, str) and text.strip() for text in sentences):
            raise UserError(f"sentence: found {quoted(sentences, 60)}, expected words")
        if is_video_file(video):
            name, inputs = self._video_file(Path(video), making)
            seconds = inputs.store.durations[name] if duration is None else duration
        elif isinstance(video, str) and not _is_file(video):
            name = video
            self._require_video(name)
            inputs = self.inputs
            self._meet(name, None)
            seconds = self._duration(name) if duration is None else duration
        else:
            name, inputs = self._given(video, making)
            self._opened.require_known(inputs.store)
            seconds = self._rows_times_stride(inputs.store, name) if duration is None else duration
        called = f"video {quoted(os.fspath(video))}" if isinstance(video, str | os.PathLike) else ""
        queries = [
            self._query(self._query_id(text, number), name, text, seconds, called)
            for number, text in enumerate(sentences)
        ]
        return inputs, queries, self._dataset_of(inputs, queries, making)

    def _query(self, name: str, video: str, text: str, seconds: float | None, called: str = "") -> Query:
        if seconds is None:
            called = called or "the given features"
            raise UserError(f"the length of {called} is not known: give duration=... in seconds")
        return Query(id=name, video=video, text=text, duration=float(seconds))

    def _dataset_of(self, inputs: Any, queries: Sequence[Query], making: Making) -> Asked:
        """The queries as a dataset; `UserError` for one of which the model knows no word."""
        dataset = self._of_asked(inputs, queries, making)
        if len(dataset) < len(queries) or not dataset.unknown.answerable:
            known = {query.id for query in getattr(dataset, "queries", ()) if dataset.unknown.answerable}
            without = [quoted(query.text, 60) for query in queries if query.id not in known]
            raise UserError(f"the model knows no word of {listed(list(dict.fromkeys(without)), 3)}")
        return dataset

    def _video_file(self, path: Path, making: Making) -> tuple[str, Any]:
        """The inputs of a video file and its id there; those of the last few files are kept."""
        status = path.stat()
        key = (str(path.absolute()), status.st_mtime_ns, status.st_size)
        found = self._files.get(key)
        if found is None:
            found = self._files[key] = self._given(path, making)
        self._meet(found[0], key)
        return found

    def _meet(self, name: str, origin: object) -> None:
        """Lets the method forget what it keeps by id where an id stands for another video than before."""
        if self._met.setdefault(name, origin) != origin:
            self._met[name] = origin
            self.method.forget()

    def _require_video(self, name: str) -> None:
        try:
            store = self.inputs.store
        except UserError as error:
            if not Path(name).suffix:
                raise
            raise UserError(
                f"video: no such file {quoted(name, 60)}, nor data of the model's own: {error}"
            ) from None
        if name not in store:
            some: list[str] = getattr(store, "videos", list)()
            example = f" ({len(some):,} videos, for example {some[0]!r})" if some else ""
            raise UserError(
                f"video: found {quoted(name, 60)}, expected an id in {store.name}{example}, an array of features, or "
                "a file of them or of a video"
            )

    def _duration(self, name: str) -> float | None:
        self._know([name])
        return self._durations.get(name)

    def _know(self, names: Sequence[str]) -> None:
        """Looks up the durations of videos of its own that were not asked for before."""
        new = [name for name in names if name not in self._durations]
        if new:
            store, data = self.inputs.store, self.config.data
            stride = getattr(data, "feature_stride", None)
            self._durations |= requests.known_durations(data.splits, store, self.root, new, stride)

    def _rows_times_stride(self, store: VideoStore, name: str) -> float | None:
        """Seconds by the stride of the given features, or of those that the model was trained on."""
        trained: Any = self.checkpoint.meta["describe"].get("features", {}).get("manifest") or {}
        stride = (
            getattr(store.manifest, "stride_s", None)
            or trained.get("stride_s")
            or getattr(self.config.data, "feature_stride", None)
        )
        return None if not stride else store.length(name) * float(stride)


def _is_file(name: str) -> bool:
    return Path(name).suffix.lower() in (".npy", ".npz", ".h5", ".hdf5", ".pt", ".pth") and os.path.isfile(
        name
    )


def _path(value: Any, what: str, expected: str) -> str:
    if not isinstance(value, str | os.PathLike):
        raise UserError(f"{what}: found {quoted(value, 60)}, expected {expected}")
    return os.fspath(value)
