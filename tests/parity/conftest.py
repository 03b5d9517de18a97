"""Golden cases: numbers measured on the released codes, found in tests/parity/golden and in $VMR_GOLDEN.

With $VMR_PARITY_ERRORS the tests write how far they were off: a csv with a row per package and test.
"""

import csv
import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

HERE = Path(__file__).parent / "golden"
ERRORS = os.environ.get("VMR_PARITY_ERRORS", "")
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
COLUMNS = ("package", "stage", "arrays", "worst_absolute", "worst_relative")
measured: dict[tuple[str, str], list[tuple[float, float]]] = {}


@dataclass(frozen=True)
class Golden:
    """One case: its description (json) and its arrays (npz)."""

    path: Path
    about: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays below `prefix`, by the rest of their name."""
        return {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Likewise, as tensors."""
        return {name: torch.from_numpy(value) for name, value in self.group(prefix).items()}

    def compare(self, prefix: str, ours: dict[str, Tensor | np.ndarray | float], **tolerance: float) -> None:
        """Every array below `prefix` with ours of that name, as many numbers in whatever shape."""
        recorded = self.group(prefix)
        assert recorded, f"the case holds nothing under {prefix}"
        assert not set(recorded) - set(ours), f"recorded but not compared: {set(recorded) - set(ours)}"
        for name, wanted in recorded.items():
            found = ours[name]
            found = found.detach().numpy() if isinstance(found, Tensor) else np.asarray(found)
            assert found.size == wanted.size, prefix + name
            np.testing.assert_allclose(
                found.reshape(wanted.shape), wanted, **(tolerance or TOLERANCE), err_msg=prefix + name
            )


def golden_paths(package: str, pattern: str = "case_*.npz") -> list[Path]:
    listed = os.environ.get("VMR_GOLDEN", "").split(os.pathsep)
    folders = [HERE, *(Path(folder) for folder in listed if folder)]
    return [path for folder in folders for path in sorted((folder / package).glob(pattern))]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "golden" in metafunc.fixturenames:
        paths = golden_paths(metafunc.module.PACKAGE)
        metafunc.parametrize(
            "golden", paths, ids=[path.stem for path in paths], indirect=True, scope="module"
        )


@pytest.fixture(scope="module")
def golden(request: pytest.FixtureRequest) -> Golden:
    path: Path = request.param
    with np.load(path, allow_pickle=False) as arrays:
        loaded = {name: arrays[name] for name in arrays.files}
    return Golden(path, json.loads(path.with_suffix(".json").read_text()), loaded)


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
            worst = float(np.abs(np.asarray(found, dtype=np.float64) - wanted).max())
            largest = float(np.abs(wanted).max())
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
