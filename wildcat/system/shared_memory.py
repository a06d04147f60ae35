"""The shared memory of the machine, through which worker processes hand over what they read."""

import os
from typing import NamedTuple

from wildcat.errors import first_line

PLACE = "/dev/shm"  # of Linux
_REMEDY = "make it larger (Docker: --shm-size=2g or --ipc=host), or lower workers (0 needs none) or batch_size"
_SIGNS = ("Bus error", "out of shared memory", "shared memory(shm)", "</torch_", "shared memory object")


class Space(NamedTuple):
    """Bytes of the shared memory: in all, and free."""

    total: int
    free: int

    def __str__(self) -> str:
        """Return both in MB."""
        return f"{PLACE} ({self.total / 2**20:.0f} MB, {self.free / 2**20:.0f} MB free)"


def shared_memory_space() -> Space | None:
    """The shared memory of this machine or container; None where there is no such folder."""
    try:
        state = os.statvfs(PLACE)
    except (AttributeError, OSError):  # not Linux
        return None
    return Space(state.f_frsize * state.f_blocks, state.f_frsize * state.f_bavail)


def lack_of_shared_memory(error: BaseException) -> str | None:
    """One sentence about an error that full shared memory causes, with what to do; None for any other error."""
    if not any(sign in str(error) for sign in _SIGNS):
        return None
    place = shared_memory_space() or PLACE
    return (
        f"the shared memory {place}, through which worker processes hand over images, is too small; {_REMEDY} "
        f"({first_line(error)})"
    )


def shared_memory_warning(needed: int) -> str | None:
    """A warning if less than a number of bytes is free; None if it is enough.

    >>> shared_memory_warning(0) is None
    True
    """
    space = shared_memory_space()
    if space is None or space.free >= needed:
        return None
    return (
        f"worker processes hand over images through the shared memory {space}, and may need {needed / 2**20:.0f} MB: "
        f"if training stops, {_REMEDY}"
    )
