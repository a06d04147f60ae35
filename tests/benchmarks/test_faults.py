"""The fault harnesses, at their smallest."""

from importlib import import_module

import pytest

from tests.processes import ForkedProcess

pytestmark = pytest.mark.slow


def _smoke(harness: str) -> int:
    code: int = import_module(f"benchmarks.{harness}").main(["--smoke"])
    return code


@pytest.mark.parametrize(("harness", "count"), [("faults", 6), ("prediction_faults", 3)])
def test_faults_smoke(harness: str, count: int) -> None:
    process = ForkedProcess(_smoke, [harness])
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    lines = out.strip().splitlines()
    assert lines[-1] == f"{count} of {count} faults ended as they should"
    assert all(line.endswith("identical") for line in lines[:-1])
