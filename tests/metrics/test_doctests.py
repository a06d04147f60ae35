"""The examples in the docstrings print what they say."""

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("name", ["classification", "pointing", "segmentation"])
def test_examples(name):
    assert doctest.testmod(import_module(f"wildcat.metrics.{name}")).failed == 0
