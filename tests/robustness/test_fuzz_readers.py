"""The fuzzer's readers read their first inputs, which are good, and see what is wrong with others."""

from pathlib import Path

import pytest

from tests.robustness.fuzz_readers import READERS
from wildcat.errors import WildcatError


@pytest.mark.parametrize("name", READERS)
def test_good_inputs_are_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "lists":
        pytest.importorskip("pyarrow", reason="needs pyarrow, which comes with Ray")
    if name == "coco":
        pytest.importorskip("pycocotools")
    read, good = READERS[name](tmp_path)
    message: list[str] = []
    for content in good:
        try:
            read(content)
        except WildcatError as error:
            message.append(str(error))
    assert len(message) < len(good)
