"""The course of a training: a row per epoch, as CSV, for TensorBoard and for people."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from wildcat.system.files import write_atomically

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Row = dict[str, float]


class History:
    """Writes the rows of a run's epochs into its folder; a context that ends with the training.

    A process adds one file to TensorBoard's folder, with its first row. The file takes back what a process before it
    wrote of the same epoch and was then killed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._board: SummaryWriter | None = None

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()

    def write(self, history: list[Row]) -> None:
        """Write ``metrics.csv``, and the newest row for TensorBoard; both are in the folder when this returns."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)
        write_atomically(self._folder / "metrics.csv", text.getvalue().encode())
        epoch = int(history[-1]["epoch"])
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(self._folder / "tensorboard", purge_step=epoch)
        for name, value in history[-1].items():
            if name != "epoch":
                self._board.add_scalar(name, value, epoch)
        self._board.flush()


def describe(row: Row, epochs: int) -> str:
    """One line for logs."""
    shown = {"train_loss": "loss", "val_loss": "val loss", "val_map": "val mAP", "val_accuracy": "val accuracy"}
    shown |= {"cv_map": "cross-validated mAP", "cv_accuracy": "cross-validated accuracy"}
    parts = [f"{label} {row[name]:.4g}" for name, label in shown.items() if name in row]
    return f"epoch {int(row['epoch'])}/{epochs}: {', '.join(parts)}, {row['images_per_second']:.1f} images/s"
