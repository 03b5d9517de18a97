"""Calls that torch.compile leaves as they are; a module of its own, because the decorator loads torch's compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


@torch.compiler.disable  # type: ignore[untyped-decorator]
def uncompiled(function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)``, outside of what torch.compile makes."""
    return function(*arguments)
