"""Messages about shared memory that is too small for worker processes."""

import os
import types

import pytest

from wildcat.system import shared_memory


@pytest.mark.parametrize(("blocks", "free"), [(512, 0), (16384, 16000)])
def test_small_shared_memory_is_named_with_its_size(monkeypatch: pytest.MonkeyPatch, blocks: int, free: int) -> None:
    """2 MB, and the 64 MB that Docker gives."""
    state = types.SimpleNamespace(f_frsize=4096, f_blocks=blocks, f_bavail=free)
    monkeypatch.setattr(os, "statvfs", lambda path: state)
    size = f"/dev/shm ({blocks // 256} MB, {free // 256} MB free)"
    warning = shared_memory.shared_memory_warning(100 * 2**20)
    assert warning is not None and size in warning and "need 100 MB" in warning and "--shm-size" in warning
    assert shared_memory.shared_memory_warning(free * 4096) is None
    message = shared_memory.lack_of_shared_memory(RuntimeError("DataLoader worker is killed by signal: Bus error. It"))
    assert message is not None and size in message and "--shm-size=2g" in message


def test_machines_without_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "PLACE", "/nothing/there")
    assert shared_memory.shared_memory_warning(2**60) is None
    assert shared_memory.lack_of_shared_memory(RuntimeError("out of memory")) is None
