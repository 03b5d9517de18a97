"""The five papers offer the same functions from Python: what one learns with one of them holds for all."""

import importlib
import inspect

import pytest

from folders import MODELS

FUNCTIONS = ("load", "load_config", "train")


def shape(package: str, name: str) -> tuple[list[tuple[str, str]], str]:
    """Names and kinds of the parameters, and the first line of what is said about them, without the paper's name."""
    function = getattr(importlib.import_module(f"{package}.api"), name)
    parameters = [(one.name, str(one.kind)) for one in inspect.signature(function).parameters.values()]
    first = (inspect.getdoc(function) or "").partition("\n")[0]
    return parameters, first.replace(package, "PAPER")


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("package", MODELS)
def test_every_paper_offers_the_same_function(package, name):
    assert shape(package, name) == shape("rgn", name)
    assert name in importlib.import_module(package).__all__
