"""Fixtures that all tests share."""

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# tests run side by side, and small tensors gain nothing from more threads; set before torch is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
# helpers of tests and the programs of benchmarks/ stand outside of any package and are imported by file name
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]
# seconds are no promise: a busy machine may take any time
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts each test into one tier: what it is marked as, else by its folder or its reference material, else fast."""
    for item in items:
        if not any(item.get_closest_marker(tier) for tier in ("slow", "parity", "e2e")):
            folder = "parity" if "shared" in getattr(item, "fixturenames", ()) else item.path.parent.name
            item.add_marker(folder if folder in ("parity", "e2e") else "fast")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says in one line why tests were skipped."""
    reasons = [
        str(report.longrepr[2]).removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", ())
    ]
    if reasons:
        counted = "; ".join(f"{count}: {reason}" for reason, count in Counter(reasons).most_common())
        terminalreporter.write_line(f"{len(reasons)} skipped ({counted})")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of measured reference material beside a development checkout; users do not have it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the reference material (../shared) is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def shared_data(shared: Path) -> Path:
    """Real annotations, word vectors, features and official evaluation results (never committed)."""
    return shared / "data"


Answer = tuple[int, str, str]


@pytest.fixture
def answer(capsys) -> Callable[..., Answer]:
    """Runs a command; gives its status, what it said on stdout, and on stderr."""

    def run(command: Callable[[list[str]], int], *arguments: Any) -> Answer:
        status = command([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def vmr_data(answer) -> Callable[..., Answer]:
    """The answer of ``vmr-data`` in a data root."""

    def run(root, verb: str, *arguments: Any) -> Answer:
        from vmr_common.cli import data  # after the thread count above is set

        return answer(data.main, verb, "--data-root", root, *arguments)

    return run


@pytest.fixture
def rgnet_data(answer) -> Callable[..., Answer]:
    """The answer of ``rgnet-data`` in a data root."""

    def run(root, verb: str, *arguments: Any) -> Answer:
        from rgnet import data_cli

        return answer(data_cli.main, verb, "--data-root", root, *arguments)

    return run
