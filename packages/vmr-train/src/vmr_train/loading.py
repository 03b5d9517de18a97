"""From requests to batches, in this process or in loader processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils import data as torch_data
from torch.utils.data import DataLoader

from vmr_common.errors import UserError
from vmr_train.interrupt import ENDING
from vmr_train.method import Dataset, map_tensors
from vmr_train.sampler import Request


class _Loaded:
    """A batch, or the user's error met while loading it, on its way out of a loader process."""

    def __init__(self, batch: Any = None, error: str | None = None) -> None:
        self.batch, self.error = batch, error

    def pin_memory(self) -> _Loaded:
        """Called by torch's loader where the batch will go to a CUDA device."""
        return _Loaded(map_tensors(self.batch, lambda tensor: tensor.pin_memory()), self.error)


class _Requests(torch_data.Dataset[_Loaded]):
    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, request: Request) -> _Loaded:
        try:
            return _Loaded(self.dataset.batch(*request))
        except UserError as error:  # a loader process would bury it in a traceback
            return _Loaded(error=str(error))


def _same(value: Any) -> Any:
    return value


def _start_worker(_: int) -> None:
    # a terminal and a cluster send to all processes; the training process decides when the loaders end
    signal.set_wakeup_fd(-1)
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        # it says so by SIGTERM, and waits: a loader that ignored this one, too, would keep it from ending
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, daemon=True, name="end").start()


def _end_when_told() -> None:
    """Ends this process when its parent sends SIGTERM; from others it is not heard."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


class Loader:
    """Batches in the order of the requests; can be iterated again if `requests` can."""

    def __init__(
        self, dataset: Dataset, requests: Iterable[Request], *, workers: int = 0, pin: bool = False
    ) -> None:
        self._loader = DataLoader(
            _Requests(dataset),
            batch_size=None,
            sampler=requests,
            num_workers=workers,
            collate_fn=_same,
            pin_memory=pin,
            persistent_workers=workers > 0,
            worker_init_fn=_start_worker if workers else None,
        )

    def __iter__(self) -> Iterator[Any]:
        """Yields batches.

        Raises:
            UserError: as `Dataset.batch` did.
        """
        for loaded in self._loader:
            if loaded.error is not None:
                raise UserError(loaded.error)
            yield loaded.batch
