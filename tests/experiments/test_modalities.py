"""The comparison of class-wise poolings: its heads are those of a model, and no score is computed twice."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from experiments import modalities
from experiments.modalities import TEST, main
from experiments.modality_heads import MAPS, ROWS, create_heads, multi_maps_of, overlap_of, pooled
from experiments.rows import read_rows
from wildcat.class_pooling import class_wise_pool
from wildcat.config import TrainConfig
from wildcat.pooling import spatial_pool

CONFIG = TrainConfig("synthetic", kmax=0.2, alpha=0.7)


def test_heads_compute_what_a_model_computes() -> None:
    chosen = [("mean", 0.4), ("max", 0.4), ("lse, half dropped", 0.8)]
    heads = create_heads(chosen, channels=6, classes=3, seed=2)
    features = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(0))
    for head, multi_maps in zip(heads, multi_maps_of(heads, features), strict=True):
        torch.testing.assert_close(multi_maps, head.transfer(features))
        scores, class_maps = pooled(head.way, multi_maps, CONFIG, training=False)
        torch.testing.assert_close(class_maps, class_wise_pool(multi_maps, MAPS, head.way.class_pooling))
        torch.testing.assert_close(scores, spatial_pool(class_maps, 0.2, 0.2, 0.7))
    first, other = (create_heads([(name, 1.0)], 6, 3, 2)[0] for name in ("mean", "mean, initial weights x 8"))
    torch.testing.assert_close(other.transfer.weight, 8 * first.transfer.weight)


def test_the_overlap_is_that_of_classes_that_are_present() -> None:
    multi_maps = torch.full((1, 2 * MAPS, 1, MAPS), -50.0)
    for m in range(MAPS):
        multi_maps[0, m, 0, m] = 50  # the first class: each map at another place
        multi_maps[0, MAPS + m, 0, 0] = 50  # the second: all at one
    apart, together = (overlap_of(multi_maps, torch.tensor([labels])) for labels in ([1, -1], [-1, 1]))
    assert apart.item() == pytest.approx(0, abs=1e-6) and together.item() == pytest.approx(1)
    assert overlap_of(multi_maps, torch.tensor([[-1, -1]])).item() == 0


class RandomFeatures:
    """Features of 16 images in place of those of a backbone."""

    shape = (16, 1, 5, 2, 2)

    def read(self, rows: Sequence[int], view: int = 0) -> torch.Tensor:
        return torch.randn(self.shape[:1] + self.shape[2:], generator=torch.Generator().manual_seed(view))[list(rows)]


@pytest.mark.slow
def test_each_score_is_computed_once_and_rates_are_chosen_on_held_out_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modalities, "features_of", lambda spec, split, size, out: RandomFeatures())
    rows = ["mean, fitted maps", "lse, half dropped"]
    command = ["--data", "synthetic:count=16,size=64", "--image-size", "64", "--epochs", "1", "--out", str(tmp_path)]
    command += ["--results", str(tmp_path), "--rows", *rows, "--seeds"]
    main([*command, "0"])
    file = tmp_path / "modalities.csv"
    lines = read_rows(file)
    rates = modalities.best_rates(lines)
    assert len(lines) == 2 * (2 * len(modalities.RATES) + 1)
    assert [(line["row"], float(line["rate"])) for line in lines if line["scored"] == TEST] == list(rates.items())
    assert set(rates) == set(rows) <= set(ROWS)
    assert all(0 <= float(line["apart"]) <= 1 and int(line["images_with_parts"]) > 0 for line in lines)
    main([*command, "0", "1"])
    assert read_rows(file)[: len(lines)] == lines and len(read_rows(file)) == len(lines) + 2
    table = (tmp_path / "modalities.md").read_text()
    assert table.count("| lse, half dropped | ") == 1 + len(modalities.RATES) and "| 2 | " in table
    assert str(tmp_path) not in table
