"""What a training needs in order to go on: saved twice, checked when read, and the folder locked while it is written.

The newest state is ``state.pt``, the one before it ``state.previous.pt``. Both are plain files of ``torch.save``, whose
archive carries a checksum (CRC-32) of every tensor; reading verifies them all, so a flipped bit is noticed.
"""

import io
import os
import pickle
import socket
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from wildcat.errors import WildcatError
from wildcat.runs.folder import PREVIOUS_STATE, STATE
from wildcat.system.files import write_atomically

LOCK = ".lock"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the training state; the one that was the newest becomes the one before.

    Raises:
        WildcatError: if the disk refuses; the states that were there are intact then.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(folder / STATE, buffer.getvalue(), keep=folder / PREVIOUS_STATE)


def load_state(folder: Path) -> dict[str, Any] | None:
    """The newest whole state, or None if none was saved yet; what is damaged is named on stderr and passed over.

    Raises:
        WildcatError: if there are states and none of them is whole.
    """
    damaged = []
    for file in (folder / STATE, folder / PREVIOUS_STATE):
        try:
            state = _read(file)
        except FileNotFoundError:
            continue
        except Exception as error:  # whatever a damaged archive makes of its reader
            reason = str(error).strip() or type(error).__name__
            if isinstance(error, pickle.UnpicklingError):  # PyTorch advises to execute it
                reason = "it holds more than tensors and plain values"
            damaged.append(f"{file} is damaged: {reason.splitlines()[0]}")
            continue
        if damaged:
            print(f"{damaged[0]}; going on from the state before it, {file.name}", file=sys.stderr)
        return state
    if damaged:
        raise WildcatError(
            f"{damaged[0]}" + ("" if len(damaged) == 1 else f"; {PREVIOUS_STATE} too") + "; "
            "delete it to start the run again from its beginning"
        )
    return None


def _read(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:  # opened once: a newer state may take this name meanwhile
        with zipfile.ZipFile(stream) as archive:
            wrong = archive.testzip()  # PyTorch itself does not compare the checksums that it writes
        if wrong is not None:
            raise ValueError(f"the checksum of {wrong} is wrong")
        stream.seek(0)
        state: dict[str, Any] = torch.load(stream, map_location="cpu", weights_only=True)
    return state


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, a run's or a batch's, which is made if need be: no other process can write in it meanwhile.

    The lock is the operating system's (POSIX record lock on ``.lock``), so it ends with its process however that ends,
    and the workers that read pictures do not inherit it. NFS has such locks between machines where its lock service
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
