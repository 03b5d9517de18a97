"""How griffe reads the docstrings of these packages: ``Example:`` holds statements with their output."""

import re
from typing import Any

import griffe


def rename(obj: griffe.Object) -> None:
    """Gives the section of a docstring the name under which griffe shows it as code."""
    if obj.docstring:
        obj.docstring.value = re.sub(
            r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE
        )


class Examples(griffe.Extension):
    """Renames the sections of functions and classes as they are met, those of modules when the package is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Renames the section of one function or class."""
        rename(obj)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Renames the sections of a package and of the modules inside it."""
        waiting = [pkg]
        while waiting:
            module = waiting.pop()
            rename(module)
            waiting += module.modules.values()
