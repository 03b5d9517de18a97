"""Problems that any server refuses: ids that are unknown, missing or there twice, and windows that are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError


def id_problems(identifier: str, seen: set[str], known: dict[str, str], where: str) -> list[str]:
    """Problems with the id of an entry, which is then among those `seen`; `known`: videos by query id."""
    problems = []
    if identifier in seen:
        problems.append(f"{where}: the query occurs twice")
    elif identifier not in known:
        problems.append(f"{where}: the split has no such query")
    seen.add(identifier)
    return problems


def window_problems(moments: NDArray[np.float64], where: str) -> list[str]:
    """Problems of windows ``(K, 2)``: none, or one that does not start before it ends."""
    if not len(moments):
        return [f"{where}: no window"]
    wrong = np.flatnonzero(~(moments[:, 0] < moments[:, 1]))
    if not len(wrong):
        return []
    start, end = moments[wrong[0]]
    return [f"{where}: window {wrong[0]} does not start before it ends ({start:g} to {end:g})"]


def missing_queries(seen: set[str], known: dict[str, str]) -> list[str]:
    """One line about the queries that no entry is for, if there are any."""
    missing = [identifier for identifier in known if identifier not in seen]
    return [f"{len(missing)} of {len(known)} queries are missing (first: {missing[0]})"] if missing else []


def raise_first(problems: Sequence[str], path: str | Path) -> None:
    """Raises `UserError` with the first problem, if there is one."""
    if problems:
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise UserError(f"{path} not written: {problems[0]}{more}")
