"""The project's text uses the field's words, one for each thing: CONTRIBUTING.md lists them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# Word to avoid -> what to write. Patterns match whole words, in any case, also inside identifiers.
WORDS = {
    r"pictures?": "image",
    r"trunks?": "backbone",
    r"told": "message, format, print",
    r"drawn": "synthetic, or generated",
    r"processors?": "CPU, or device",
    r"(?:go|goes|going|went|gone) on": "resume, or continue",
    r"passed over": "skip, or ignore",
    r"refus(?:e|es|ed|ing)": "reject",
    r"data sets?": "dataset",
}
SUFFIXES = {".py", ".pyi", ".md", ".html", ".js", ".css", ".yaml", ".yml", ".toml", ".cff"}
# Written by commands, or by other programs.
GENERATED = ("experiments/results/", "benchmarks/results/", "tests/fixtures/")

# Files, and the words that are right there: graphics are drawn, columns and keys of files are accepted under old names,
# "processor" is what Python's platform module and CPU makers call it, and CONTRIBUTING.md lists the words.
ALLOWED = {
    "CONTRIBUTING.md": r".*",
    "benchmarks/common.py": "processor",
    "docs/decisions.md": "drawn",
    "docs/performance.md": "processor",
    "docs/scaling.md": "processor|picture",
    "experiments/ledger.py": "processor",
    "experiments/reproduced.py": "processor",
    "experiments/README.md": "processor|pictures|trunk",
    "tests/apps/test_viewer.py": "drawn",
    "tests/render/test_text.py": "drawn",
    "tests/runs/test_results.py": "pictures",
    "tests/test_old_runs.py": "pictures",
    "wildcat/apps/batch/parquet.py": "picture",
    "wildcat/apps/serve/viewer.py": "drawn",
    "wildcat/data/label_studio.py": "picture",
    "wildcat/data/table.py": "picture",
    "wildcat/metrics/scores.py": "pictures",
    "wildcat/render/canvas.py": "drawn",
    "wildcat/render/overlays.py": "drawn",
    "wildcat/render/text.py": "drawn",
}


def written() -> Iterator[Path]:
    """The files of text that people write."""
    folders = [
        REPOSITORY / name for name in (".github", "wildcat", "tests", "docs", "benchmarks", "experiments", "examples")
    ]
    for file in [*REPOSITORY.iterdir(), *(file for folder in folders for file in sorted(folder.rglob("*")))]:
        name = file.relative_to(REPOSITORY).as_posix()
        if file.suffix in SUFFIXES and not name.startswith(GENERATED) and file.is_file():
            yield file


def misused(text: str) -> Iterator[tuple[int, str, str]]:
    """Line number, the word, and what to write instead."""
    for pattern, instead in WORDS.items():
        for match in re.finditer(rf"(?<![a-z]){pattern}(?![a-z])", text, re.IGNORECASE):
            yield text.count("\n", 0, match.start()) + 1, match.group(), instead


def test_words() -> None:
    wrong = []
    for file in written():
        if file == Path(__file__):
            continue
        name = file.relative_to(REPOSITORY).as_posix()
        for line, word, instead in misused(file.read_text(encoding="utf-8")):
            if not re.fullmatch(ALLOWED.get(name, ""), word.lower()):
                wrong.append(f"{name}:{line}: {word!r}: write {instead}")
    assert wrong == []


@pytest.mark.parametrize("text", ["A picture.", "num_pictures = 3", "TrunkLayer told"])
def test_words_are_found(text: str) -> None:
    assert list(misused(text))


@pytest.mark.parametrize("text", ["withdrawn", "pictured", "processorless"])
def test_parts_of_words_are_not(text: str) -> None:
    assert not list(misused(text))
