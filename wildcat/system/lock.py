"""A lock on a folder that one process holds at a time."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wildcat.errors import WildcatError

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, a run's or a batch's, which is made if need be: no other process can write in it meanwhile.

    The lock is the operating system's (POSIX record lock on ``.lock``), so it ends with its process however that ends,
    and the workers that read images do not inherit it. NFS has such locks between machines where its lock service
    runs (always in version 4); where a file system has none, and on Windows, a note says so and nothing is locked.

    Raises:
        WildcatError: if another process holds it.
    """
    try:
        import fcntl
    except ImportError:
        print(f"{folder} cannot be locked on this system: see that no other process writes in it", file=sys.stderr)
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
                print(
                    f"{folder} cannot be locked ({error.strerror}): see that nothing else writes in it", file=sys.stderr
                )
            # Who held the lock before may have removed the file that was opened here: then it locks nothing.
            if not file.exists() or not os.path.samestat(os.fstat(stream.fileno()), file.stat()):
                continue
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}")
            stream.flush()
            try:
                yield
            finally:
                file.unlink(missing_ok=True)
                if new:  # and nothing came of it: a mistake in the settings leaves no folder
                    with suppress(OSError):
                        folder.rmdir()
            return
