"""Errors of the user that only the first process of each host tells."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from vmr_common.errors import SaidElsewhere, UserError


@contextlib.contextmanager
def said_once() -> Iterator[None]:
    """Lets the first process of each host say what is wrong on all of them, before they know each other (torchrun).

    Raises `SaidElsewhere` on the others.
    """
    try:
        yield
    except UserError as error:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            raise SaidElsewhere(str(error)) from error
        raise
