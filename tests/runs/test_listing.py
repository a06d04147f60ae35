"""The list of runs below a folder."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from wildcat.cli import main
from wildcat.errors import WildcatError
from wildcat.runs.listing import differing_settings, list_runs, sorted_runs

OLD = REPOSITORY / "tests" / "fixtures" / "before_the_layout"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three runs, one of them in a folder of its own and with other settings."""
    for name in ("finished", "scales"):
        shutil.copytree(OLD / name, tmp_path / name)
    other = tmp_path / "deep" / "other"
    shutil.copytree(OLD / "finished", other)
    values = json.loads((other / "config.json").read_text())
    values["config"] |= {"epochs": 7, "kmax": 0.5, "workers": 3}
    (other / "config.json").write_text(json.dumps(values))
    results = json.loads((other / "results.json").read_text())
    results["classification"]["map_area"] = 99.5
    (other / "results.json").write_text(json.dumps(results))
    return tmp_path


def test_runs_are_listed(folder: Path) -> None:
    runs, problems = list_runs(folder)
    assert [run.name for run in runs] == ["deep/other", "finished", "scales"] and problems == []
    assert all(run.data.startswith("synthetic") and run.scored for run in runs)
    two = [run for run in runs if run.name != "scales"]
    assert differing_settings(two) == ["kmax", "epochs"] or set(differing_settings(two)) == {"kmax", "epochs"}
    assert next(iter(sorted_runs(runs, "mAP"))).name == "deep/other"
    assert [run.name for run in sorted_runs(two, "epochs")] == ["finished", "deep/other"]
    with pytest.raises(WildcatError, match=r"--sort .mAp. is unknown; .* did you mean mAP"):
        sorted_runs(runs, "mAp")


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "broken").mkdir()
    (folder / "broken" / "config.json").write_text("{")
    assert main(["runs", str(folder), "--sort", "mAP"]) == 0
    printed = capsys.readouterr()
    head, first, *rest = printed.out.splitlines()
    assert head.split()[:2] == ["run", "data"] and "epochs" in head and "mAP" in head and "workers" not in head
    assert first.startswith("deep/other") and "99.5" in first and len(rest) == 2
    assert "broken" in printed.err
    assert main(["runs", str(folder), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [value["run"] for value in values] == ["deep/other", "finished", "scales"]
    assert values[0]["settings"]["epochs"] == 7 and values[0]["results"]["classification"]["map_area"] == 99.5


def test_folders_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path)]) == 2
    assert "holds no run directory" in capsys.readouterr().err
    assert main(["runs", str(tmp_path / "nowhere")]) == 2
    assert "is not a folder" in capsys.readouterr().err
