"""Commands run in this process, and what they say."""

from collections.abc import Callable
from typing import Any

import pytest

from vmr_common.cli import data

Answer = tuple[int, str, str]


@pytest.fixture
def answer(capsys) -> Callable[..., Answer]:
    """Runs a command; gives its status, what it said on stdout, and on stderr."""

    def run(command: Callable[[list[str]], int], *arguments: Any) -> Answer:
        status = command([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def vmr_data(answer) -> Callable[..., Answer]:
    """The answer of ``vmr-data`` in a data root."""

    def run(root, verb: str, *arguments: Any) -> Answer:
        return answer(data.main, verb, "--data-root", root, *arguments)

    return run
