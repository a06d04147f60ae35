"""Stopping a training by a signal.

SIGTERM comes from pre-emption or a batch system's time limit, SIGINT from Ctrl+C, SIGHUP from a terminal or connection
that closes, and SIGUSR1 from SLURM where a job asks for a warning before its end.
"""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, ClassVar

WORKER_GRACE_SECONDS = 25  # torchrun kills what has not ended after 30


class StopRequest:
    """Records the first signal, so that the training can finish its step; a second SIGINT stops at once.

    A context manager: outside of it the handlers are those of before. Python delivers signals to the main thread only;
    in any other thread no stop is ever requested. A SIGHUP that is ignored, as under ``nohup``, stays ignored.

    Attributes:
        signal: number of the signal that was received, 0 for none.
    """

    SIGNALS: ClassVar[tuple[signal.Signals, ...]] = tuple(
        signal.Signals[name] for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
    )

    def __init__(self) -> None:
        self.signal = 0
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            self._previous_handlers = {
                number: signal.signal(number, self._record) for number in self.SIGNALS if not _is_ignored(number)
            }
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the previous handlers."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            # SIGTERM may arrive twice, from a batch system and from torchrun; a second Ctrl+C is meant.
            if number == signal.SIGINT:
                self.end_process(number)
            return
        self.signal = number
        hint = " (again: stop at once)" if number == signal.SIGINT else ""
        # Neither print nor logging: the signal may have interrupted one of them while it held a lock.
        with suppress(OSError):  # after SIGHUP there may be no terminal
            os.write(2, f"\n{signal.Signals(number).name}: saving the state, then stopping{hint}\n".encode())

    @staticmethod
    def end_process(number: int) -> None:
        """End as the signal would have ended the process.

        Raises:
            KeyboardInterrupt: for SIGINT.
            SystemExit: with code 128 + number for any other signal: 143 for SIGTERM, 129 for SIGHUP, 138 for SIGUSR1.
        """
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)


def _is_ignored(number: signal.Signals) -> bool:
    """Whether a signal stays ignored, as SIGHUP under ``nohup``; SIGINT never does."""
    return number != signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN


def delay_termination(worker: int) -> None:
    """Let a data loader's worker live for :data:`WORKER_GRACE_SECONDS` after a signal.

    Signals often go to all processes of a job, and the main process can only finish its step if its workers live.

    Args:
        worker: its number; not used, the data loader passes it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # No handler for SIGALRM: it ends the worker.
    for number in StopRequest.SIGNALS:
        if number != signal.SIGINT and not _is_ignored(number):
            signal.signal(number, lambda *_: signal.alarm(WORKER_GRACE_SECONDS))
