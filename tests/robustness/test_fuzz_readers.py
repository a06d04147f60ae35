"""The fuzzer's readers read their first inputs, which are good, and see what is wrong with others."""

from pathlib import Path

import pytest

from tests.robustness.fuzz_readers import READERS
from tests.robustness.mutations import fuzz_at_random
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


@pytest.mark.parametrize("fails", [False, True])
def test_random_changes_find_a_reader_that_fails(fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(content: bytes) -> None:
        if fails and b'"id"' not in content:
            raise KeyError("id")
        raise WildcatError("as it should be")

    monkeypatch.chdir(tmp_path)
    assert fuzz_at_random("some", read, [b'{"id": 1}'], [b"nan"], 5 if fails else 0.05) == int(fails)
    assert [b'"id"' in file.read_bytes() for file in tmp_path.iterdir()] == [False] * fails
