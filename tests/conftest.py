"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with small real data sets: $WILDCAT_DATA or ../shared/data; tests that need it skip without it."""
    folder = Path(os.environ.get("WILDCAT_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found in {folder}; set WILDCAT_DATA to run this test")
    return folder
