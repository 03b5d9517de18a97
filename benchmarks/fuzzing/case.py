"""A case: files in a folder of its own, and the command lines that read them."""

from __future__ import annotations

import functools
import importlib
import threading
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

FOREIGN = b"of somebody else"
PACKAGES = ("rgn", "cfmr", "cdn", "leorn", "rgnet")
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Call:
    """A command line.

    Attributes:
        program: As installed, such as ``vmr-data``.
        arguments: Of any kind; they become text.
        warns: Whether a warning is a finding here: never where a model computes with odd numbers.
        costs: Whether the time and memory of a case are bounded: not where a configuration may ask for more.
    """

    program: str
    arguments: list[object]
    warns: bool = False
    costs: bool = True

    def argv(self) -> list[str]:
        return [str(argument) for argument in self.arguments]


@dataclass
class Case:
    """Files that were written into a folder, and what reads them.

    Attributes:
        calls: Command lines, run one after the other.
        secret: Bytes that must not turn up in any file that a command writes.
        foreign: Files of somebody else that lie where a command writes: they must stay as they are.
    """

    calls: list[Call] = field(default_factory=list)
    secret: bytes = b""
    foreign: list[Path] = field(default_factory=list)

    def put(self, path: Path) -> None:
        """Writes a file of somebody else."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FOREIGN)
        self.foreign.append(path)

    def lost(self) -> list[Path]:
        """Files of somebody else that are gone or changed."""
        return [path for path in self.foreign if not path.is_file() or path.read_bytes() != FOREIGN]


def entry_point(program: str) -> Callable[[list[str]], int]:
    """The function behind an installed program."""
    module, _, name = scripts()[program].partition(":")
    main: Callable[[list[str]], int] = getattr(importlib.import_module(module), name)
    return main


@functools.cache
def scripts() -> dict[str, str]:
    """The programs that the packages declare, ``module:function`` by name."""
    projects = [tomllib.loads(path.read_text())["project"] for path in ROOT.glob("packages/*/pyproject.toml")]
    return {name: value for project in projects for name, value in project.get("scripts", {}).items()}


def make_forkable() -> None:
    """Leaves no lock to children that one of them could take to its grave: progress bars share one, and a thread."""
    tqdm.set_lock(threading.RLock())
    tqdm.monitor_interval = 0


def below(folder: Path, name: str) -> Path:
    """A path in a folder, with the folders that the name holds."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
