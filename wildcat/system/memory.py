"""Keep freed memory for the next step instead of giving it back to the system.

glibc takes each large block from the system and gives it back when it is freed, so every feature map of every step is
first filled with zeros by the kernel, page by page. That costs a tenth of a training step on a CPU, and more of a
prediction in half precision.
"""

import ctypes
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of mallopt, and glibc's own values of them (malloc.h, mallopt(3)).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
_USUAL = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 128 * 1024}

_lock = threading.Lock()
_users = 0


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Within, blocks that are freed stay with the process; afterwards all is given back. May be nested.

    Does nothing where the allocator is not glibc's.
    """
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _set(_KEEP)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _set(_USUAL)
                _give_back()


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _set(values: dict[int, int]) -> None:
    library = _glibc()
    if library is not None:
        for parameter, value in values.items():
            library.mallopt(parameter, value)


def _give_back() -> None:
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)
