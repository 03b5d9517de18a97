"""Golden cases: numbers measured on the released codes, found in tests/parity/golden and in $VMR_GOLDEN.

Every array of a case is either an input, which a test must read, or a recorded number, which a test must compare; the
last test of each module names those that were not (`left_over`).

With $VMR_PARITY_ERRORS the tests write how far they were off: a csv with a row per package and test.
"""

import csv
import functools
import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

HERE = Path(__file__).parent / "golden"
ERRORS = os.environ.get("VMR_PARITY_ERRORS", "")
COLUMNS = ("package", "stage", "arrays", "worst_absolute", "worst_relative")
measured: dict[tuple[str, str], list[tuple[float, float]]] = {}
deselected: list[pytest.Item] = []

Numbers = Tensor | np.ndarray | float


@dataclass(frozen=True)
class Golden:
    """One case: its description (json) and its arrays (npz).

    Attributes:
        path: Of the npz file.
        about: The json file.
        arrays: By name.
        read: Names of the arrays that tests took as inputs.
        compared: Names of those that tests compared with ours.
        tests: Ids of the tests that have begun.
    """

    path: Path
    about: dict[str, Any]
    arrays: dict[str, np.ndarray]
    read: set[str] = field(default_factory=set)
    compared: set[str] = field(default_factory=set)
    tests: set[str] = field(default_factory=set)

    @property
    def config(self) -> dict[str, Any]:
        """Sizes and rules of the case."""
        return self.about["config"]

    def said(self, name: str) -> str:
        """What the case says about one of its arrays, which may hold the rule that made it."""
        return str(self.about.get("keys", {}).get(name, ""))

    def holds(self, prefix: str) -> bool:
        """Whether there is any array below `prefix`."""
        return any(name.startswith(prefix) for name in self.arrays)

    def given(self, name: str) -> np.ndarray:
        """An array that a test takes as an input."""
        self.read.add(name)
        return self.arrays[name]

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """All inputs below `prefix`, by the rest of their name."""
        return {k.removeprefix(prefix): self.given(k) for k in self.arrays if k.startswith(prefix)}

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Likewise, as tensors."""
        return {name: torch.from_numpy(value) for name, value in self.group(prefix).items()}

    def recorded(self, prefix: str) -> dict[str, np.ndarray]:
        """All recorded numbers below `prefix`, by the rest of their name; a case without any skips the test."""
        found = {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}
        if not found:
            pytest.skip(f"this case holds nothing under {prefix}")
        return found

    def wanted(self, name: str) -> np.ndarray:
        """A recorded array that the caller itself compares."""
        self.compared.add(name)
        return self.arrays[name]

    def same(self, name: str, ours: Numbers, as_ours: np.ndarray | None = None, **tolerance: float) -> None:
        """Compares a recorded array with ours: as many numbers, in whatever shape.

        Args:
            name: Of the recorded array.
            ours: Our numbers.
            as_ours: The recorded array in our layout, where that is another one.
            tolerance: See `close`.
        """
        wanted = self.wanted(name) if as_ours is None else as_ours
        found = ours.detach().numpy() if isinstance(ours, Tensor) else np.asarray(ours)
        assert found.size == wanted.size, name
        close(found.reshape(wanted.shape), wanted, name, **tolerance)
        self.compared.add(name)

    def compare(self, prefix: str, ours: Mapping[str, Numbers], **tolerance: float) -> None:
        """Compares every recorded array below `prefix` with ours of that name."""
        recorded = self.recorded(prefix)
        assert not set(recorded) - set(ours), f"recorded but not compared: {set(recorded) - set(ours)}"
        for name in recorded:
            self.same(prefix + name, ours[name], **tolerance)


def close(found: np.ndarray, wanted: np.ndarray, name: str, **tolerance: float) -> None:
    """Demands equality up to `tolerance`, by default 1e-4, of each value and of 1, and 2e-5 of the largest value."""
    finite = np.abs(np.asarray(wanted, dtype=np.float64))
    largest = finite[np.isfinite(finite)].max(initial=0.0)
    limits = tolerance or {"rtol": 1e-4, "atol": 1e-4 + 2e-5 * largest}
    np.testing.assert_allclose(found, wanted, **limits, err_msg=name)


def golden_paths(package: str, pattern: str = "case_*.npz") -> list[Path]:
    listed = os.environ.get("VMR_GOLDEN", "").split(os.pathsep)
    folders = [HERE, *(Path(folder) for folder in listed if folder)]
    distinct = dict.fromkeys(folder.resolve() for folder in folders)
    return [path for folder in distinct for path in sorted((folder / package).glob(pattern))]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "golden" in metafunc.fixturenames:
        paths = golden_paths(metafunc.module.PACKAGE)
        metafunc.parametrize(
            "golden", paths, ids=[path.stem for path in paths], indirect=True, scope="module"
        )


def pytest_deselected(items: list[pytest.Item]) -> None:
    deselected.extend(items)


@pytest.fixture(scope="module")
def golden(request: pytest.FixtureRequest) -> Golden:
    path: Path = request.param
    with np.load(path, allow_pickle=False) as arrays:
        loaded = {name: arrays[name] for name in arrays.files}
    return Golden(path, json.loads(path.with_suffix(".json").read_text()), loaded)


@pytest.fixture(autouse=True)
def begun(request: pytest.FixtureRequest) -> None:
    """Notes which tests of a case have begun."""
    if "golden" in request.fixturenames:
        request.getfixturevalue("golden").tests.add(request.node.nodeid)


@pytest.fixture
def left_over(request: pytest.FixtureRequest, golden: Golden) -> Callable[[tuple[str, ...]], list[str]]:
    """Names the arrays of a case that no test read or compared, given the beginnings of its inputs' names.

    It can only be told when all other tests of the case have run here, else the test is skipped.
    """

    def of_this_case(item: pytest.Item) -> bool:
        callspec = getattr(item, "callspec", None)
        return item.path == request.path and bool(callspec) and callspec.params.get("golden") == golden.path

    functions = {
        name
        for name, value in vars(request.module).items()
        if name.startswith("test_") and "golden" in inspect.signature(value).parameters
    }
    selected = [item for item in request.session.items if of_this_case(item)]
    complete = functions == {item.originalname for item in selected if isinstance(item, pytest.Function)}
    ran = {item.nodeid for item in selected} == golden.tests
    if not (complete and ran) or any(of_this_case(item) for item in deselected):
        pytest.skip("not all tests of this case ran in this process")

    def names(inputs: tuple[str, ...]) -> list[str]:
        seen = {name for name in golden.read if name.startswith(inputs)} | golden.compared
        return sorted(set(golden.arrays) - seen)

    return names


@pytest.fixture(autouse=True)
def errors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes the error of every comparison with a recorded array, where that was asked for; the test stays as it is."""
    if not ERRORS:
        return
    compare = np.testing.assert_allclose
    stage = request.function.__name__.removeprefix("test_").replace("_", " ")
    mine = measured.setdefault((request.module.PACKAGE, stage), [])

    @functools.wraps(compare)
    def noted(found, wanted, *args, **kwargs):
        compare(found, wanted, *args, **kwargs)
        wanted = np.asarray(wanted, dtype=np.float64)
        if wanted.size:
            worst = float(np.nanmax(np.abs(np.asarray(found, dtype=np.float64) - wanted), initial=0.0))
            largest = float(np.nanmax(np.abs(wanted), initial=0.0))
            mine.append((worst, worst / largest if largest else 0.0))

    monkeypatch.setattr(np.testing, "assert_allclose", noted)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not ERRORS or not measured:
        return
    assert not hasattr(session.config, "workerinput"), "the errors are written by one process: add -n 0"
    rows = [
        (*place, len(found), *(f"{max(errors):.1e}" for errors in zip(*found, strict=True)))
        for place, found in measured.items()
        if found
    ]
    with Path(ERRORS).open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
