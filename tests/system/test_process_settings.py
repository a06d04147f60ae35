"""What belongs to the whole process: callers of the library keep their settings, the command line makes its own."""

import json
import subprocess
import sys

import pytest

from tests.tiny_runs import TINY, flags

pytestmark = pytest.mark.slow

CALLS = """
import json, os, sys, warnings
import accelerate, numpy, sklearn.svm, timm, torch, torchvision  # importing these may add filters of their own
import torch.utils.tensorboard
from wildcat.system import memory

calls = []

class Allocator:
    def mallopt(self, parameter, value):
        calls.append(parameter)

    def malloc_trim(self, _):
        pass

memory._glibc = Allocator

def settings():
    return list(warnings.filters), dict(os.environ), torch.get_num_threads()

before = settings()
"""

LIBRARY = """
import wildcat
from wildcat.prediction.items import image_items

predictor = wildcat.load("imagenet")
images = [numpy.zeros((32, 40, 3), numpy.uint8)] * 5
assert len(list(predictor.stream(image_items(images), batch_size=2))) == 5
wildcat.train(wildcat.TrainConfig(**json.loads(sys.argv[1])), sys.argv[2])
assert settings() == before, settings()
print(len(calls))
"""

COMMAND = """
from wildcat.cli import main

calls.clear()
assert main(json.loads(sys.argv[3])) == 0
assert settings() == before, settings()
print(len(calls))
"""


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    """The number of calls of mallopt by the library and, later in the same fresh process, by a command."""
    folder = tmp_path_factory.mktemp("runs")
    config, words = {**TINY, "epochs": 1}, ["train", "--out", str(folder / "command"), *flags(epochs=1)]
    arguments = [json.dumps(config), str(folder / "library"), json.dumps(words)]
    command = [sys.executable, "-W", "ignore", "-c", CALLS + LIBRARY + COMMAND, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.splitlines() if line.isdecimal()]


def test_the_library_leaves_the_process_as_it_is(calls: list[int]) -> None:
    assert calls[0] == 0


def test_a_command_sets_the_allocator_and_sets_it_back(calls: list[int]) -> None:
    assert calls[1] == 4  # two parameters, on and off
