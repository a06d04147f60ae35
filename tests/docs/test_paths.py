"""The files, names and packages that the documentation refers to."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from docs import site_hooks
from tests.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
PLACEHOLDERS = re.compile(r"[/_](FAMILY|KIND|NAME|TASK)\.py$")
ROOMS = ("wildcat", "tests", "docs", "benchmarks", "experiments", "examples")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    paths = [path for path in re.findall(r"`([\w./-]+)`", text) if path.startswith(tuple(f"{name}/" for name in ROOMS))]
    for path in paths:
        assert (REPOSITORY / path).exists() or PLACEHOLDERS.search(path), path
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link


def test_names_of_the_paper_are_in_the_files_beside_them() -> None:
    text = (REPOSITORY / "docs" / "paper_to_code.md").read_text(encoding="utf-8")
    pairs = re.findall(r"`(wildcat/[\w/]+\.py)` `(\w+)`(?:, `(\w+)`)?", text)
    assert len(pairs) > 15
    for file, *names in pairs:
        module = import_module(file.removesuffix(".py").replace("/", "."))
        for name in filter(None, names):
            assert hasattr(module, name), (file, name)


def test_every_public_package_has_a_reference_page() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (REPOSITORY / "docs" / "reference").glob("*.md"))
    shown = set(site_hooks.PACKAGE.findall(pages))
    private = {"wildcat", "wildcat.cli", "wildcat.system", "wildcat.apps", "wildcat.recipes"}
    folders = [file.parent.relative_to(REPOSITORY) for file in (REPOSITORY / "wildcat").rglob("__init__.py")]
    assert {".".join(folder.parts) for folder in folders} - private == shown


def test_the_function_of_every_command_exists() -> None:
    from wildcat.cli import COMMANDS

    text = (REPOSITORY / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `wildcat (\w+)` \| (.*?) \|", text, re.MULTILINE)
    assert {command for command, _ in rows} == set(COMMANDS)
    for command, cell in rows:
        names = re.findall(r"`(wildcat[\w.]*)\(", cell)
        assert names or command == "completion", command
        for name in names:
            module, _, attribute = name.rpartition(".")
            assert callable(getattr(import_module(module), attribute)), name
