"""Arrays of one shape under keys, in two files that only grow; a process that is killed leaves every array whole.

::

    NAME.values   the arrays, one after the other
    NAME.index    a record per array: its key, the checksum of its bytes (CRC-32), the checksum of the record

A record is written after the bytes of its array are on disk. So other processes may read while one writes, whoever
writes holds a lock, and what a killed process has not recorded is overwritten by the next one.
"""

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from wildcat.errors import WildcatError

KEY_BYTES = 16
_RECORD = np.dtype([("key", f"V{KEY_BYTES}"), ("values", "<u4"), ("record", "<u4")])
_CHECKED = _RECORD.itemsize - 4  # bytes of a record that its own checksum is of
_FLUSH_BYTES = 1 << 26  # so many bytes of arrays are recorded at once
_THREADS = 4  # checksums release Python's lock

Append = Callable[[Sequence[bytes], npt.NDArray[Any]], None]


class ArrayFile:
    """Arrays under keys; of a key that was written twice, the later array counts.

    Args:
        file: without suffix; files that do not exist hold no arrays.
        shape: of each array.
        dtype: of their elements.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> file = ArrayFile(Path(folder.name) / "a", (2,), np.dtype(np.uint16))
    >>> with file.writer() as append:
    ...     append([b"0123456789abcdef"], np.array([[3, 4]], np.uint16))
    >>> file.rows([b"0123456789abcdef", b"fedcba9876543210"]).tolist(), file.read([0]).tolist()
    ([0, -1], [[3, 4]])
    >>> folder.cleanup()
    """

    def __init__(self, file: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._index, self._values = (file.with_name(f"{file.name}.{suffix}") for suffix in ("index", "values"))
        self._shape, self._dtype = shape, dtype
        self._bytes = int(np.prod(shape)) * dtype.itemsize  # of an array
        self.load()

    def load(self) -> None:
        """Read the index again: another process may have written since.

        Raises:
            WildcatError: if a file cannot be read.
        """
        try:
            index = self._index.read_bytes() if self._index.exists() else b""
            size = self._values.stat().st_size if self._values.exists() else 0
            self._count = len(index) // _RECORD.itemsize
            whole = min(self._count, size // self._bytes)
            self._arrays: npt.NDArray[Any] = (
                np.memmap(self._values, self._dtype, "r", shape=(whole, *self._shape))
                if whole
                else np.empty((0, *self._shape), self._dtype)
            )
        except OSError as error:
            raise WildcatError(f"{error.filename} cannot be read: {error.strerror}") from error
        records = np.frombuffer(index, _RECORD, self._count)
        self._checksums = records["values"]
        self._rows = {
            record["key"].tobytes(): row
            for row, record in enumerate(records[:whole])
            if zlib.crc32(record.tobytes()[:_CHECKED]) == record["record"]
        }

    def rows(self, keys: Sequence[bytes]) -> npt.NDArray[np.int64]:
        """The row of each key, for :meth:`read`; -1 where there is none."""
        return np.array([self._rows.get(key, -1) for key in keys], np.int64)

    def intact(self, rows: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Whether the bytes of each array have their checksum; reads them."""
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(lambda row: zlib.crc32(self._arrays[row].data) == self._checksums[row], rows)
            return np.fromiter(found, np.bool_, len(rows))

    def read(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """The arrays of rows, copied from the mapped file into memory."""
        return self._arrays[np.asarray(rows, np.int64)]

    @contextmanager
    def writer(self) -> Iterator[Append]:
        """A function that appends arrays (n, ...) under n keys; what it wrote can be read when the context ends.

        Only one process may write at a time, and it must have called :meth:`load` since it became the one that does.

        Raises:
            WildcatError: if the files cannot be written; the arrays that were recorded stay.
        """
        try:
            with self._index.open("ab") as index, self._values.open("ab") as values:
                index.truncate(self._count * _RECORD.itemsize)
                values.truncate(self._count * self._bytes)
                waiting: list[bytes] = []  # records of arrays that may not be on disk yet

                def append(keys: Sequence[bytes], arrays: npt.NDArray[Any]) -> None:
                    for key, array in zip(keys, np.ascontiguousarray(arrays, self._dtype), strict=True):
                        values.write(array.data)
                        waiting.append(_record(key, zlib.crc32(array.data)))
                        if len(waiting) * self._bytes >= _FLUSH_BYTES:
                            _flush(values, index, waiting)

                try:
                    yield append
                finally:
                    _flush(values, index, waiting)
        except OSError as error:
            name = error.filename or self._values
            raise WildcatError(f"{name} cannot be written: {error.strerror}") from error
        finally:
            self.load()


def _record(key: bytes, checksum: int) -> bytes:
    first = key + checksum.to_bytes(4, "little")
    return first + zlib.crc32(first).to_bytes(4, "little")


def _flush(values: BinaryIO, index: BinaryIO, waiting: list[bytes]) -> None:
    """Bring arrays to disk, and after them their records."""
    values.flush()
    os.fsync(values.fileno())
    index.write(b"".join(waiting))
    index.flush()
    os.fsync(index.fileno())
    waiting.clear()
