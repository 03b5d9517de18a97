"""Weights to begin with: the two-stage recipe takes the object reasoning of an object-only model."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import Tensor, nn

from leorn.config import InitConfig
from leorn.official import from_official, is_official
from vmr_common.errors import UserError
from vmr_train.checkpoint import load_checkpoint
from vmr_train.released_weights import read_weights
from vmr_train.weights import load_weights

logger = logging.getLogger(__name__)
TEXT, OBJECTS = "text.", "objects."


def initial_weights(path: str | Path) -> dict[str, Tensor]:
    """The weights of a checkpoint or run folder of ours, or of a file with the authors' names, under our names.

    Raises:
        UserError: if there is no such file, or it holds neither.
    """
    path = Path(path)
    if path.is_dir():
        return dict(load_checkpoint(path, package="leorn").weights)
    weights = read_weights(path)
    if is_official(weights):
        return from_official(weights)
    return dict(load_checkpoint(path, package="leorn").weights)


def load_pretrained(model: nn.Module, config: InitConfig) -> None:
    """Puts the weights that `config` names into `model`; the others stay as they are.

    Raises:
        UserError: if the file cannot be read, or a part is not there or has another shape.
    """
    if config.objects is None:
        return
    found, wanted = initial_weights(config.objects), (OBJECTS, TEXT) if config.text else (OBJECTS,)
    for prefix in wanted:
        part = model.get_submodule(prefix.removesuffix("."))
        weights = {
            name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)
        }
        if not weights:
            raise UserError(f"{config.objects}: holds no weights of {prefix.removesuffix('.')} to begin with")
        load_weights(part, weights, Path(config.objects))
        logger.info("%s: %d tensors of %s taken over", config.objects, len(weights), prefix.removesuffix("."))
