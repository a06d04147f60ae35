"""Bad input: every message of tests/robustness/TABLE.md."""

import asyncio
import gc
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.robustness import bad_input
from tests.robustness.bad_input import CASES, REQUESTS, Case
from tests.robustness.bad_input.web import Request, Site
from tests.tiny_runs import flags
from wildcat.apps.serve import server as app
from wildcat.apps.serve.page import Page
from wildcat.apps.serve.uploads import upload_folder
from wildcat.apps.serve.viewer import Viewer
from wildcat.cli import main
from wildcat.prediction.loading import load

ALL = [case for cases in CASES.values() for case in cases]
SLOW = {"pickled-backbone", "two-meanings", "deep-yaml"}


def words(typed: str) -> list[str]:
    """A command, of which a training has small settings."""
    command, *rest = shlex.split(typed)
    return [command, *(flags(epochs=1) if command == "train" and "--resume" not in rest else []), *rest]


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] if case.name in SLOW else [], id=case.name) for case in ALL],
)
def test_messages(
    case: Case, run_and_image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here"
    shutil.copytree(run_and_image, folder, ignore=shutil.ignore_patterns("tensorboard"))
    monkeypatch.chdir(folder)
    case.make(folder)
    capsys.readouterr()
    assert main(words(case.typed)) == (1 if case.skipped else 2)
    message = capsys.readouterr().err
    if case.skipped:  # before it stands what the predictions are computed in
        message = message[message.index("skipped: ") :]
    else:  # before an error stands at most the report on the data
        message = message[message.index("wildcat: error: ") + len("wildcat: error: ") :]
    pattern = ".*".join(map(re.escape, case.message.split("...")))
    assert re.fullmatch(pattern, message.strip(), re.DOTALL), message
    assert len(message.splitlines()) == len(case.message.splitlines())
    assert "Traceback" not in message
    assert not (folder / "executed").exists() and not (folder / "new" / "config.json").exists()


@pytest.fixture(scope="module")
def site(run_and_image: Path) -> Iterator[Site]:
    """The web page of the run."""
    pytest.importorskip("gradio")
    viewer = Viewer(load(run_and_image / "run"))

    async def opened() -> Site:  # without a running event loop gradio creates its own and does not close them
        return Site(app.create_app(viewer, "run"), Page(app._gradio(), viewer, "run"))

    with upload_folder():
        yield asyncio.run(opened())
    gc.collect()  # warnings about objects that gradio leaves open appear here, where they are allowed


# gradio's queue uses two options of pandas that pandas 3 no longer needs.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting'", "ignore:The copy keyword is deprecated")
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.name)
def test_messages_of_the_web_page(request_: Request, site: Site, run_and_image: Path, tmp_path: Path) -> None:
    shutil.copy(run_and_image / "cat.png", tmp_path / "cat.png")
    request_.make(tmp_path)
    message = request_.send(site, tmp_path)
    assert re.fullmatch(".*".join(map(re.escape, request_.message.split("..."))), message), message
    assert site.add_files(tmp_path / "cat.png") == ""  # the page still works


def test_no_case_is_there_twice() -> None:
    names = [case.name for case in (*ALL, *REQUESTS)]
    assert len(names) == len(set(names))


def test_the_page_is_made_of_the_cases() -> None:
    assert bad_input.PAGE.read_text(encoding="utf-8") == bad_input.page()
