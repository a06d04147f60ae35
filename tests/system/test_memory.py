"""Freed memory stays in the process within the context and is given back afterwards, also when nested."""

import platform
import subprocess
import sys

import pytest

from wildcat.system.memory import keep_freed_memory

pytestmark = pytest.mark.slow

FAULTS = """
import resource, torch
from wildcat.system.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(4_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
with keep_freed_memory():
    faults()
    with keep_freed_memory():
        pass
    inside = faults()
print(inside, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of another system")
def test_freed_blocks_stay_in_the_process_within_the_context() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    inside, after = map(int, done.stdout.split())
    assert inside < 500  # 5 blocks of 16 MB are 19,531 pages
    assert after > 5000


def test_an_error_passes_through() -> None:
    with pytest.raises(KeyError), keep_freed_memory():
        raise KeyError
