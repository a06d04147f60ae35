"""A cache of decoded images in memory that the data loader's workers share, within a budget."""

import mmap
import multiprocessing
import os

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


class ImageCache:
    """Images by index; once the budget is used up, further images are not stored.

    The system provides the memory when it is first written, so a large budget alone costs nothing. The cache is shared
    by processes that are forked after it was made; it cannot be sent to others.

    Args:
        count: number of indices, from 0.
        budget: size in bytes.
    """

    def __init__(self, count: int, budget: int) -> None:
        self._store = np.frombuffer(mmap.mmap(-1, max(1, budget)), np.uint8)[:budget]
        # 1 + start in the store (0: not stored), height, width; the last row holds the number of bytes used.
        self._table = np.frombuffer(mmap.mmap(-1, 24 * (count + 1)), np.int64).reshape(-1, 3)
        self._lock = multiprocessing.get_context("fork").Lock()

    def get(self, index: int) -> Pixels | None:
        """The image (H, W, 3), uint8 and read-only, or None if it is not stored."""
        with self._lock:
            start, height, width = self._table[index]
        if start == 0:
            return None
        pixels = self._store[start - 1 : start - 1 + 3 * height * width].reshape(height, width, 3)
        pixels.flags.writeable = False
        return pixels

    def put(self, index: int, pixels: Pixels) -> None:
        """Store an image (H, W, 3), uint8, if there is room and it is not stored yet."""
        with self._lock:
            used = int(self._table[-1, 0])
            if self._table[index, 0] or used + pixels.size > self._store.size:
                return
            self._store[used : used + pixels.size] = pixels.reshape(-1)
            self._table[index] = used + 1, *pixels.shape[:2]
            self._table[-1, 0] = used + pixels.size


def create_cache(count: int, gigabytes: float, workers: int) -> ImageCache | None:
    """A cache of at most a quarter of the machine's memory; None if it is off or the workers could not share it.

    Args:
        count: number of images.
        gigabytes: its size; 0 for none.
        workers: of the data loader.
    """
    if gigabytes <= 0 or os.name != "posix" or (workers and multiprocessing.get_start_method() != "fork"):
        return None
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return ImageCache(count, int(min(gigabytes * 1e9, machine / 4)))
