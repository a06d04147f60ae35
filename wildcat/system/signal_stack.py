"""Keep a thread's alternate signal stack when a library replaces it.

On CPUs with AMX signal handlers need a large stack, so OpenVINO sets one for the thread that opens a model. It frees
that stack with the model, while the kernel still points to it. Python's handlers use it, so the next signal, such as
the end of a child process, would end the process.
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
    """Restore the calling thread's signal stack when the context ends; does nothing on systems other than Linux."""
    if sys.platform != "linux":
        yield
        return
    library = ctypes.CDLL(None)
    before = _Stack()
    library.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        before.flags &= _DISABLED  # the other flags describe the moment
        library.sigaltstack(ctypes.byref(before), None)
