"""The five papers offer the same functions from Python: what one learns with one of them holds for all."""

import importlib
import inspect
import re

import pytest

from folders import MODELS

FUNCTIONS = ("load", "load_config", "train")


def shape(package: str, name: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Names and kinds of the parameters, and what is said about them, without the names of paper and configuration."""
    function = getattr(importlib.import_module(f"{package}.api"), name)
    parameters = [(one.name, str(one.kind)) for one in inspect.signature(function).parameters.values()]
    about = re.sub(rf"\b{package}\b", "PAPER", inspect.getdoc(function) or "", flags=re.IGNORECASE)
    return parameters, about.replace("shapes-long", "shapes").splitlines()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("package", MODELS)
def test_every_paper_offers_the_same_function(package, name):
    (parameters, about), (wanted, said) = shape(package, name), shape("rgn", name)
    assert parameters == wanted
    assert [line for line in said if line not in about] == []  # a paper may say more
    assert name in importlib.import_module(package).__all__
