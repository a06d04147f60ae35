"""A lock on a folder: one process writes in it at a time."""

import errno
import logging
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path

from wildcat.errors import WildcatError
from wildcat.system.files import open_without_links

logger = logging.getLogger(__name__)

LOCK = ".lock"


class FolderLock:
    """Locks a folder, which is made if need be, for the duration of a context.

    The lock is the operating system's (a POSIX record lock on ``.lock``). It ends with its process, however that ends,
    and the workers that read images do not inherit it. NFS supports it between machines if its lock service runs
    (always in version 4). On Windows and on file systems without locks, a warning is logged and nothing is locked.

    Args:
        folder: to lock.
        wait: called with the name of the process that holds the lock, again and again until the lock is free; it
            pauses. Without it, a lock that is held is an error.

    Raises:
        WildcatError: if another process holds the lock, or ``.lock`` is a link, which could lead to any other file.

    >>> with FolderLock(Path("runs/mine")) as lock:  # doctest: +SKIP
    ...     lock.check()
    """

    def __init__(self, folder: Path, wait: Callable[[str], None] | None = None) -> None:
        self.folder = folder
        self._wait = wait
        self._file = folder / LOCK
        self._stream: FileIO | None = None
        self._identity: os.stat_result | None = None  # of the folder, while it is locked
        self._is_new = False
        self._text = f"process {os.getpid()} on {socket.gethostname()}".encode()

    def __enter__(self) -> "FolderLock":
        """Take the lock."""
        self._is_new = not self.folder.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._stream = self._take()
        except BaseException:
            self._remove_if_new()
            raise
        self._identity = self.folder.stat()
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock; a new folder that stayed empty, because of a mistake in the settings, is removed."""
        stream, self._stream = self._stream, None
        if stream is not None:
            if self._is_own(stream) or self._has_own_text():
                self._file.unlink(missing_ok=True)
            stream.close()
        if self._same_folder():
            self._remove_if_new()
        self._identity = None

    def check(self) -> None:
        """Check, before something is written, that the folder is still the one that was locked.

        A lock file that was removed is made again, unless another process has locked the folder since.

        Raises:
            WildcatError: if the folder was renamed, removed or replaced, or another process has locked it.
        """
        if self._stream is not None and self._is_own(self._stream):
            return
        if not self._same_folder() and not self._has_own_text():
            raise WildcatError(
                f"{self.folder} was renamed, removed or replaced while it was in use: nothing more is written there; "
                "what was saved before is where the folder is now"
            )
        if self._stream is not None:
            self._stream.close()
            self._stream = None  # not ours to remove, if another process has the lock
            self._stream = self._take()

    def _take(self) -> FileIO | None:
        """Lock the file; None where the system has no locks.

        Raises:
            WildcatError: if another process holds the lock.
        """
        try:
            import fcntl
        except ImportError:
            logger.warning(
                "%s cannot be locked on this system: make sure that no other process writes in it", self.folder
            )
            return None
        while True:
            stream = self._open()
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                with stream:
                    holder = stream.read(1000).decode(errors="replace").strip() or "another process"
                if self._wait is not None:
                    self._wait(holder)
                    continue
                raise WildcatError(
                    f"{self.folder} is in use: {holder} writes in it; wait for it, or stop it"
                ) from error
            except OSError as error:
                logger.warning(
                    "%s cannot be locked (%s): make sure that no other process writes in it",
                    self.folder,
                    error.strerror,
                )
            # The process that held the lock before may have removed the file that was opened here: try again.
            if not self._is_own(stream):
                stream.close()
                continue
            if os.fstat(stream.fileno()).st_nlink > 1:  # a hard link to another file, or of a copy of the folder
                self._file.unlink(missing_ok=True)
                stream.close()
                continue
            stream.truncate(0)
            stream.write(self._text)
            return stream

    def _open(self) -> FileIO:
        try:
            stream = open_without_links(self._file, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EMLINK, errno.EISDIR):
                raise WildcatError(f"{self._file} cannot be written: {error.strerror}") from error
            raise WildcatError(f"{self._file} is not a plain file (perhaps a link): remove it") from error
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            stream.close()
            raise WildcatError(f"{self._file} is not a plain file (perhaps a device or a pipe): remove it")
        return stream

    def _is_own(self, stream: FileIO) -> bool:
        """Whether the name of the lock file still leads to the open file."""
        try:
            return os.path.samestat(os.fstat(stream.fileno()), self._file.lstat())
        except OSError:
            return False

    def _has_own_text(self) -> bool:
        """Whether the lock file names this process: on some network disks the numbers of files change.

        Reading it releases the lock, as closing any descriptor of the file does.
        """
        try:
            with open_without_links(self._file, os.O_RDONLY) as stream:
                return stream.read(1000) == self._text
        except OSError:
            return False

    def _same_folder(self) -> bool:
        try:
            return self._identity is not None and os.path.samestat(self._identity, self.folder.stat())
        except OSError:
            return False

    def _remove_if_new(self) -> None:
        if self._is_new:
            with suppress(OSError):
                self.folder.rmdir()
