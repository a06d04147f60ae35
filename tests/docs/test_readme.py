"""Every command and every Python block of README, run with smaller settings."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.data import trees
from wildcat.cli import main
from wildcat.data.registry import open_dataset
from wildcat.prediction.loading import load

TEXT = (REPOSITORY / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", TEXT, re.S) for line in block.splitlines()]
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.S)
SMALL = ["--backbone", "lite0", "--epochs", "1", "--image-size", "64", "--batch-size", "2", "--workers", "0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that README assumes: class folders, a CSV file, new images, a VOC tree in DIR, and dog.jpg."""
    root = tmp_path_factory.mktemp("readme")
    dataset = open_dataset("synthetic:count=16,size=64", "train")
    rows = ["image,tags"]
    for index in range(len(dataset)):
        name = f"{'ab'[index % 2]}/{index}.jpg"
        for place in (root / "my_images", root):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            dataset.image(index).save(place / name)
        present = [c for c, label in zip(dataset.classes, dataset.labels[index], strict=True) if label == 1]
        rows.append(f"{name},{';'.join(present)}")
    (root / "my_images.csv").write_text("\n".join(rows) + "\n")
    (root / "new_images").mkdir()
    dataset.image(0).save(root / "new_images" / "new.jpg")
    dataset.image(1).save(root / "dog.jpg")
    trees.voc(root / "DIR")
    return root


def test_code_stands_by_line_20() -> None:
    assert TEXT.splitlines().index("```python") < 20


@pytest.mark.slow
def test_commands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for command in COMMANDS:
        words = shlex.split(command, comments=True)
        if words[0] == "make":
            subprocess.run([*words, "--dry-run"], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
            continue
        assert words[0] == "wildcat", command
        if words[1] == "serve":  # runs until Ctrl+C
            monkeypatch.setattr("wildcat.apps.serve.server.serve", lambda run, **_: load(run))
        if words[1] == "train":
            words += SMALL
        assert main(words[1:]) == 0, command


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = PYTHON[number]
    if number:
        code = code.replace("count=64", "count=8,size=64").replace("count=32", "count=8,size=64")
    monkeypatch.chdir(folder)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
