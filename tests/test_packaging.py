"""What surrounds the package: metadata, workflows, make targets, the script of the release workflow."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import wildcat
from tests.conftest import NEEDED_PACKAGES, REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
GITHUB = REPOSITORY / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(form for form in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if form.name != "config.yml")
TARGETS = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


def requirements(extras: bool) -> list[Requirement]:
    lines = list(PROJECT["dependencies"])
    if extras:
        lines += [line for group in PROJECT["optional-dependencies"].values() for line in group]
    return [requirement for line in lines if (requirement := Requirement(line)).name != PROJECT["name"]]


# Metadata


def test_every_dependency_has_a_lower_bound() -> None:
    """`make minimum` installs the lowest version that is allowed: without a bound that is the first one ever."""
    unbounded = [str(r) for r in requirements(extras=True) if not {s.operator for s in r.specifier} & {">=", "=="}]
    assert not unbounded


def test_the_version_is_the_same_everywhere() -> None:
    assert read(REPOSITORY / "CITATION.cff")["version"] == wildcat.__version__


def test_the_citation_names_the_paper() -> None:
    paper = read(REPOSITORY / "CITATION.cff")["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Durand", "Mordan", "Thome", "Cord"]
    bibtex = re.search(r"```bibtex\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    assert bibtex is not None
    entry = " ".join(bibtex[1].replace("{", "").replace("}", "").split())
    assert paper["title"] in entry and str(paper["year"]) in entry
    assert " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"]) in entry


def test_addresses_of_the_repository_agree() -> None:
    """All are below the one of the metadata."""
    home = PROJECT["urls"]["Repository"]
    files = [REPOSITORY / "CITATION.cff", *REPOSITORY.glob("*.md"), *GITHUB.rglob("*.yml")]
    found = [u for f in files for u in re.findall(r"https://github\.com/wildcat[\w/.-]*", f.read_text())]
    found += [url for url in PROJECT["urls"].values() if "github.com" in url]
    assert len(found) > 5
    assert {url for url in found if not (url + "/").startswith(home + "/")} == set()


# Workflows


def test_there_are_workflows_and_forms() -> None:
    assert {file.stem for file in WORKFLOWS} == {"ci", "release"}
    assert {file.stem for file in FORMS} == {"bug", "feature", "question"}


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_workflows_call_make_targets_and_scripts_that_exist(file: Path) -> None:
    jobs = read(file)["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    called = [line.split() for command in commands for line in command.splitlines()]
    targets = [word for words in called if words[0] == "make" for word in words[1:] if re.fullmatch(r"[a-z-]+", word)]
    assert targets
    assert set(targets) <= TARGETS
    for words in called:
        if words[0].startswith("."):
            assert (REPOSITORY / words[0]).stat().st_mode & 0o111, f"{words[0]} cannot be executed"


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_jobs_wait_for_jobs_that_exist_and_have_a_time_limit(file: Path) -> None:
    jobs = read(file)["jobs"]
    for name, job in jobs.items():
        needs = job.get("needs", [])
        assert {needs} if isinstance(needs, str) else set(needs) <= set(jobs), name
        assert job["timeout-minutes"] <= 60, name


def test_only_publishing_may_have_an_identity() -> None:
    release = read(GITHUB / "workflows" / "release.yml")
    assert release["permissions"] == {"contents": "read"}
    with_identity = [name for name, job in release["jobs"].items() if "id-token" in job.get("permissions", {})]
    assert with_identity == ["publish"]
    assert "build" in release["jobs"]["publish"]["needs"]


def test_every_python_of_the_metadata_is_tested() -> None:
    tested = read(GITHUB / "workflows" / "ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    declared = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert tested == declared
    assert PROJECT["requires-python"] == f">={declared[0]}"


def test_commits_are_checked_by_the_same_commands() -> None:
    (repository,) = read(REPOSITORY / ".pre-commit-config.yaml")["repos"]
    for hook in repository["hooks"]:
        make, target = hook["entry"].split()
        assert make == "make" and target in TARGETS


@pytest.mark.parametrize("file", FORMS, ids=lambda file: file.stem)
def test_issue_forms_are_complete(file: Path) -> None:
    form = read(file)
    assert form["name"] and form["description"]
    identifiers = [field["id"] for field in form["body"]]
    assert len(set(identifiers)) == len(identifiers)
    assert all(field["type"] in {"textarea", "input", "checkboxes"} for field in form["body"])
    assert all(field["attributes"]["label"] for field in form["body"])


# The files that CONTRIBUTING names


def test_named_files_exist() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    named = {word for word in re.findall(r"`([\w./-]+)`", text) if re.search(r"/|\.(py|toml|md|cff)$", word)}
    named |= set(re.findall(r"\]\((?!https?:)([^)#]+)\)", text))
    examples = {word for word in named if re.search(r"[A-Z]{4}", Path(word).stem) and Path(word).suffix == ".py"}
    assert examples  # FAMILY.py and the like, which a contributor adds
    roots = (REPOSITORY, REPOSITORY / "wildcat")
    missing = {word for word in named - examples if not any((root / word).exists() for root in roots)}
    assert not missing


def test_named_commands_exist() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    called = {target for words in re.findall(r"`make ([a-z -]+)", text) for target in words.split()}
    assert {"test", "test-fast", "minimum", "bare", "dist"} <= called <= TARGETS


def test_modules_that_are_left_out_without_a_package_exist() -> None:
    assert [file for file in NEEDED_PACKAGES if not (REPOSITORY / "tests" / file).is_file()] == []


# The release

CHANGELOG = """# Changelog

