"""Bounds the memory that the threads of a process use at once for one purpose."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ByteBudget:
    """A number of bytes that threads reserve parts of; a thread waits until its part is free.

    Args:
        total: bytes that may be reserved at once. A larger request waits until nothing else is reserved.

    >>> budget = ByteBudget(100)
    >>> with budget.reserve(70):
    ...     budget.used
    70
    >>> budget.used
    0
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._reset()
        if hasattr(os, "register_at_fork"):  # the threads that hold a part do not exist in a forked process
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self.used = 0
        self._freed = threading.Condition()

    @contextmanager
    def reserve(self, amount: int) -> Iterator[None]:
        """Hold a number of bytes while the context is active; a thread must not reserve twice at once."""
        amount = min(amount, self.total)
        freed = self._freed
        with freed:
            freed.wait_for(lambda: self.used + amount <= self.total)
            self.used += amount
        try:
            yield
        finally:
            with freed:
                self.used -= amount
                freed.notify_all()
