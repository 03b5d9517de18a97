"""Golden cases: numbers measured on the released codes, found in tests/parity/golden and in $VMR_GOLDEN."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Golden:
    """One case: its description (json) and its arrays (npz)."""

    path: Path
    about: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays below `prefix`, by the rest of their name."""
        return {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}


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