## [Unreleased]

### Added

- something new

## [1.2.0] - 2027-01-31

### Fixed

- an error

## [1.1.0] - 2026-12-01

- old

[Unreleased]: https://example.org/commits
[1.1.0]: https://example.org/releases/1.1.0
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release_notes", REPOSITORY / ".ci" / "release_notes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("version", "registry", "notes"),
    [
        ("1.2.0", "pypi", "### Fixed\n\n- an error\n"),
        ("1.1.0", "pypi", "- old\n"),
        ("1.3.0rc1", "testpypi", "### Added\n\n- something new\n"),
        ("1.3.0a2", "testpypi", "### Added\n\n- something new\n"),
    ],
)
def test_notes_of_a_release(script: ModuleType, version: str, registry: str, notes: str) -> None:
    assert script.release_notes(f"v{version}", version, CHANGELOG) == (registry, notes)


@pytest.mark.parametrize(
    ("tag", "version", "message"),
    [
        ("v1.2.1", "1.2.0", "tag v1.2.1 does not match version 1.2.0 .*; expected v1.2.0"),
        ("1.2.0", "1.2.0", "expected v1.2.0"),
        ("v1.2", "1.2", "neither X.Y.Z"),
        ("v1.2.0.dev1", "1.2.0.dev1", "neither X.Y.Z"),
        ("v1.3.0", "1.3.0", r"no section '## \[1.3.0\] - YYYY-MM-DD'"),
        ("v1.2.0", "1.2.0", r"no section"),
    ],
)
def test_what_does_not_fit_is_an_error(script: ModuleType, tag: str, version: str, message: str) -> None:
    changelog = CHANGELOG.replace("## [1.2.0] - 2027-01-31", "## [1.2.0]")  # without its date
    with pytest.raises(script.ReleaseError, match=message):
        script.release_notes(tag, version, changelog)


def test_an_empty_section_is_an_error(script: ModuleType) -> None:
    with pytest.raises(script.ReleaseError, match="empty"):
        script.release_notes("v1.2.0", "1.2.0", "## [1.2.0] - 2027-01-31\n\n## [1.1.0] - 2026-12-01\n\n- old\n")


def test_the_changelog_of_the_project_gives_notes(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.package_version() == wildcat.__version__
    monkeypatch.setattr(script, "package_version", lambda: "0.1.0rc1")
    monkeypatch.setattr(sys, "argv", ["release_notes.py", "v0.1.0rc1", "--notes", str(tmp_path / "notes.md")])
    assert script.main() == 0
    assert capsys.readouterr().out == "registry=testpypi\n"
    assert "### Added" in (tmp_path / "notes.md").read_text()
    monkeypatch.setattr(sys, "argv", ["release_notes.py", "v9.9.9", "--notes", str(tmp_path / "other.md")])
    assert script.main() == 1
    assert capsys.readouterr().err.startswith("error: tag v9.9.9 does not match")
    assert not (tmp_path / "other.md").exists()
