"""Commands in processes of their own."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

PATIENCE_S = 300  # a hang ends a test; a slow machine does not


def own_progress_bars() -> None:
    """Lets a forked process be killed: the lock of tqdm, which it shares with its parent, would stay locked there."""
    tqdm.set_lock(threading.RLock())


def ranks(count: int) -> list[dict[str, str]]:
    """What torchrun would say to each of several processes on this machine, at a port that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


@contextlib.contextmanager
def launched(
    command: Sequence[str | Path], environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Starts a command with one thread in a session of its own; it does not outlive a test that fails."""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        start_new_session=True,
        # a shell starts what runs in its background, and these tests may, with Ctrl-C ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            yield process
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # a launcher's processes too
            raise


def run_to_end(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """What a command answers, in processes of its own."""
    with launched(command) as process:
        out, err = process.communicate(timeout=PATIENCE_S)
    return subprocess.CompletedProcess(command, process.returncode, out, err)
