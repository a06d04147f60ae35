"""Fixtures that every test may use, and what of their surroundings tests must not depend on."""

import importlib.util
import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Help is as wide as the terminal, and coloured where a variable says so; processes that tests start inherit both.
os.environ["COLUMNS"] = "100"
for name in ("LINES", "FORCE_COLOR", "PYTHON_COLORS"):
    os.environ.pop(name, None)

# The same examples each time: what fails once fails again. A busy machine is no error.
settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# Modules of tests that cannot be imported without an optional package, and are left out without it (`make minimum`).
NEEDED_PACKAGES = {
    "benchmarks/test_benchmarks.py": "onnx",
    "docs/test_paths.py": "mkdocs",
    "experiments/test_segmentation_table.py": "pytorch_grad_cam",
    "export/test_write.py": "onnx",
}
collect_ignore = [file for file, name in NEEDED_PACKAGES.items() if importlib.util.find_spec(name) is None]

REPOSITORY = Path(__file__).resolve().parent.parent

PROCESS_EVENTS = {"subprocess.Popen", "os.fork", "os.posix_spawn"}
_started: list[str] = []
# Its own names, because it is called until Python ends, when those of the module are gone.
sys.addaudithook(
    lambda event, _, kinds=PROCESS_EVENTS, started=_started: started.append(event) if event in kinds else None
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: where several processes share the files, the short ones end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    _started.clear()  # of imports


@pytest.fixture(autouse=True)
def _no_process_in_a_fast_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that starts a process, here or in a fixture, is marked slow."""
    yield
    started = list(_started)
    _started.clear()
    if started and request.node.get_closest_marker("slow") is None:
        pytest.fail(f"{request.node.name} starts a process ({started[0]}): mark it with pytest.mark.slow")


@pytest.fixture
def no_new_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that multiprocessing would start in a new Python are forked from the server of tests/processes.py."""
    from tests.processes import SERVER

    get_context = multiprocessing.get_context
    monkeypatch.setattr(
        multiprocessing, "get_context", lambda method=None: SERVER if method == "spawn" else get_context(method)
    )


@pytest.fixture(scope="session")
def run_and_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, "run", and an image, "cat.png", for tests that only read them."""
    from tests.data import trees
    from tests.tiny_runs import tiny
    from wildcat.training.launch import train

    folder = tmp_path_factory.mktemp("finished")
    train(tiny(epochs=1), folder / "run")
    trees.image(folder / "cat.png")
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with small real datasets: $WILDCAT_DATA or ../shared/data; tests that need it skip without it."""
    folder = Path(os.environ.get("WILDCAT_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found in {folder}; set WILDCAT_DATA to run this test")
    return folder
