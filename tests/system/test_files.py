"""Atomic writes: full disks, killed writers, and their leftovers."""

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data import trees
from tests.processes import ForkedProcess
from wildcat.cli import main
from wildcat.errors import WildcatError
from wildcat.formats.incremental import IncrementalFile
from wildcat.system.files import (
    check_output,
    move_into_place,
    remove_leftovers,
    unfinished,
    write_atomically,
    write_json,
)
from wildcat.system.output_folder import LIST


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "state.pt"
    write_atomically(file, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WildcatError, match=r"state\.pt cannot be written: No space left"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


def append(file: Path, text: bytes) -> None:
    growing = IncrementalFile(file)
    growing.stream.write(text.decode())
    growing.finish()


@pytest.mark.parametrize("write", [write_atomically, append])
@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "file"])
def test_what_has_the_temporary_name_is_never_written_into(
    tmp_path: Path, write: Callable[[Path, bytes], None], kind: str
) -> None:
    """The name can be computed, so another user of a shared folder could make a link to any file of this user's."""
    file, victim = tmp_path / "run" / "config.json", tmp_path / "notes.txt"
    file.parent.mkdir()
    if kind != "dangling link":
        victim.write_text("a year of work")
    if "hard" in kind:
        unfinished(file).hardlink_to(victim)
    elif "link" in kind:
        unfinished(file).symlink_to(victim)
    else:
        unfinished(file).write_text("half")  # of a process that was killed and had the same number
    write(file, b"new")
    assert file.read_bytes() == b"new" and not file.is_symlink()
    assert list(file.parent.iterdir()) == [file]
    assert victim.exists() == (kind != "dangling link") and "new" not in "".join(
        path.read_text() for path in [victim] if path.exists()
    )


@pytest.mark.skipif(os.name != "posix", reason="only POSIX flushes folders")
def test_name_and_content_are_flushed_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut the file has its content and its name: first the file is flushed, then, renamed, its folder."""
    flushed = []

    def fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        flushed.append((is_folder, (tmp_path / "state.pt").exists()))
        assert not is_folder or os.path.samestat(os.fstat(descriptor), tmp_path.stat())

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(tmp_path / "state.pt", b"new")
    assert flushed == [(False, False), (True, True)]


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


def _predict_and_die(*words: str) -> int:
    replace = Path.replace
    Path.replace = lambda file, to: (  # type: ignore[method-assign]
        os.kill(os.getpid(), signal.SIGKILL) if file.name.startswith(".cat") else replace(file, to)
    )
    return main(list(words))


@pytest.mark.slow
def test_the_next_prediction_removes_leftovers_of_a_killed_one(run_and_image: Path, tmp_path: Path) -> None:
    """The process is killed in the moment before an image's file gets its name."""
    run = run_and_image / "run"
    trees.image(tmp_path / "images" / "deep" / "cat.png")
    out = tmp_path / "out"
    command = ["predict", str(run), str(tmp_path / "images"), "--out", str(out)]
    killed = ForkedProcess(_predict_and_die, [*command, "--formats", "json,overlay"])
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    leftovers = {file.relative_to(out) for file in out.rglob("*") if file.is_file()} - {Path(LIST)}
    assert {str(file.parent) for file in leftovers} == {".", "overlay/deep"} and all(
        f.suffix == ".tmp" for f in leftovers
    )

    under_way = unfinished(out / "overlay" / "deep" / "dog.jpg")  # of a process that runs: this one
    under_way.touch()
    own = out / ".notes.tmp"
    own.touch()
    assert main([*command, "--formats", "csv"]) == 0  # also where other formats are written now
    assert {file for file in out.rglob("*") if file.is_file()} == {
        out / LIST,
        *(out / "scores.csv", under_way, own),
    }


# ---- Devices, pipes and links ---------------------------------------------------------------------------------------


def written_incrementally(file: Path, text: str) -> None:
    lines = IncrementalFile(file)
    try:
        lines.stream.write(text)
        lines.finish()
    finally:
        lines.discard()


def written_elsewhere(file: Path, text: str) -> None:
    finished = file.parent / f"{threading.get_ident()}.part"
    finished.write_text(text)
    try:
        move_into_place(finished, file)
    finally:
        finished.unlink(missing_ok=True)


WAYS: dict[str, Callable[[Path, str], None]] = {
    "at once": lambda file, text: write_atomically(file, text.encode()),
    "bit by bit": written_incrementally,
    "made beside it": written_elsewhere,
}


@pytest.fixture(params=WAYS)
def write(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    return WAYS[request.param]


@pytest.mark.parametrize("link", [False, True], ids=["itself", "a link to it"])
def test_a_pipe_is_written_into_and_stays(tmp_path: Path, write: Callable[[Path, str], None], link: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    file = tmp_path / "named.json" if link else pipe
    if link:
        file.symlink_to("pipe")
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    write(file, "result\n")
    reader.join(timeout=10)
    assert received == ["result\n"] and pipe.is_fifo() and file.is_symlink() == link
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", file.name}


def test_the_reader_of_a_pipe_has_ended(tmp_path: Path, write: Callable[[Path, str], None]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: os.close(os.open(pipe, os.O_RDONLY)))
    reader.start()
    with pytest.raises(BrokenPipeError):
        write(pipe, "result\n" * 100_000)
    reader.join(timeout=10)
    assert pipe.is_fifo()


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}", "link"])
def test_an_open_file_is_continued(tmp_path: Path, write: Callable[[Path, str], None], name: str) -> None:
    """As of a process substitution, or of /dev/stdout in `> file`: what was written before stays."""
    if not Path(name.format(1)).parent.is_dir():
        pytest.skip("not on this system")
    with (tmp_path / "out.txt").open("w+") as stream:
        stream.write("before\n")
        stream.flush()
        file = Path(name.format(stream.fileno()))
        if name == "link":
            file = tmp_path / "link"
            file.symlink_to(f"/dev/fd/{stream.fileno()}")
        if name != "link" and write is written_elsewhere:  # which needs a folder to write in
            file = linked(tmp_path / "other", file)
        write(file, "after\n")
    assert (tmp_path / "out.txt").read_text() == "before\nafter\n"


def linked(link: Path, target: Path) -> Path:
    link.symlink_to(target)
    return link


def device(file: Path, minor: int) -> Path:
    """A device of our own, so that no mistake can replace that of the machine: 3 is null, 7 is full."""
    try:
        os.mknod(file, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        file.open("wb").close()
    except OSError:
        pytest.skip("devices cannot be made here")
    return file


def test_a_device_stays(tmp_path: Path, write: Callable[[Path, str], None]) -> None:
    null = device(tmp_path / "null", 3)
    write(null, "result\n")
    assert null.is_char_device() and [path.name for path in tmp_path.iterdir()] == ["null"]


def test_a_full_device_is_an_error_that_names_it(tmp_path: Path, write: Callable[[Path, str], None]) -> None:
    full = device(tmp_path / "full", 7)
    with pytest.raises((WildcatError, OSError)) as raised:
        write(full, "result\n")
    assert "full" in str(raised.value) and "No space left" in str(raised.value)
    assert full.is_char_device()


def test_a_place_is_checked_before_the_work(tmp_path: Path) -> None:
    check_output(tmp_path / "new.html")
    check_output(Path(os.devnull))
    for file, reason in ((tmp_path, "it is a directory"), (tmp_path / "no" / "new.html", "there is no directory")):
        with pytest.raises(WildcatError, match=f"cannot be written: {reason}"):
            check_output(file)
