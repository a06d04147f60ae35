"""The ledger and the main README show the scores of the records."""

import json
import sys
from pathlib import Path

from experiments import ledger


def test_pages_are_up_to_date(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ledger", "check"])
    assert ledger.main() == 0


def test_seeds_are_averaged(tmp_path: Path, monkeypatch):
    record = json.loads(next(ledger.RESULTS.glob("*.json")).read_text())
    records = []
    for seed, score in enumerate((80.0, 82.0)):
        copied = json.loads(json.dumps(record)) | {"seed": seed}
        copied["results"]["classification"]["map_area"] = score
        copied["results"].pop("segmentation", None)
        records.append(copied)
    shown = ledger.mean_scores(records)
    assert shown["mAP"] == "81.0 ± 1.4"
    assert "mIoU" not in shown
    (row,) = ledger.table(records).splitlines()[2:]
    assert "81.0 ± 1.4" in row and "| 0, 1 |" in row


def test_each_scale_and_combination_has_a_record(tmp_path: Path, monkeypatch):
    config = {"config": {"data": "scene15:/somewhere/15-Scene", "seed": 0, "workers": 1, "lr": 0.1}}
    run = tmp_path / "run"
    for scale in (64, 96):
        (run / f"scale-{scale}").mkdir(parents=True)
        (run / f"scale-{scale}" / "config.json").write_text(json.dumps(config))
        (run / f"scale-{scale}" / "metrics.csv").write_text(f"epoch,seconds\n1,{scale}\n2,1\n")
    (run / "scales.json").write_text(json.dumps(config))
    part = {score: {"classification": {"accuracy": score}} for score in (90.0, 91.0, 93.0)}
    results = {"data": "scene15:x", "split": "test", "images": 9, "seconds": 3, "versions": {}, "combination": "mean"}
    results |= part[93.0]
    results |= {"scales": {"64": part[90.0], "96": part[91.0]}, "combinations": {"mean": part[93.0]}}
    (run / "results.json").write_text(json.dumps(results))
    monkeypatch.setattr(ledger, "RESULTS", tmp_path / "results")
    files = ledger.add(run, "small", "", "abc")
    assert [file.stem for file in files] == ["small-64-seed0", "small-96-seed0", "small-mean-seed0"]
    records = [json.loads(file.read_text()) for file in files]
    assert [r["train_seconds"] for r in records] == [65, 97, 162]
    assert [r["results"]["classification"]["accuracy"] for r in records] == [90, 91, 93]
    assert all(r["data"] == "15-Scene" and "data" not in r["config"] for r in records)


def test_an_interval_is_shown_where_all_seeds_have_one():
    record = json.loads(next(ledger.RESULTS.glob("*.json")).read_text())
    records = []
    for seed, (miou, low, high) in enumerate(((40.0, 35.0, 46.0), (42.0, 37.0, 47.0))):
        copied = json.loads(json.dumps(record)) | {"seed": seed}
        copied["results"]["segmentation"] = {"miou": miou, "miou_interval": [low, high], "miou_crf": 43.0}
        records.append(copied)
    assert ledger.mean_scores(records)["mIoU"] == "41.0 ± 1.4 (95 %: 36.0 to 46.5)"
    assert ledger.mean_scores(records)["mIoU with CRF"] == "43.0 ± 0.0"
    del records[0]["results"]["segmentation"]["miou_interval"]
    assert ledger.mean_scores(records)["mIoU"] == "41.0 ± 1.4"
