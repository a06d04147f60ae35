"""The course of a training: a row per epoch, as CSV, for TensorBoard and for people."""

import csv
import io
from pathlib import Path

from wildcat.checkpoint import write_atomically

Row = dict[str, float]


def write_history(folder: Path, history: list[Row]) -> None:
    """Write ``metrics.csv`` and the newest row to TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(history[0]))
    writer.writeheader()
    writer.writerows(history)
    write_atomically(folder / "metrics.csv", text.getvalue().encode())
    epoch = int(history[-1]["epoch"])
    with SummaryWriter(folder / "tensorboard", purge_step=epoch) as board:
        for name, value in history[-1].items():
            if name != "epoch":
                board.add_scalar(name, value, epoch)


def describe(row: Row, epochs: int) -> str:
    """One line for logs."""
    shown = {"train_loss": "loss", "val_loss": "val loss", "val_map": "val mAP", "val_accuracy": "val accuracy"}
    shown |= {"cv_map": "cross-validated mAP", "cv_accuracy": "cross-validated accuracy"}
    parts = [f"{label} {row[name]:.4g}" for name, label in shown.items() if name in row]
    return f"epoch {int(row['epoch'])}/{epochs}: {', '.join(parts)}, {row['images_per_second']:.1f} images/s"
