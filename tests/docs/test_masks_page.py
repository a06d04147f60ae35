"""Commands and Python blocks of docs/masks.md, run with smaller settings."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from tests import unusual
from tests.conftest import REPOSITORY
from tests.tiny_runs import tiny
from wildcat.cli import main
from wildcat.training.launch import train

pytestmark = pytest.mark.slow

TEXT = (REPOSITORY / "docs" / "masks.md").read_text()
DATA = "synthetic:count=8,size=64"


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tiny(data=DATA, epochs=1), tmp_path / "runs" / "voc12")
    (tmp_path / "images").mkdir()
    for path in (tmp_path / "dog.jpg", tmp_path / "images" / "dog.jpg"):
        Image.fromarray(unusual.photo()).save(path)
    monkeypatch.chdir(tmp_path)
    (commands,) = re.findall(r"```bash\n(.*?)```", TEXT, re.S)
    for command in commands.splitlines():
        assert main(shlex.split(command.replace("voc12:DIR", DATA))[1:]) == 0, command
    assert (tmp_path / "predictions" / "mask" / "dog.png").is_file()
    assert (tmp_path / "predictions" / "mask-overlay" / "dog.jpg").is_file()
    for code in re.findall(r"```python\n(.*?)```", TEXT, re.S):
        code = code.replace('{"dog"', '{"fish"').replace("voc12:DIR", DATA)
        exec(compile(code, "masks.md", "exec"), {"__name__": "__main__"})
    assert (tmp_path / "dog-mask.jpg").is_file()
    assert len(list((tmp_path / "pseudo").glob("*.png"))) == 8
    for image in re.findall(r"\(images/(.*?)\)", TEXT):
        assert (REPOSITORY / "docs" / "images" / image).is_file()
