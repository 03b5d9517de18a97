"""Checks that a training that is resumed is still the one that its checkpoint knows."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from vmr_common.errors import UserError, quoted
from vmr_common.features.sameness import GOES_ON
from vmr_train.checkpoint import Checkpoint
from vmr_train.cli.renamed import with_new_names

logger = logging.getLogger(__name__)

MAY_CHANGE = (
    "name",
    # how long and how fast
    "train.epochs",
    "optim.lr",
    "optim.group_lr",
    "optim.schedule",
    # evaluation; the protocol that chooses the epoch is compared by itself
    "protocols",
    "train.eval_batch",
    "train.eval_every",
    # where and how it is computed
    "train.device",
    "train.precision",
    "train.compile",
    "train.tf32",
    "train.deterministic",
    "train.workers",
    "train.micro_batch",
    "train.peer_timeout",
    "train.unused_parameters",
    # what is written
    "train.checkpoint_updates",
    "train.log_updates",
    "train.tensorboard",
    # proven by hashes
    "data.splits",
)
"""Options, and sections of options, that a resumed training may change; all others belong to the run."""

FEATURES = "features"
"""Stands for the feature files in what a training may change."""
_PROVEN_BY_HASH = {"path", "word_vectors", "expected_manifest", "missing"}  # options of any section of `data`
_WHOLE = "optim.group_lr"  # a mapping with any keys, not a section of options


def require_same(
    found: Checkpoint,
    now: Mapping[str, Any],
    *,
    state: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    may_change: Collection[str] = (),
) -> None:
    """Makes sure that a training goes on with what the checkpoint was trained with; says what it may and does change.

    Args:
        found: The checkpoint.
        now: The metadata of a checkpoint of the training that is to go on.
        state: Of its method.
        tensors: Of its method.
        may_change: Options beyond `MAY_CHANGE`; `FEATURES` stands for the files.

    Raises:
        UserError: for options, queries, features or words that are others than before.
    """
    changed: list[str] = []
    allowed: list[str] = []
    for name, before, value in _options(found, json.loads(json.dumps(now))):
        text = f"{name} was {quoted(before, 60)} and is now {quoted(value, 60)}"
        (allowed if _may_change(name, before, value, now, may_change) else changed).append(text)
    changed += _changed_queries(found, now)
    for part, what in ((FEATURES, "features"), ("words", "word vectors or query features")):
        other = _changed_files(found, now, part, what)
        if part in may_change:
            allowed += other
        else:
            changed += [f"{one} ({GOES_ON})" if part == FEATURES else one for one in other]
    if changed:
        raise UserError(f"{found.path}: cannot resume, {'; '.join(changed[:3])}")
    if found.state != json.loads(json.dumps(state)) or not _alike(found.part("state"), tensors):
        raise UserError(
            f"{found.path}: cannot resume, the method's state (vocabulary and the like) has changed since"
        )
    if allowed:
        logger.info("resuming with other options or files: %s", "; ".join(allowed))


def _options(found: Checkpoint, now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name, value before and value now of every option that differs; options of one side alone have no other value."""
    sides = []
    for meta in (found.meta, now):
        sections = {part: _section(meta, part) for part in ("train", "optim")}
        sides.append({**_section(meta["describe"], "config"), **sections})
    sides[0] = with_new_names(sides[0], lambda key: _holds(sides[1], key))
    before, value = found.meta.get("train_queries"), now["train_queries"]
    if before != value:
        yield "the number of training queries", before, value
    yield from _differences(sides[0], sides[1])


def _holds(values: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for key in now.keys() & before.keys():
        name, old, new = prefix + key, before[key], now[key]
        if isinstance(old, dict) and isinstance(new, dict) and name != _WHOLE:
            yield from _differences(old, new, name + ".")
        elif old != new:
            yield name, old, new


def _may_change(
    name: str, before: Any, value: Any, now: Mapping[str, Any], may_change: Collection[str]
) -> bool:
    if name == "protocols" and now["train"]["select"] != "last":
        return isinstance(before, list) and before[:1] == value[:1]
    if name == "train.micro_batch" and now["optim"]["accumulation"] == "sum":
        return False  # every pass counts by itself
    if name.startswith("data.") and _PROVEN_BY_HASH & {*name.split(".")}:
        return True
    return any(name == known or name.startswith(known + ".") for known in (*MAY_CHANGE, *may_change))


def _changed_queries(found: Checkpoint, now: Mapping[str, Any]) -> list[str]:
    parts = {"train": "training queries", "validation": "validation queries", "test": "test queries"}
    select = now["train"]["select"]
    chosen = {"train"} | ({select} if select != "last" else set())
    changed = []
    for part, what in parts.items():
        before = _section(_section(found.meta["describe"], "splits"), part)
        value = _section(_section(now["describe"], "splits"), part)
        if part not in chosen or not value or before.get("hash") == value["hash"]:
            continue
        if "hash" not in before:
            _warn(found, f"the {what} were the same")
        else:
            changed.append(f"the {what} were {_split(before)} and are now {_split(value)}")
    return changed


def _split(values: Mapping[str, Any]) -> str:
    return f"{values.get('name')} ({values.get('queries')} queries, hash {str(values.get('hash'))[:12]})"


def _changed_files(found: Checkpoint, now: Mapping[str, Any], part: str, what: str) -> list[str]:
    before, value = _section(found.meta["describe"], part), _section(now["describe"], part)
    if not value or before.get("hash") == value["hash"]:
        return []
    if "times" not in before:
        _warn(found, f"the {what} were the same")
        return []
    return [f"the {what} were {_files(before)} and are now {_files(value)}"]


def _files(values: Mapping[str, Any]) -> str:
    return f"{' + '.join(values['files'])} ({values.get('bytes', 0):,} bytes, {values['hash'][:19]})"


def _warn(found: Checkpoint, what: str) -> None:
    logger.warning("%s: of an earlier version, cannot tell whether %s; going on", found.path, what)


def _section(values: Any, key: str) -> dict[str, Any]:
    """A part of a description, which checkpoints of earlier versions may lack."""
    part = values.get(key) if isinstance(values, dict) else None
    return part if isinstance(part, dict) else {}


def _alike(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> bool:
    """True if tensors are the same up to the rounding of another machine."""
    return before.keys() == now.keys() and all(
        before[name].shape == now[name].shape
        and torch.allclose(before[name].double(), now[name].cpu().double(), rtol=1e-4, atol=1e-6)
        for name in now
    )
