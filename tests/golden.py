"""Released weights and their sizes, as they were recorded for the parity tests, for tests of other things."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "parity/golden"


def released_sizes(package: str) -> dict[str, Any]:
    """What the first recorded case of a package says about its model."""
    sizes: dict[str, Any] = json.loads((GOLDEN / package / "case_a.json").read_text())["config"]
    return sizes


def released_weights(package: str) -> dict[str, torch.Tensor]:
    """The weights of that case under their released names."""
    with np.load(GOLDEN / package / "case_a.npz", allow_pickle=False) as arrays:
        return {
            name.removeprefix("param/"): torch.from_numpy(arrays[name])
            for name in arrays.files
            if name.startswith("param/")
        }
