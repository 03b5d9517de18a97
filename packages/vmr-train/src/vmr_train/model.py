"""A trained model from Python: it answers about videos, shows why, and is scored."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from vmr_common.errors import UserError, listed, quoted
from vmr_common.types import Query
from vmr_train import needs
from vmr_train.answers import Explanation, Predictions, Rows
from vmr_train.cli import requests
from vmr_train.feature_files import with_features
from vmr_train.given_features import is_video_file
from vmr_train.model_videos import ModelVideos
from vmr_train.video_files import Making

if TYPE_CHECKING:  # torch takes seconds to load
    from torch import nn

    from vmr_common.features.manifest import Manifest
    from vmr_train.api import Opened
    from vmr_train.method import Asked


class Model:
    """A trained model with its data, as `load` of a paper's package makes it.

    Attributes:
        package: The paper's package.
        config: The configuration that it was trained with.
        root: The data root, where its videos' features and annotations are.
        checkpoint: The checkpoint.
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
        self.checkpoint, self.method = opened.checkpoint, method
        self._warn = opened.warn
        self._videos = ModelVideos(opened, method, own, given)
        self._dataset, self._explain, self._query_id = dataset, explain, query_id
        self._presence = opened.checkpoint.presence
        self._of_asked = asked or (lambda inputs, queries, making: dataset(inputs, queries))
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
        return self._videos.own

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
        names, inputs, known = self._videos.several(videos, seconds, manifest, making)
        ids = [self._query_id(sentence, number) for number in range(len(names))]
        count = f" in {len(names):,} of {len(names):,} queries"  # all of them the one sentence

        def said(line: str) -> None:
            self._warn(line.replace(count, ""))

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
        return Rows(results.to_dict(), results.text())

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
        name, inputs, seconds = self._videos.one(video, duration, making)
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
