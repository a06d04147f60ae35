"""The state of a training run that is not finished: how far it is, and its files.

The newest state is ``state.pt``, the one before it ``state.previous.pt``. Both are plain files of ``torch.save`` with
the entries "model", "optimizer" (state dicts) and "progress" (:meth:`TrainState.to_dict`). Their archives carry a
checksum (CRC-32) of every tensor; loading verifies all of them, so that a flipped bit is noticed.
"""

import io
import logging
import pickle
import reprlib
import zipfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from wildcat.errors import WildcatError, first_line
from wildcat.runs.folder import PREVIOUS_STATE, STATE
from wildcat.system.files import write_atomically
from wildcat.training.history import Row

logger = logging.getLogger(__name__)


@dataclass
class TrainState:
    """How far a run is. Together with the model's and the optimizer's state this is all that resuming needs.

    Attributes:
        epoch: the epoch in progress, from 0; the number of epochs when all are finished.
        step: the next step of this epoch, from 0.
        loss: sum of the losses of this epoch's steps so far.
        seconds: time that these steps took, in the processes that did them.
        images: images that these steps read, over all processes.
        history: the row of ``metrics.csv`` of each finished epoch.
        first_loss: the loss before the first step of the run; None until that step.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    images: int = 0
    history: list[Row] = field(default_factory=list)
    first_loss: float | None = None

    def finish_step(self, loss: float, seconds: float, images: int) -> None:
        """Count a step: its loss, its duration and the images it read, over all processes."""
        self.step += 1
        self.loss += loss
        self.seconds += seconds
        self.images += images

    def finish_epoch(self, row: Row) -> None:
        """Append the epoch's row to the history; the next epoch begins."""
        self.history.append(row)
        self.epoch += 1
        self.step, self.loss, self.seconds, self.images = 0, 0.0, 0.0, 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the entry "progress" of a state file holds them."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_dict(cls, values: Any) -> "TrainState":
        """The inverse of :meth:`to_dict`; entries that a file lacks have their defaults.

        Raises:
            WildcatError: for entries that no state has, or values that an entry cannot have.
        """
        if not isinstance(values, dict):
            raise WildcatError(f"the saved state has no progress but {reprlib.repr(values)}")
        known = [each.name for each in fields(cls)]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise WildcatError(f"the saved state has unknown entries: {', '.join(unknown)}")
        for name, value in values.items():
            if not _is_valid(name, value):
                raise WildcatError(f"the saved state has a wrong value of {name}: {reprlib.repr(value)}")
        return cls(**values)


def _is_valid(name: str, value: Any) -> bool:
    """Whether a value is one that an entry of a state can have."""
    if name in ("epoch", "step", "images"):
        return type(value) is int and 0 <= value < 2**53
    if name == "history":
        return isinstance(value, list) and all(
            isinstance(row, dict) and all(isinstance(key, str) and _is_number(each) for key, each in row.items())
            for row in value
        )
    return (name == "first_loss" and value is None) or _is_number(value)


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**53)


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state.pt``; the file that had this name becomes ``state.previous.pt``.

    Args:
        folder: of the run.
        state: "model", "optimizer" and "progress".

    Raises:
        WildcatError: if the file cannot be written (disk full, read-only); the states of before are intact then.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(folder / STATE, buffer.getvalue(), keep=folder / PREVIOUS_STATE)


def load_state(folder: Path) -> dict[str, Any] | None:
    """Load the newest intact state, on the CPU; a damaged one is named in the log and skipped.

    Returns:
        "model", "optimizer" and "progress", or None if no state was saved yet.

    Raises:
        WildcatError: if there are states and all of them are damaged.
    """
    damaged = []
    for file in (folder / STATE, folder / PREVIOUS_STATE):
        try:
            state = _load(file)
        except FileNotFoundError:
            continue
        except Exception as error:  # a damaged archive may raise any type
            reason = first_line(error)
            if isinstance(error, pickle.UnpicklingError):  # PyTorch's message advises to execute the file
                reason = "it holds more than tensors and plain values"
            damaged.append(f"{file} is damaged: {reason}")
            continue
        if damaged:
            logger.warning("%s; resuming from the state before it, %s", damaged[0], file.name)
        return state
    if damaged:
        raise WildcatError(
            f"{damaged[0]}" + ("" if len(damaged) == 1 else f"; {PREVIOUS_STATE} too") + "; "
            "delete it to start the run again from its beginning"
        )
    return None


def _load(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:  # opened once: a newer state may take this name meanwhile
        with zipfile.ZipFile(stream) as archive:
            wrong = archive.testzip()  # PyTorch itself does not compare the checksums that it writes
        if wrong is not None:
            raise ValueError(f"the checksum of {wrong} is wrong")
        stream.seek(0)
        state: Any = torch.load(stream, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError(f"it holds no state but {reprlib.repr(state)}")
    return state
