"""Runs that several files of these tests read."""

from pathlib import Path

import pytest

from tests.tiny_runs import tiny
from wildcat.training.launch import train


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run of the tiny settings; tests read it and leave it as it is."""
    return train(tiny(), tmp_path_factory.mktemp("plain") / "run")
