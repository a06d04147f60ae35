"""The lock of a folder: held until its process ends, never through a link, and noticed when the folder moves."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wildcat.errors import WildcatError
from wildcat.system.lock import FolderLock

fcntl = pytest.importorskip("fcntl", reason="this system has no POSIX locks")

HOLD = """
import sys, time
from pathlib import Path
from wildcat.system.lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_folder_is_locked_until_its_process_ends(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with (
            pytest.raises(WildcatError, match=rf"run is in use: process {process.pid} on .* writes in it"),
            FolderLock(folder),
        ):
            pass
        process.kill()
    assert (folder / ".lock").exists()  # left by the killed process, which no longer holds it
    with FolderLock(folder):
        assert (folder / ".lock").exists()
    assert not (folder / ".lock").exists()


def test_a_folder_that_stays_empty_is_removed(tmp_path: Path) -> None:
    with FolderLock(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()
    with FolderLock(tmp_path / "run"):
        (tmp_path / "run" / "config.json").touch()
    assert (tmp_path / "run" / "config.json").exists()


def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with FolderLock(tmp_path):
        pass
    assert "cannot be locked (No locks available)" in caplog.text


def test_a_lock_file_that_its_holder_removed_meanwhile_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking, the process that held the lock before ends and removes the file."""
    lockf, calls = fcntl.lockf, []

    def slow(stream: object, flags: int) -> None:
        if not calls:
            (tmp_path / ".lock").unlink()
        calls.append(flags)
        lockf(stream, flags)

    monkeypatch.setattr(fcntl, "lockf", slow)
    with FolderLock(tmp_path):
        assert len(calls) == 2 and str(os.getpid()) in (tmp_path / ".lock").read_text()


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe"])
def test_a_lock_that_is_no_plain_file_is_rejected(tmp_path: Path, kind: str) -> None:
    """A link could lead to any file of the user's, in a folder that somebody else made."""
    file, victim = tmp_path / "run" / ".lock", tmp_path / "notes.txt"
    file.parent.mkdir()
    if kind == "link":
        victim.write_text("a year of work")
    if "link" in kind:
        file.symlink_to(victim)
    elif kind == "folder":
        file.mkdir()
    else:
        os.mkfifo(file)
    with pytest.raises(WildcatError, match=r"run/\.lock is not a plain file .*: remove it$"), FolderLock(file.parent):
        pass
    assert victim.exists() == (kind == "link") and (kind != "link" or victim.read_text() == "a year of work")


def test_a_hard_link_is_replaced(tmp_path: Path) -> None:
    file, victim = tmp_path / "run" / ".lock", tmp_path / "notes.txt"
    file.parent.mkdir()
    victim.write_text("a year of work")
    file.hardlink_to(victim)
    with FolderLock(file.parent):
        assert "process" in file.read_text()
    assert victim.read_text() == "a year of work" and not file.exists()


def rename(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


def replace(folder: Path) -> None:
    rename(folder)
    folder.mkdir()


@pytest.mark.parametrize("change", [rename, replace, shutil.rmtree])
def test_a_folder_that_moves_while_it_is_locked(tmp_path: Path, change: Callable[[Path], object]) -> None:
    folder = tmp_path / "run"
    with FolderLock(folder) as lock:
        lock.check()
        change(folder)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(WildcatError, match="run was renamed, removed or replaced while it was in use"):
            lock.check()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_is_reached_by_another_link_is_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with FolderLock(folder) as lock:
        folder.rename(tmp_path / "disk")
        folder.symlink_to(tmp_path / "disk")
        lock.check()


def test_a_disk_whose_numbers_of_files_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some network disks: the lock file still names this process."""
    answers = [False]
    samestat = os.path.samestat
    with FolderLock(tmp_path / "run") as lock:
        monkeypatch.setattr(lock, "_same_folder", lambda: False)
        monkeypatch.setattr(os.path, "samestat", lambda *stats: answers.pop() if answers else samestat(*stats))
        lock.check()
        assert not answers and str(os.getpid()) in (tmp_path / "run" / ".lock").read_text()
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_lock_file_that_was_removed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FolderLock(tmp_path) as lock:
        (tmp_path / ".lock").unlink()  # by a script that removes hidden files
        lock.check()
        assert (tmp_path / ".lock").exists()
        (tmp_path / ".lock").unlink()
        (tmp_path / ".lock").write_text("process 4711 on another")  # another process came first

        def held(*_: object) -> None:
            raise BlockingIOError

        monkeypatch.setattr(fcntl, "lockf", held)
        with pytest.raises(WildcatError, match="is in use: process 4711 on another writes in it"):
            lock.check()
    assert (tmp_path / ".lock").exists()  # it is the other process's
