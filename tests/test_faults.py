"""The fault harness, at its smallest."""

import subprocess
import sys

from tests.conftest import REPOSITORY


def test_faults_smoke() -> None:
    command = [sys.executable, "-m", "benchmarks.faults", "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.strip().splitlines()
    assert lines[-1] == "6 of 6 faults ended as they should"
    assert all(line.endswith("identical") for line in lines[:-1])
