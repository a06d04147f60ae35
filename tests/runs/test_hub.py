"""What is shared of a run, the model card, and the way to a hub that answers from a folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

from tests import unusual
from wildcat.cli import main
from wildcat.errors import WildcatError
from wildcat.masks import Background
from wildcat.prediction.loading import load
from wildcat.runs.folder import save_background
from wildcat.runs.hub import push_to_hub, save_for_hub

SECRET = "/home/someone/private"
RESULTS: dict[str, Any] = {
    "data": f"voc07:{SECRET}/voc/",
    "split": "test",
    "images": 1234,
    "classification": {"map_area": 89.5, "map_11point": 80.0},
    "pointing": {"map": 70.25},
    "warnings": [
        "2 of 1234 scored images were trained on (equal files), so that scores on them are too high: "
        f"a.jpg = {SECRET}/a.jpg, {SECRET}/my images/of someone.jpg"
    ],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, run_and_image: Path) -> Path:
    folder = Path(shutil.copytree(run_and_image / "run", tmp_path_factory.mktemp("hub") / "run"))
    values = json.loads((folder / "config.json").read_text())
    values["config"]["data"] = f"folder:{SECRET}/images"
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "results.json").write_text(json.dumps(RESULTS))
    save_background(folder, Background("power", 2.0), f"folder:{SECRET}/images train", 40.0)
    return folder


class Hub:
    """Answers as huggingface_hub's client does, from a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: list[tuple[str, bool]] = []

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> str:
        assert exist_ok
        if repo_id.startswith("other/"):
            raise RuntimeError("403 Forbidden\nfor a reason")
        self.made.append((repo_id, private))
        return f"https://hub.example/{repo_id}"

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)

    def snapshot_download(self, name: str, *, allow_patterns: list[str]) -> str:
        assert not any("pt" in pattern or "bin" in pattern for pattern in allow_patterns)  # no pickle
        return str(self.root / name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda token: hub)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    return hub


@pytest.mark.slow
def test_upload_and_download(run: Path, hub: Hub) -> None:
    assert push_to_hub(run, "owner/name", private=True) == "https://hub.example/owner/name"
    assert hub.made == [("owner/name", True)]
    shared = hub.root / "owner" / "name"
    names = {"README.md", "background.json", "config.json", "model.safetensors", "results.json"}
    assert {path.name for path in shared.iterdir()} == names
    one, other = load(run), load("owner/name")
    assert one.settings == other.settings
    assert np.array_equal(one(unusual.photo()).probabilities, other(unusual.photo()).probabilities)


@pytest.mark.slow
def test_no_path_of_this_machine_is_shared(run: Path, tmp_path: Path) -> None:
    save_for_hub(run, tmp_path / "shared")
    for file in (tmp_path / "shared").iterdir():
        assert b"someone" not in file.read_bytes(), file.name
    assert json.loads((tmp_path / "shared" / "config.json").read_text())["config"]["data"] == "folder:images"
    (warning,) = json.loads((tmp_path / "shared" / "results.json").read_text())["warnings"]
    assert warning.startswith("2 of 1234 scored images were trained on")
    assert json.loads((run / "config.json").read_text())["config"]["data"] == f"folder:{SECRET}/images"


def test_the_model_card(run: Path, tmp_path: Path) -> None:
    save_for_hub(run, tmp_path, name="owner/name", license="apache-2.0")
    card = ModelCard.load(tmp_path / "README.md")  # the hub's own reader
    assert card.data.license == "apache-2.0" and card.data.library_name == "wildcat"
    measured = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert measured == {"mAP": 89.5, "pointing mAP": 70.25}
    assert "| mAP | 89.5 % |" in card.text and "1,234 images" in card.text
    assert "24 images of `folder:images`" in card.text
    for name in load(run).settings.classes:
        assert name in card.text
    assert "**Warning:** 2 of 1234 scored images were trained on (equal files), so that scores" in card.text
    assert "## Limits" in card.text and 'wildcat.load("owner/name")' in card.text


def test_a_run_without_results(run: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(run / name, bare / name)
    save_for_hub(bare, tmp_path / "shared")
    card = ModelCard.load(tmp_path / "shared" / "README.md")
    assert card.data.license == "unknown" and card.data.eval_results is None
    assert "# bare" in card.text and "Not measured" in card.text


def test_errors(run: Path, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(WildcatError, match=r"other/name could not be uploaded: 403 Forbidden$"):
        push_to_hub(run, "other/name")
    for name in ("name", "a/b/c", "/name", "owner/"):
        with pytest.raises(WildcatError, match="is called owner/name; got"):
            push_to_hub(run, name)
    shutil.copyfile(run / "config.json", tmp_path / "config.json")
    with pytest.raises(WildcatError, match=r"has no model\.safetensors: training has not finished"):
        push_to_hub(tmp_path, "owner/name")


def test_the_command(run: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(run), "owner/name", "--license", "mit"]) == 0
    assert capsys.readouterr().out == "published: https://hub.example/owner/name\n"
    assert main(["push", str(run), "owner/name", "--to", str(tmp_path / "there")]) == 0
    assert (tmp_path / "there" / "README.md").is_file() and len(hub.made) == 1
