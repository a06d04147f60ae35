"""The fault harnesses, at their smallest."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("harness", "count"), [("faults", 6), ("prediction_faults", 3)])
def test_faults_smoke(harness: str, count: int) -> None:
    command = [sys.executable, "-m", f"benchmarks.{harness}", "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.strip().splitlines()
    assert lines[-1] == f"{count} of {count} faults ended as they should"
    assert all(line.endswith("identical") for line in lines[:-1])
