"""Decoded images that the processes which read ahead of the network share, within a budget of memory."""

import mmap
import multiprocessing
import os

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


class ImageCache:
    """Images by their index, each kept once; when the budget is used up, later ones are not kept.

    The memory is taken from the system when it is first written, so a large budget costs nothing in itself. Processes
    share it that were forked after it was made; it cannot be sent to others.

    Args:
        count: indices are 0 ... count - 1.
        budget: bytes.
    """

    def __init__(self, count: int, budget: int) -> None:
        self._store = np.frombuffer(mmap.mmap(-1, max(1, budget)), np.uint8)[:budget]
        # One past the start in the store (0: not there), height, width; the last row counts the bytes that are used.
        self._table = np.frombuffer(mmap.mmap(-1, 24 * (count + 1)), np.int64).reshape(-1, 3)
        self._lock = multiprocessing.get_context("fork").Lock()

    def get(self, index: int) -> Pixels | None:
        """The image (H, W, 3), read-only, or None."""
        with self._lock:
            start, height, width = self._table[index]
        if start == 0:
            return None
        pixels = self._store[start - 1 : start - 1 + 3 * height * width].reshape(height, width, 3)
        pixels.flags.writeable = False
        return pixels

    def put(self, index: int, pixels: Pixels) -> None:
        """Keep an image, uint8 (H, W, 3), if there is room and it is not there yet."""
        with self._lock:
            used = int(self._table[-1, 0])
            if self._table[index, 0] or used + pixels.size > self._store.size:
                return
            self._store[used : used + pixels.size] = pixels.reshape(-1)
            self._table[index] = used + 1, *pixels.shape[:2]
            self._table[-1, 0] = used + pixels.size


def create_cache(count: int, gigabytes: float, workers: int) -> ImageCache | None:
    """A cache of that size, but at most a quarter of the machine's memory; None where processes cannot share it."""
    if gigabytes <= 0 or os.name != "posix" or (workers and multiprocessing.get_start_method() != "fork"):
        return None
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return ImageCache(count, int(min(gigabytes * 1e9, machine / 4)))
