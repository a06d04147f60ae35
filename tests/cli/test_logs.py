"""The log records that a command shows on standard error."""

import io
import logging
import sys

import pytest
from tqdm import tqdm

from wildcat.cli import main
from wildcat.cli.logs import logs_shown

logger = logging.getLogger("wildcat.somewhere")


def write_records() -> None:
    logger.debug("a detail of %s", "x")
    logger.info("an information")
    logger.warning("a doubt")


def test_records_are_plain_lines_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with logs_shown():
        write_records()
    assert capsys.readouterr() == ("", "an information\nwarning: a doubt\n")
    with logs_shown(debug=True):
        write_records()
    assert capsys.readouterr().err == "a detail of x\nan information\nwarning: a doubt\n"


def test_nothing_stays_behind(capsys: pytest.CaptureFixture[str]) -> None:
    library = logging.getLogger("wildcat")
    before = (library.level, list(library.handlers))
    for _ in range(2):
        with logs_shown():
            pass
    assert (library.level, library.handlers) == before
    write_records()
    assert "an information" not in capsys.readouterr().err


@pytest.mark.parametrize(("options", "count"), [([], 0), (["--debug"], 1)])
def test_main_shows_each_record_once(
    options: list[str], count: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def completion_script() -> str:
        write_records()
        return ""

    monkeypatch.setattr("wildcat.cli.completion.script", completion_script)
    for _ in range(2):
        assert main(["completion", "bash", *options]) == 0
        message = capsys.readouterr().err
        assert message.count("an information") == 1 and message.count("warning: a doubt") == 1
        assert message.count("a detail") == count


def test_a_record_does_not_tear_a_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a record is written, the bar is first removed from its line, and shown again below."""
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    with logs_shown(), tqdm(total=2, desc="epoch", file=terminal, mininterval=0, leave=False) as bar:
        bar.update()
        logger.info("an information")
    line = next(line for line in terminal.getvalue().splitlines() if "an information" in line)
    assert line.rpartition("\r")[2] == "an information"
