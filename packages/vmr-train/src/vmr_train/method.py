"""The two interfaces between the training loop and a paper, a method and a dataset, and batches on devices."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from vmr_common.errors import UserError, listed, quoted
from vmr_common.types import Prediction, Query
from vmr_train.unknown_words import NAMED, UnknownWords

logger = logging.getLogger(__name__)
Value = TypeVar("Value")


class NonFiniteLoss(UserError):  # noqa: N818 - the name says what is wrong
    """A loss term or a gradient is not finite; raised before the weights are touched."""


@dataclass(frozen=True)
class Progress:
    """Position of the training when a loss is computed, for terms that have a schedule of their own."""

    update: int
    """Updates done before this one, from 0."""
    epoch: int
    """The current epoch, from 1."""
    epochs: int
    """Epochs of the run."""


class Method(Protocol):
    """A model together with what training and evaluation do with it."""

    @property
    def model(self) -> nn.Module:
        """The module whose parameters are trained."""

    def loss(self, batch: Any, progress: Progress) -> dict[str, Tensor]:
        """Named scalar terms, each a mean over the batch's queries; ``"total"`` is back-propagated.

        The names must be the same at every call. Random draws must come from torch's global generator,
        which is reseeded for every update, or from what is already in the batch.
        """

    def predict(self, batch: Any) -> list[Prediction]:
        """One prediction per query of the batch, in its order; called in eval mode, without gradients."""

    def state(self) -> dict[str, Any]:
        """The needs of `predict` beyond the weights, as JSON (for example the vocabulary)."""

    def state_tensors(self) -> dict[str, Tensor]:
        """The same for tensors (for example word vectors)."""


@runtime_checkable
class HasEvidence(Protocol):
    """A method whose best score does not by itself say whether the sentence is in the video at all."""

    def evidence(self, batch: Any, predictions: Sequence[Prediction]) -> Sequence[float]:
        """The evidence for it, per query of the batch, higher is more; called after `predict` of the same batch."""


class Dataset(Protocol):
    """Numbered queries that can be collated into batches."""

    def __len__(self) -> int:
        """Number of queries."""

    def batch(self, indices: Sequence[int], epoch: int | None) -> Any:
        """The collated batch of these queries: a dataclass with tensors and `query_ids: tuple[str, ...]`.

        It must depend on `indices` and `epoch` only (None means evaluation), so that neither workers nor
        ranks nor a resumed run change what is drawn.
        """


class Asked(Dataset, Protocol):
    """Queries of a split or a request, with the words of them that the model does not know.

    Attributes:
        queries: Those that can be answered, numbered as in `batch`, which reads their videos and lengths from here.
    """

    queries: list[Query]

    @property
    def unknown(self) -> UnknownWords:
        """The unknown words of all queries, of those too that are left out."""


@runtime_checkable
class Answering(Protocol):
    """Queries that a baseline answers too, from the features that the model reads."""

    def baselines(self) -> Mapping[str, list[Prediction]]:
        """Its predictions, under its name; nothing where these features allow none."""


def map_tensors(value: Value, function: Callable[[Tensor], Tensor]) -> Value:
    """Applies `function` to every tensor in nested dataclasses, dicts, lists and tuples; the rest is kept."""
    result: Any = value
    if isinstance(value, Tensor):
        result = function(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f.name for f in dataclasses.fields(value) if f.init]
        result = dataclasses.replace(value, **{n: map_tensors(getattr(value, n), function) for n in fields})
    elif isinstance(value, dict):
        result = {key: map_tensors(item, function) for key, item in value.items()}
    elif type(value) in (list, tuple):
        result = type(value)(map_tensors(item, function) for item in value)  # type: ignore[call-arg, attr-defined]
    return result  # type: ignore[no-any-return]


def to_device(batch: Value, device: torch.device) -> Value:
    """The batch with every tensor on `device` (copies from pinned memory do not block)."""
    return map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))


def warn_of_left_out(queries: Sequence[Query], kept: int, why: str) -> None:
    """Logs how many queries are left out, if any; where all are, the error that follows says it.

    Args:
        queries: Those left out.
        kept: How many are not.
        why: What they have in common, e.g. ``no known word``.
    """
    if queries and kept:
        logger.warning(
            "%s in %d of %d queries, which are left out: %s",
            why,
            len(queries),
            len(queries) + kept,
            listed([f"{query.id} ({quoted(query.text, 60)})" for query in queries], NAMED),
        )
