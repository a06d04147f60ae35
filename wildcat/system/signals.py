"""Handlers of the signals that end a process: SIGTERM, and SIGHUP when its terminal or connection is closed."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def signals_handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call a function for SIGTERM and SIGHUP; afterwards, the handlers are those of before.

    A signal that is ignored, as SIGHUP is by ``nohup``, stays ignored. Python handles signals in the main thread only:
    in another one nothing changes.

    >>> with signals_handled(lambda number, frame: print("received", number)):
    ...     signal.raise_signal(signal.SIGTERM)
    received 15
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
