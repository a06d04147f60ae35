"""Figures are written by program: the ledger and README say what the kept results say."""

import json
import subprocess
import sys
from pathlib import Path

from experiments import ledger
from tests.conftest import REPOSITORY


def test_pages_are_up_to_date():
    ended = subprocess.run(
        [sys.executable, "-m", "experiments.ledger", "check"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr


def test_seeds_are_summed_up(tmp_path: Path, monkeypatch):
    record = json.loads(next(ledger.RESULTS.glob("*.json")).read_text())
    records = []
    for seed, score in enumerate((80.0, 82.0)):
        copied = json.loads(json.dumps(record)) | {"seed": seed}
        copied["results"]["classification"]["map_area"] = score
        copied["results"].pop("segmentation", None)
        records.append(copied)
    shown = ledger.figures(records)
    assert shown["mAP"] == "81.0 ± 1.4"
    assert "mIoU" not in shown
    (row,) = ledger.table(records).splitlines()[2:]
    assert "81.0 ± 1.4" in row and "| 0, 1 |" in row
