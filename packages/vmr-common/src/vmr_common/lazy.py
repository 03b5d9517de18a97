"""Public names of a package that are imported on their first use, so that to import the package takes no time."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The functions ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: Its name.
        modules: The public names of each module, one word each; a module's own name stands for the module.

    Example:
        >>> get, names = lazy_names("vmr_common", {"vmr_common.metrics": "iou nms", "vmr_common.io": "io"})
        >>> get("iou").__name__, get("io").__name__, names()
        ('iou', 'vmr_common.io', ['io', 'iou', 'nms'])
    """
    module_of = {name: module for module, names in modules.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(module_of[name])
        found = module if module_of[name] == f"{package}.{name}" else getattr(module, name)
        vars(sys.modules[package])[name] = found
        return found

    return get, lambda: sorted(module_of)
