"""The Python blocks of docs/own_parts.md."""

import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from wildcat import pooling
from wildcat.backbones import factory

BLOCKS = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "own_parts.md").read_text(), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("code", BLOCKS)
def test_the_page(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for module in (factory, pooling):  # what a block registers ends with the test
        monkeypatch.setattr(module, "_factories", dict(module._factories))
    exec(compile(code, "own_parts.md", "exec"), {})
