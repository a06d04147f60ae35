"""A lock on a folder: one process writes in it at a time."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wildcat.errors import WildcatError

logger = logging.getLogger(__name__)

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder, which is made if need be, for the duration of the context.

    The lock is the operating system's (a POSIX record lock on ``.lock``). It ends with its process, however that ends,
    and the workers that read images do not inherit it. NFS supports it between machines if its lock service runs
    (always in version 4). On Windows and on file systems without locks, a warning is logged and nothing is locked.

    Raises:
        WildcatError: if another process holds the lock.
    """
    try:
        import fcntl
    except ImportError:
        logger.warning("%s cannot be locked on this system: make sure that no other process writes in it", folder)
        yield
        return
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / LOCK
    while True:
        with file.open("a+", encoding="utf-8") as stream:
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                stream.seek(0)
                holder = stream.read().strip() or "another process"
                raise WildcatError(f"{folder} is in use: {holder} writes in it; wait for it, or stop it") from error
            except OSError as error:
                logger.warning(
                    "%s cannot be locked (%s): make sure that no other process writes in it", folder, error.strerror
                )
            # The process that held the lock before may have removed the file that was opened here: try again.
            if not file.exists() or not os.path.samestat(os.fstat(stream.fileno()), file.stat()):
                continue
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}")
            stream.flush()
            try:
                yield
            finally:
                file.unlink(missing_ok=True)
                if new:  # a folder that stayed empty, because of a mistake in the settings, is removed
                    with suppress(OSError):
                        folder.rmdir()
            return
