"""Validation while training: its columns and curves, and that its scores are those of the weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny_runs import tiny
from tests.training.runs import rows, tensorboard, weights
from wildcat.runs.folder import load_run
from wildcat.training.launch import train

pytestmark = pytest.mark.slow


def test_validation_rows_and_curves_that_never_choose_the_epoch(tmp_path: Path, plain: Path) -> None:
    folder = train(tiny(val_split="val"), tmp_path / "run")
    assert weights(folder) == weights(plain)  # those of the last epoch, as without validation
    table = rows(folder)
    assert list(table[0]) == [
        *("epoch", "learning_rate", "train_loss", "images_per_second", "seconds", "val_loss", "val_map"),
    ]
    assert len(table) == 2
    assert len(list((folder / "tensorboard").iterdir())) == 1
    scalars = tensorboard(folder)
    for name in set(table[0]) - {"epoch"}:
        assert [event.step for event in scalars[name]] == [1, 2]
        assert [event.value for event in scalars[name]] == pytest.approx([float(row[name]) for row in table], rel=1e-5)


def test_validation_scores_are_those_of_the_weights(tmp_path: Path) -> None:
    from wildcat.data.registry import open_dataset
    from wildcat.data.transforms import warp
    from wildcat.metrics import average_precision

    folder = train(tiny(val_split="val", epochs=1), tmp_path / "run")
    model, _ = load_run(folder)
    held = open_dataset("synthetic:count=24,size=64", "val")
    pixels = np.stack([warp(held.image(index), 64) for index in range(len(held))])
    with torch.no_grad():
        scores = model(model.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))).scores.numpy()
    targets = (held.labels >= 0).astype(np.float64)  # difficult objects count as present
    losses = np.log1p(np.exp(scores)) - targets * scores
    (row,) = rows(folder)
    assert float(row["val_loss"]) == pytest.approx(losses.mean(), rel=1e-4)
    assert float(row["val_map"]) == pytest.approx(100 * np.nanmean(average_precision(scores, held.labels)), rel=1e-4)
