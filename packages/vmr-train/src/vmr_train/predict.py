"""Predictions for a whole split, each query exactly once, on one process or many."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from vmr_common.types import Prediction
from vmr_train import distributed
from vmr_train.config import Precision
from vmr_train.device import autocast
from vmr_train.interrupt import Stopped
from vmr_train.loading import Loader
from vmr_train.method import Dataset, HasEvidence, Method, to_device
from vmr_train.sampler import evaluation_batches

Item = TypeVar("Item")


def progress_bar(
    items: Iterable[Item], *, title: str, total: int | None, done: int = 0, unit: str
) -> tqdm[Item]:
    """A progress bar on rank 0 when stderr is a terminal, else just the items; without a total it only counts."""
    hidden = distributed.rank() != 0 or not sys.stderr.isatty()
    return tqdm(items, desc=title, total=total, initial=done, unit=unit, leave=False, disable=hidden)


def batches_of(dataset: Dataset, size: int) -> Iterator[Any]:
    """All dataset in their order, in evaluation batches of `size`, loaded in this process."""
    return (dataset.batch(*request) for request in evaluation_batches(len(dataset), size, 0, 1))


class Evaluator:
    """Predicts a dataset, once or again and again; loader processes stay alive in between.

    Args:
        method: Its model must be on `device`.
        dataset: What to predict.
        batch_size: Queries per forward pass. Batches are cut from the whole split and dealt out whole, so a
            query has the same companions in its batch whatever the number of processes.
        device: Where the model is.
        precision: Of the forward passes.
        workers: Loader processes per process.
        evidence: Whether predictions hold the evidence that a method gives beside its scores, see `HasEvidence`.
    """

    def __init__(
        self,
        method: Method,
        dataset: Dataset,
        *,
        batch_size: int,
        device: torch.device,
        precision: Precision = "fp32",
        workers: int = 0,
        evidence: bool = False,
    ) -> None:
        self.method, self.device, self.precision, self.evidence = method, device, precision, evidence
        self.size = len(dataset)
        self.requests = evaluation_batches(self.size, batch_size, distributed.rank(), distributed.world())
        self.batches = Loader(dataset, self.requests, workers=workers, pin=device.type == "cuda")

    def predict(self, *, stop: Callable[[], bool] = lambda: False) -> list[Prediction]:
        """All predictions in the order of the dataset, on every rank.

        Args:
            stop: Asked before each batch; True abandons the evaluation on all ranks.

        Raises:
            Stopped: if `stop` said so on any rank.
            UserError: if a batch cannot be loaded.
            RuntimeError: if the method does not answer its batch one to one.
        """
        model, own = self.method.model, None
        was_training = model.training
        model.eval()
        try:
            own = distributed.everywhere(lambda: self._own(stop))
        finally:
            model.train(was_training)
        parts = distributed.gather(own)  # between our own processes, never from a file
        if any(part is None for part in parts):
            raise Stopped
        turns = itertools.zip_longest(*(part or [] for part in parts), fillvalue=[])
        ordered = [prediction for turn in turns for batch in turn for prediction in batch]
        if len(ordered) != self.size:
            raise RuntimeError(f"{len(ordered)} predictions for {self.size} queries")
        return ordered

    def _own(self, stop: Callable[[], bool]) -> list[list[Prediction]] | None:
        results: list[list[Prediction]] = []
        bar = progress_bar(self.batches, title="predict", total=len(self.requests), unit="batch")
        with torch.no_grad(), bar:
            for batch in bar:
                if stop():
                    return None
                results.append(self._batch(batch))
        return results

    def _batch(self, batch: Any) -> list[Prediction]:
        with autocast(self.device, self.precision):
            placed = to_device(batch, self.device)
            predictions = self.method.predict(placed)
            if self.evidence and isinstance(self.method, HasEvidence):
                values = self.method.evidence(placed, predictions)
                predictions = [
                    dataclasses.replace(found, evidence=float(value))
                    for found, value in zip(predictions, values, strict=True)
                ]
        if tuple(p.query for p in predictions) != tuple(batch.query_ids):
            raise RuntimeError("the method's predictions do not follow the queries of the batch")
        return predictions
