"""Atomic writes: full disks, killed writers, and their leftovers."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data import trees
from tests.tiny_runs import tiny
from wildcat.cli import main
from wildcat.errors import WildcatError
from wildcat.system.files import remove_leftovers, unfinished, write_atomically, write_json
from wildcat.training.launch import train


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "state.pt"
    write_atomically(file, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WildcatError, match=r"state\.pt cannot be written: No space left"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("where", ["nowhere/results.json", "a_file/results.json"])
def test_a_place_that_cannot_be_written(tmp_path: Path, where: str) -> None:
    (tmp_path / "a_file").touch()
    with pytest.raises(WildcatError, match=r"results\.json cannot be written"):
        write_json(tmp_path / where, {})


@pytest.mark.slow
def test_a_writer_killed_at_any_time_leaves_a_whole_file(tmp_path: Path) -> None:
    """A process that writes 4 MB of zeros or ones, again and again, is killed: the file is all zeros or all ones."""
    code = (
        "import sys; from pathlib import Path; from wildcat.system.files import write_atomically\n"
        "while True:\n"
        "    for byte in (b'0', b'1'): write_atomically(Path(sys.argv[1]), byte * 4_000_000); print(flush=True)\n"
    )
    file = tmp_path / "file"
    with subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        for _ in range(30):
            content = file.read_bytes()
            assert content.count(content[:1]) == 4_000_000
        process.send_signal(signal.SIGKILL)
    content = file.read_bytes()
    assert content.count(content[:1]) == 4_000_000


@pytest.mark.slow
def test_leftovers_of_processes_that_have_ended(tmp_path: Path) -> None:
    mine = unfinished(tmp_path / "a.jpg")
    assert mine.parent == tmp_path and mine.name.startswith(".a.jpg.") and mine.suffix == ".tmp"
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    gone = mine.with_name(mine.name.replace(f".{os.getpid()}-", f".{ended.pid}-"))
    elsewhere = gone.with_name(gone.name.replace(gone.name[-12:-4], "0123abcd"))
    others = [tmp_path / name for name in (".a.tmp", "a.jpg", ".x.999999999999-0123abcd.tmp")]
    for file in (mine, gone, elsewhere, *others):
        file.touch()
    assert len(set(tmp_path.iterdir())) == 6
    remove_leftovers(tmp_path.iterdir())
    assert set(tmp_path.iterdir()) == {mine, elsewhere, *others}


@pytest.mark.slow
def test_the_next_prediction_removes_leftovers_of_a_killed_one(tmp_path: Path) -> None:
    """The process is killed in the moment before an image's file gets its name."""
    run = train(tiny(epochs=1), tmp_path / "run")
    trees.image(tmp_path / "images" / "deep" / "cat.png")
    out = tmp_path / "out"
    command = ["predict", str(run), str(tmp_path / "images"), "--out", str(out)]
    code = (
        "import os, signal, sys; from pathlib import Path; from wildcat.cli import main\n"
        "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "main(sys.argv[1:])"
    )
    killed = subprocess.run([sys.executable, "-c", code, *command, "--formats", "json,overlay"], check=False)
    assert killed.returncode == -signal.SIGKILL
    leftovers = {file.relative_to(out) for file in out.rglob("*") if file.is_file()}
    assert {str(file.parent) for file in leftovers} == {".", "overlay/deep"} and all(
        f.suffix == ".tmp" for f in leftovers
    )

    under_way = unfinished(out / "overlay" / "deep" / "dog.jpg")  # of a process that runs: this one
    under_way.touch()
    own = out / ".notes.tmp"
    own.touch()
    assert main([*command, "--formats", "csv"]) == 0  # also where other formats are written now
    assert {file for file in out.rglob("*") if file.is_file()} == {out / "scores.csv", under_way, own}
