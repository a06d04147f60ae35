"""The temporary folder of the web page: uploads and downloads, bounded in number and size, removed at the end."""

import logging
import math
import os
import shutil
import stat
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

MAX_VISITOR_BYTES = 512 * 2**20  # of the uploads from one address
MAX_VISITOR_FILES = 200
MAX_BYTES = 2 * 2**30  # of the whole folder
MAX_FILES = 2000
UPLOAD_LIFETIME_SECONDS = 12 * 3600
OTHER_LIFETIME_SECONDS = 900  # of images to show and files to download: browsers load them at once
CLEAN_UP_SECONDS = 60

SAMPLES = "samples"  # folder of the sample photographs, which stay

_PREFIX = "wildcat-page-"
_LOCK = "lock"


class _File(NamedTuple):
    changed: float
    path: str
    size: int


class Uploads:
    """The files in the folder, and whose they are. What is too much or too old is deleted, the oldest first.

    Args:
        folder: of gradio's files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._visitors: dict[str, dict[str, int]] = {}  # visitor -> path -> bytes, the oldest first
        self._arriving: Counter[str] = Counter()  # bytes of uploads that are not complete
        self._begun: list[float] = []  # when each of them began
        self._lock = threading.Lock()

    @contextmanager
    def arriving(self, visitor: str) -> Iterator[Callable[[int], bool]]:
        """Counts the bytes of an upload while it arrives.

        Args:
            visitor: the address it comes from.

        Yields:
            A function that counts further bytes, and returns whether the visitor may send them.
        """
        counted, begun, rejected = 0, time.time(), False

        def count(size: int) -> bool:
            nonlocal counted, rejected
            with self._lock:
                if not rejected:
                    counted += size
                    self._arriving[visitor] += size
                    rejected = self._arriving[visitor] > MAX_VISITOR_BYTES or self._arriving.total() > MAX_BYTES
                    if rejected:  # the other uploads may continue
                        self._arriving[visitor] -= counted
                        counted = 0
                return not rejected

        with self._lock:
            self._begun.append(begun)
        try:
            yield count
        finally:
            with self._lock:
                self._begun.remove(begun)
                self._arriving[visitor] -= counted
                if not self._arriving[visitor]:
                    del self._arriving[visitor]

    def record(self, visitor: str, paths: Iterable[str]) -> None:
        """Record uploaded files of a visitor, and delete the visitor's oldest beyond the limits."""
        with self._lock:
            files = self._visitors.setdefault(visitor, {})
            for path in paths:
                files.pop(path, None)
                with suppress(OSError):
                    files[path] = Path(path).stat().st_size
            while files and (len(files) > MAX_VISITOR_FILES or sum(files.values()) > MAX_VISITOR_BYTES):
                self._delete(next(iter(files)), visitor)
            if not files:
                self._visitors.pop(visitor, None)

    def clean(self) -> None:
        """Delete what is too old or incomplete, and the oldest files beyond the limits of the folder.

        gradio writes uploads into files at the top of the folder, renames them when they are complete, and leaves them
        there if they break off or are rejected.
        """
        with self._lock:
            now, uploaded = time.time(), {path for files in self._visitors.values() for path in files}
            begun = min(self._begun, default=math.inf)
            kept: list[_File] = []
            for file in self._files():
                lifetime = UPLOAD_LIFETIME_SECONDS if file.path in uploaded else OTHER_LIFETIME_SECONDS
                fragment = Path(file.path).parent == self.folder and file.changed < begun - 1
                if fragment or now - file.changed > lifetime:
                    self._delete(file.path)
                else:
                    kept.append(file)
            kept.sort(reverse=True)
            size = sum(file.size for file in kept)
            while kept and (len(kept) > MAX_FILES or size > MAX_BYTES):
                oldest = kept.pop()
                size -= oldest.size
                self._delete(oldest.path)

    def _files(self) -> Iterator[_File]:
        for folder, _, names in os.walk(self.folder):
            if Path(folder) != self.folder / SAMPLES:
                for file in (Path(folder, name) for name in names):
                    with suppress(OSError):
                        found = file.lstat()
                        yield _File(found.st_mtime, str(file), found.st_size)

    def _delete(self, path: str, visitor: str | None = None) -> None:
        """Delete a file; of one visitor only if no other visitor uploaded the same."""
        for name in [visitor] if visitor is not None else list(self._visitors):
            self._visitors[name].pop(path, None)
            if visitor is None and not self._visitors[name]:
                del self._visitors[name]
        if any(path in files for files in self._visitors.values()):
            return
        with suppress(OSError):
            Path(path).unlink()
        if Path(path).parent != self.folder:
            with suppress(OSError):  # not empty
                Path(path).parent.rmdir()


@contextmanager
def upload_folder() -> Iterator[Uploads]:
    """A temporary folder for uploads and downloads, removed at the end.

    Folders of pages that ended without removing theirs, because they were killed, are removed first. A page holds the
    lock in its folder for as long as its process lives.
    """
    _remove_abandoned(Path(tempfile.gettempdir()))
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as folder, _locked(Path(folder)):
        files = Path(folder, "files")
        files.mkdir()
        os.environ["GRADIO_TEMP_DIR"] = str(files)
        try:
            yield Uploads(files)
        finally:
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before


@contextmanager
def cleaned_regularly(uploads: Uploads) -> Iterator[None]:
    """Clean a folder every :data:`CLEAN_UP_SECONDS`, in a thread."""
    ended = threading.Event()

    def clean() -> None:
        while not ended.wait(CLEAN_UP_SECONDS):
            uploads.clean()

    thread = threading.Thread(target=clean, name="clean uploads", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock in a page's folder. It gets its name when it is locked: no other process finds it unlocked."""
    try:
        import fcntl
    except ImportError:  # Windows: abandoned folders are left to the system
        yield
        return
    new = folder / f"{_LOCK}-new"
    with new.open("x", encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        new.rename(folder / _LOCK)
        yield


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders of this user's pages that no longer run. Links are not followed."""
    try:
        import fcntl
    except ImportError:
        return
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if stat.S_ISREG(os.fstat(lock).st_mode):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an error if the page still runs
                    logger.debug("removing %s, left by a page that was killed", folder)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
