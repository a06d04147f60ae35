"""What a training needs in order to go on: saved twice, checked when read, and the folder locked while it is written.

The newest state is ``state.pt``, the one before it ``state.previous.pt``. Both are plain files of ``torch.save``, whose
archive carries a checksum (CRC-32) of every tensor; reading verifies them all, so a flipped bit is noticed.
"""

import io
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

from wildcat.errors import WildcatError, first_line
from wildcat.runs.folder import PREVIOUS_STATE, STATE
from wildcat.system.files import write_atomically


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the training state; the one that was the newest becomes the one before.

    Raises:
        WildcatError: if the disk rejects; the states that were there are intact then.
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
            reason = first_line(error)
            if isinstance(error, pickle.UnpicklingError):  # PyTorch advises to execute it
                reason = "it holds more than tensors and plain values"
            damaged.append(f"{file} is damaged: {reason}")
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
