"""Commands forked from this process, which need no time for imports, and the rows about faults."""

from __future__ import annotations

import csv
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# What training imports when it is needed, imported before the forks: it takes longer than a short training.
import timm  # noqa: F401
import torch._dynamo
import torch.utils.tensorboard  # noqa: F401

from benchmarks.crf import environment
from wildcat.cli import main as wildcat

Row = dict[str, Any]


class Forked:
    """A `wildcat` command in a process of its own, which ends by its own exit code.

    Args:
        words: the command, without "wildcat".
        folder: what it writes; what it prints goes to a file beside that.
    """

    def __init__(self, words: Sequence[str], folder: Path) -> None:
        self.log = Path(tempfile.mkstemp(dir=folder.parent, suffix=".log")[1])
        self.folder = folder
        self.exit_code: int | None = None
        self.process = os.fork()
        if self.process == 0:
            code = 1
            try:
                os.setpgid(0, 0)
                with self.log.open("w") as log:
                    os.dup2(log.fileno(), 1)
                    os.dup2(log.fileno(), 2)
                    sys.stdout = sys.stderr = log
                    try:
                        code = wildcat(words)
                    except SystemExit as error:
                        code = int(error.code or 0)
            finally:
                os._exit(code)

    def ended(self) -> bool:
        if self.exit_code is None:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                self.exit_code = os.waitstatus_to_exitcode(status)
        return self.exit_code is not None

    def until(self, moment: Callable[[], bool], seconds: float = 600, pause: float = 0.0005) -> bool:
        """Wait for a moment; False if it ended before."""
        deadline = time.monotonic() + seconds
        while not self.ended():
            if moment():
                return True
            if time.monotonic() > deadline:
                self.signal(signal.SIGKILL)
                sys.exit(f"nothing happened for {seconds:.0f} s; see {self.log}")
            time.sleep(pause)
        return False

    def signal(self, number: int) -> None:
        if not self.ended():
            os.kill(self.process, number)

    def wait(self) -> int:
        self.until(lambda: False)
        assert self.exit_code is not None
        return self.exit_code

    def message(self) -> str:
        """The last line of what it printed."""
        lines = [line for line in self.log.read_text().splitlines() if line.strip()]
        return lines[-1].replace(f"{self.folder}/", "") if lines else ""


def fault_row(part: str, fault: str, observed: str, outcome: str, good: bool | None = None) -> Row:
    """The row of a fault; by default the good outcome is "identical"."""
    good = outcome == "identical" if good is None else good
    return {"part": part, "fault": fault, "found": observed, "outcome": outcome, "good": good}


def shown(row: Row) -> str:
    """A line of the terminal."""
    return f"{row['part']:>7} {row['fault']:<32} {row['found']:<48} {row['outcome']}"


def write(file: Path, rows: list[Row]) -> None:
    """Write the CSV file, with a description of the machine."""
    file.parent.mkdir(parents=True, exist_ok=True)
    where = environment()
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*rows[0], *where])
        writer.writeheader()
        writer.writerows({**row, **where} for row in rows)
