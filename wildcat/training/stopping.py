"""Being asked to stop: SIGTERM (pre-emption, a batch system's time limit) and SIGINT (control-C)."""

import os
import signal
import threading
from types import FrameType
from typing import Any


class StopRequest:
    """Notes the first signal and leaves the moment to whoever looks; a second SIGINT stops at once.

    A context manager: outside of it signals do what they did before. In another thread than the main one, where Python
    has no signals, it never asks to stop.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.signal = 0  # its number once one has come
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        """Listen."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            # SIGTERM may come twice, from a batch system and from torchrun; a second control-C is meant.
            if number == signal.SIGINT:
                self.leave(number)
            return
        self.signal = number
        again = " (again: stop at once)" if number == signal.SIGINT else ""
        # Not print, which may be under way in what the signal interrupted.
        os.write(2, f"\n{signal.Signals(number).name}: saving the state, then stopping{again}\n".encode())

    @staticmethod
    def leave(number: int) -> None:
        """End as the signal would have ended the process: KeyboardInterrupt, or exit code 143 for SIGTERM."""
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)


GRACE = 25  # seconds; torchrun waits for 30


def outlive_signals(worker: int) -> None:
    """Let a worker that reads images live on for a while after a signal.

    Signals often go to all processes of a job, and the main one must still finish its step, which it cannot if a worker
    dies under it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))  # nothing catches SIGALRM: it ends the worker
