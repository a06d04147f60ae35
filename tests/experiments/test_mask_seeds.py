"""Masks over seeds: seeds are resumed and not computed twice, and the table has paired differences."""

from pathlib import Path
from typing import Any

import pytest

from experiments import mask_seeds

ROW = {"recipe": "small", "data": "rooms", "masks": "9", "fitted_masks": "4", "precision": "fp32", "commit": "abc"}
ROW |= {"cores": "2", "cpu": "some CPU", "map": "80.00", "points": "", "scored": "rooms test", "interval_crf": ""}


def rows() -> list[dict[str, Any]]:
    values = {("0", "without"): 30.0, ("0", "with"): 34.0, ("1", "without"): 32.0, ("1", "with"): 38.0}
    return [
        {**ROW, "seed": s, "cue": c, "miou": f"{v}", "miou_crf": f"{v + 1}", "interval": f"{v - 5} {v + 5}"}
        for (s, c), v in values.items()
    ]


def test_the_table_has_means_intervals_and_paired_differences() -> None:
    *_, without, with_cue, difference = mask_seeds.markdown(rows(), "command").strip().splitlines()
    assert without.startswith("| rooms test, 9 masks | without | 2 | 31.0 ± 1.4 (95 %: 26.0 to 36.0) | 32.0 ± 1.4 |")
    assert "| with | 2 | 36.0 ± 2.8 (95 %: 31.0 to 41.0) | 37.0 ± 2.8 | 80.0 ± 0.0 |  |" in with_cue
    assert difference == "| rooms test | difference | | +5.0 ± 1.4 | +5.0 ± 1.4 | | |"


def test_seeds_that_are_done_are_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []

    def measure(config: Any, run: Path, recipe: str, spec: str, count: int | None) -> list[dict[str, Any]]:
        computed.append((config.seed, config.precision, run.name))
        key = {"recipe": recipe, "data": "count=8", "seed": config.seed, "scored": "count=8 test"}
        return [row | key | {"precision": config.precision} for row in rows()[:2]]

    monkeypatch.setattr(mask_seeds, "measure", measure)
    monkeypatch.setattr(mask_seeds, "with_precision", lambda config, device: config)
    folders = ["--out", str(tmp_path), "--results", str(tmp_path / "results")]
    for seeds in (["0"], ["0", "1"]):
        mask_seeds.main(["--data", "synthetic:count=8", "--recipe", "quickstart", *folders, "--seeds", *seeds])
    assert [seed for seed, _, _ in computed] == [0, 1]
    assert len({precision for _, precision, _ in computed}) == 1
    assert "| with | 2 |" in (tmp_path / "results" / "mask_seeds.md").read_text()
