"""What belongs to the whole process: callers of the library keep their settings, the command line makes its own."""

import json
import subprocess
import sys
from pathlib import Path

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

assert main(json.loads(sys.argv[1])) == 0
assert settings() == before, settings()
print(len(calls))
"""


def run(code: str, *arguments: str) -> int:
    """Run a part in a fresh process; the number of calls of mallopt."""
    command = [sys.executable, "-W", "ignore", "-c", CALLS + code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


@pytest.mark.timeout(300)
def test_the_library_leaves_the_process_as_it_is(tmp_path: Path) -> None:
    assert run(LIBRARY, json.dumps({**TINY, "epochs": 1}), str(tmp_path / "run")) == 0


@pytest.mark.timeout(300)
def test_a_command_sets_the_allocator_and_sets_it_back(tmp_path: Path) -> None:
    command = ["train", "--out", str(tmp_path / "run"), *flags(epochs=1)]
    assert run(COMMAND, json.dumps(command)) == 4  # two parameters, on and off
