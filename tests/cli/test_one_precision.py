"""Every command and Python compute a run in the same precision unless asked otherwise, and record it with scores."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import wildcat
from wildcat.apps.batch.driver import _check_settings, predict_all
from wildcat.apps.report.build import write_report
from wildcat.apps.serve.server import serve
from wildcat.backbones import inference
from wildcat.cli import main
from wildcat.errors import WildcatError
from wildcat.evaluation.run import evaluate_run, submit_run
from wildcat.export import open as exported


@pytest.fixture(params=[True, False], ids=["matrix-units", "plain"])
def matrix_units(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the machine seems to have matrix units for bf16."""
    for module in (inference, exported):
        monkeypatch.setattr(module, "cpu_has_matrix_units", lambda: request.param)
    return bool(request.param)


def lines_of(run_and_image: Path, tmp_path: Path, *options: str) -> dict[str, Any]:
    out = tmp_path / "-".join(["found", *options])
    assert (
        main(["predict", str(run_and_image / "run"), str(run_and_image / "cat.png"), "--json", str(out), *options]) == 0
    )
    line: dict[str, Any] = json.loads(out.read_text())
    return line


def test_the_default_is_the_same_on_every_machine(
    run_and_image: Path, tmp_path: Path, matrix_units: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = wildcat.load(run_and_image / "run", precision="fp32")(run_and_image / "cat.png")
    line = lines_of(run_and_image, tmp_path)
    assert (line["precision"], line["runtime"]) == ("fp32", "torch")
    assert "computed in torch, fp32, cpu" in capsys.readouterr().err
    assert line == wildcat.load(run_and_image / "run")(run_and_image / "cat.png").to_dict() == expected.to_dict()
    assert line["scores"] == {name: round(score, 6) for name, score in expected.scores.items()}
    assert all(0 <= score <= 1 for score in line["scores"].values())
    half = lines_of(run_and_image, tmp_path, "--precision", "bf16")
    assert half["precision"] == "bf16" and half["scores"] != line["scores"]
    auto = lines_of(run_and_image, tmp_path, "--precision", "auto")
    assert auto == (half if matrix_units else line)  # what "auto" selected is recorded, not the word


@pytest.mark.parametrize("function", [wildcat.load, evaluate_run, submit_run, predict_all, write_report, serve])
def test_every_function_has_the_same_default(function: Any) -> None:
    assert inspect.signature(function).parameters["precision"].default == "fp32"


@pytest.mark.parametrize("command", ["predict", "evaluate", "batch", "serve", "report"])
def test_every_command_has_the_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--precision" in text and "bf16 where it is faster (default: fp32)" in text


@pytest.mark.parametrize("value", ["50", "1.5", "-0.1", "nan", "50%", "red=40"])
def test_a_threshold_is_a_probability(run_and_image: Path, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(run_and_image / "run"), str(run_and_image / "cat.png"), f"--threshold={value}"]) == 2
    assert "a threshold is a probability, 0..1" in capsys.readouterr().err


def test_a_batch_of_an_earlier_version_in_per_cent_is_not_extended(tmp_path: Path) -> None:
    settings = {"model": "m", "threshold": 0.5, "precision": "fp32", "scores": "0..1"}
    file = tmp_path / "batch.json"
    _check_settings(file, settings)
    _check_settings(file, settings)
    file.write_text(json.dumps({"model": "m", "threshold": 0.5, "precision": "fp32"}))
    with pytest.raises(WildcatError, match=r"scores in per cent; they are probabilities, 0\.\.1, now"):
        _check_settings(file, settings)
