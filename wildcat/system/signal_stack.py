"""Keep a thread's alternate signal stack when a library replaces it.

OpenVINO gives the thread that opens a model a stack of its own for signal handlers, because those of CPUs with
AMX need a large one, and frees it with the model while the kernel still points to it: the next signal, such as the end
of a child process, then ends the process. Python's handlers use that stack.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_DISABLED = 2  # SS_DISABLE of sigaltstack(2)


class _Stack(ctypes.Structure):  # stack_t of Linux
    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def keep_signal_stack() -> Iterator[None]:
    """Afterwards the calling thread has the signal stack that it had before; does nothing but on Linux."""
    if sys.platform != "linux":
        yield
        return
    library = ctypes.CDLL(None)
    before = _Stack()
    library.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        before.flags &= _DISABLED  # others tell of the moment
        library.sigaltstack(ctypes.byref(before), None)
