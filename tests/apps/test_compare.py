"""Comparison of runs by the command."""

import json
import shutil
from pathlib import Path

import pytest

from wildcat.cli import main

DATA = ["--data", "synthetic:count=24,size=64", "--split", "test"]


@pytest.mark.slow
def test_a_run_and_its_copy(run_and_image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_and_image / "run", copy)
    run, page, values = str(run_and_image / "run"), tmp_path / "page.html", tmp_path / "values.json"
    assert main(["compare", run, str(copy), *DATA, "--out", str(page), "--json", str(values), "--most", "3"]) == 0
    printed = capsys.readouterr().out
    assert "mAP" in printed and "+0.0 (+0.0 to +0.0)" in printed and "class (AP)" in printed
    found = json.loads(values.read_text())
    assert found["runs"] == ["run", "copy"] and found["metrics"][0]["differences"] == [0, 0]
    assert len(found["disagreements"]) == 3 and found["disagreements"][0]["spread"] == 0
    text = page.read_text()
    assert text.startswith("<!doctype html>") and text.count("data:image/jpeg;base64,") == 3
    assert "http://" not in text and "<script" not in text


def test_one_run_is_no_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tmp_path)]) == 2
    assert "at least two runs; got 1" in capsys.readouterr().err
