"""How griffe reads the docstrings of these packages: ``Example:`` holds statements with their output."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Gives the section the name under which griffe shows it as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Renames the section of one function, class or module."""
        if obj.docstring:
            obj.docstring.value = re.sub(
                r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE
            )
