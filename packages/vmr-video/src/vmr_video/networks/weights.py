"""Weights of a network: from a folder or a hub, complete, and with a hash of what they are."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vmr_common.boundary import reason
from vmr_common.errors import UserError, listed, quoted

if TYPE_CHECKING:
    import torch
    from torch import Tensor

logger = logging.getLogger(__name__)
_COPY = (
    "where no hub can be reached, copy the folder of that name from a machine where one can "
    "(config.json, model.safetensors or pytorch_model.bin{more}) and give it as --weights FOLDER"
)


def device_of(name: str | None) -> torch.device:
    """The device of this name; None takes CUDA, then MPS, then the CPU.

    Raises:
        UserError: if torch has none of the kind.
    """
    import torch

    mps = torch.backends.mps.is_available()
    if name in (None, "auto"):
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        device = torch.device(str(name))
    except RuntimeError:
        raise UserError(
            f"device: found {quoted(name, 60)}, expected auto, cpu, cuda, cuda:0 or mps"
        ) from None
    there = {"cpu": True, "cuda": (device.index or 0) < torch.cuda.device_count(), "mps": mps}
    if not there.get(device.type):
        raise UserError(f"device: found {name}, but torch finds no such device here")
    return device


def hash_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors, in the order of their names."""
    import torch

    found = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        found.update(f"{name} {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}\n".encode())
        found.update(np.ascontiguousarray(tensor.reshape(-1).view(torch.uint8).numpy()).data)
    return found.hexdigest()


@lru_cache(maxsize=2)
def pretrained(weights: str, families: tuple[str, ...], *, tokenizer: bool = False) -> tuple[Any, str]:
    """A transformers model in float32 on the CPU with all of its weights, and their hash.

    The model is shared: whoever moves it copies it.

    Args:
        weights: A local folder, or a name on the hub.
        families: Model types that are accepted, as in config.json.
        tokenizer: Say in messages that a tokenizer belongs to it.

    Raises:
        UserError: if it cannot be loaded (says what to copy where), is of another family, or lacks weights.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    if not Path(weights).is_dir():
        logger.info(
            "weights: %s is no folder here, so a name on the hub: downloaded, unless it was before", weights
        )
    with quiet():
        config = _loaded(AutoConfig.from_pretrained, weights, tokenizer)
        kind = str(config.model_type)
        if kind not in families:
            raise UserError(
                f"{weights}: found a network of type {quoted(kind, 60)}, expected {' or '.join(families)}"
            )
        model, info = _loaded(
            AutoModel.from_pretrained,
            weights,
            tokenizer,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
        )
    lacking = sorted({*info["missing_keys"], *(str(key[0]) for key in info.get("mismatched_keys", ()))})
    if lacking:
        raise UserError(
            f"{weights}: {len(lacking)} tensors of the network are missing or of another shape: {listed(lacking, 3)}"
        )
    model.eval().requires_grad_(False)
    return model, hash_of(model.state_dict())


def lasting(weights: str) -> str:
    """The origin of weights, as a manifest keeps it: a path on this machine is found from any folder."""
    return str(Path(weights).absolute()) if Path(weights).exists() else weights


def load_tokenizer(weights: str) -> Any:
    """The tokenizer beside the weights of a network."""
    from transformers import AutoTokenizer

    with quiet():
        return _loaded(AutoTokenizer.from_pretrained, weights, True)


def _loaded(load: Any, weights: str, tokenizer: bool, **more: Any) -> Any:
    local = Path(weights).is_dir()
    if not local and (Path(weights).exists() or weights.startswith(("/", "./", "../", "~"))):
        raise UserError(
            f"weights: {weights}: expected a folder with config.json and model.safetensors, or a name on the hub"
        )
    try:
        return load(weights, trust_remote_code=False, **more)
    except Exception as error:  # the library raises anything over a damaged file or a broken connection
        if local:
            raise UserError(f"weights: cannot load {weights} ({_first(error)})") from None
        parts = ", tokenizer.json, tokenizer_config.json" if tokenizer else ""
        raise UserError(
            f"weights: cannot load {weights} from the hub ({_first(error)}); {_COPY.format(more=parts)}"
        ) from None


def _first(error: Exception) -> str:
    """The first sentence of a long explanation."""
    return reason(error).split(". ")[0].split("\n")[0][:160]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the libraries' own bars and warnings from the terminal: a hub that is away is tried several times."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    level, bars, hub_level = logging.get_verbosity(), logging.is_progress_bar_enabled(), hub.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    hub.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        hub.set_verbosity(hub_level)
        if bars:
            logging.enable_progress_bar()


def words_of(mean: Sequence[float], deviation: Sequence[float]) -> str:
    """The manifest's `value_range` of pixels that a mean and a deviation are applied to."""
    means, deviations = (" ".join(f"{value:.8g}" for value in values) for values in (mean, deviation))
    return f"0 to 1, minus {means}, by {deviations}"
