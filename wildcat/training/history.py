"""The curves of a training: a row per epoch, as CSV, for TensorBoard and for the log."""

from __future__ import annotations

import csv
import io
from contextlib import suppress
from typing import TYPE_CHECKING

from wildcat.runs.folder import METRICS, TENSORBOARD
from wildcat.system.files import write_atomically
from wildcat.system.lock import FolderLock

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Row = dict[str, float]

# Columns of metrics.csv that the log shows, with their names there.
_LOGGED_COLUMNS = {
    "train_loss": "loss",
    "val_loss": "val loss",
    "val_map": "val mAP",
    "val_accuracy": "val accuracy",
    "cv_map": "cross-validated mAP",
    "cv_accuracy": "cross-validated accuracy",
}


class MetricsWriter:
    """Writes ``metrics.csv`` and the TensorBoard files of a run; a context manager that ends with the training.

    Each process that trains a run adds one TensorBoard file, with its first row. That file also discards what an
    earlier process, killed since, wrote about the same epoch.

    Args:
        lock: on the folder of the run; nothing is written if the folder is no longer the one that was locked.
    """

    def __init__(self, lock: FolderLock) -> None:
        self._lock, self._folder = lock, lock.folder
        self._board: SummaryWriter | None = None

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            with suppress(OSError):  # every row is on disk; the folder may have been renamed
                self._board.close()

    def write(self, history: list[Row]) -> None:
        """Write all rows to ``metrics.csv`` and the last one for TensorBoard; both are on disk when this returns.

        Raises:
            WildcatError: if the folder was renamed or removed, or a file cannot be written.
        """
        import torch.utils.tensorboard  # noqa: F401 - takes seconds, so before the check

        self._lock.check()
        try:
            self._write_board(history[-1])
        except OSError:
            self._lock.check()  # the folder may have been renamed in this moment
            raise
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(key for row in history for key in row)))
        writer.writeheader()
        writer.writerows(history)
        write_atomically(self._folder / METRICS, text.getvalue().encode())

    def _write_board(self, row: Row) -> None:
        from torch.utils.tensorboard import SummaryWriter

        epoch = int(row["epoch"])
        if self._board is None:  # this makes folders, also that of a run that was renamed
            self._board = SummaryWriter(self._folder / TENSORBOARD, purge_step=epoch)
        for name, value in row.items():
            if name != "epoch":
                self._board.add_scalar(name, value, epoch)
        self._board.flush()


def describe(row: Row, epochs: int) -> str:
    """A row in one line for the log.

    >>> describe({"epoch": 2, "train_loss": 0.25, "images_per_second": 31.25}, epochs=10)
    'epoch 2/10: loss 0.25, 31.2 images/s'
    """
    parts = [f"{label} {row[name]:.4g}" for name, label in _LOGGED_COLUMNS.items() if name in row]
    return f"epoch {int(row['epoch'])}/{epochs}: {', '.join(parts)}, {row['images_per_second']:.1f} images/s"
