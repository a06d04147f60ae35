"""Memory: errors that mean that it ran out, and freed memory that the process keeps.

Keeping it: the process does not give it back to the operating system.

glibc takes each large block from the kernel and gives it back when it is freed, so the kernel fills every feature map
of every step with zeros first, page by page. That costs a tenth of a training step on a CPU, and more of a prediction
in half precision.

The setting belongs to the whole process. Only the command line and the applications change it: a program that uses the
library keeps its allocator as it is, and may call :func:`keep_freed_memory` itself.
"""

import ctypes
import errno
import platform
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of mallopt(3), and glibc's default values (malloc.h).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
_DEFAULT = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 128 * 1024}

# What libraries say when memory runs out: PyTorch on CPU and GPU, oneDNN, C++, ONNX Runtime, OpenVINO, the loader.
_NO_MEMORY = re.compile(
    "allocate memory|not enough memory|out of memory|could not (create|execute) a primitive$|bad_alloc|bad allocation"
    "|failed to allocate|unable to allocate|cannot allocate|failed to map segment",
    re.IGNORECASE,
)
_NO_THREAD = re.compile("can't start new thread|Thread creation failed|pthread_create", re.IGNORECASE)

_lock = threading.Lock()
_active = 0  # contexts that are open


def lack_of_memory(error: BaseException, memory: str = "this machine") -> str | None:
    """Say in a sentence that memory ran out, for an error that means that; None for any other error.

    Args:
        error: of Python, PyTorch or any library that computes; PyTorch's own type is known by its name.
        memory: whose memory it is.

    >>> lack_of_memory(MemoryError()), lack_of_memory(RuntimeError("shapes cannot be multiplied"))
    ('the memory of this machine is not enough', None)
    """
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, RuntimeError | OSError) and _NO_THREAD.search(text):
        return (
            "no new thread can be started: memory, or the number of threads that is allowed (ulimit -u), is not enough"
        )
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (not isinstance(error, OSError) and _NO_MEMORY.search(text))
    ):
        return f"the memory of {memory} is not enough"
    return None


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Keep freed blocks in the process while the context is active; afterwards give all of them back.

    Contexts may be nested and may overlap in several threads. Does nothing where the allocator is not glibc's.

    >>> with keep_freed_memory():
    ...     pass
    """
    global _active
    with _lock:
        _active += 1
        if _active == 1:
            _set_options(_KEEP)
    try:
        yield
    finally:
        with _lock:
            _active -= 1
            if _active == 0:
                _set_options(_DEFAULT)
                _trim()


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _set_options(values: dict[int, int]) -> None:
    library = _glibc()
    if library is not None:
        for parameter, value in values.items():
            library.mallopt(parameter, value)


def _trim() -> None:
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)
