"""The training state: two kept, damage noticed, the folder locked."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wildcat.errors import WildcatError
from wildcat.system.lock import locked
from wildcat.training.state import load_state, save_state


def state(number: float) -> dict:
    return {"model": {"w": torch.full((300,), number)}, "progress": {"epoch": int(number), "history": [{"loss": 0.5}]}}


def same(found: dict | None, number: float) -> bool:
    expected = state(number)
    return (
        found is not None
        and found["progress"] == expected["progress"]
        and torch.equal(found["model"]["w"], expected["model"]["w"])
    )


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    for number in range(4):
        save_state(tmp_path, state(number))
        assert same(load_state(tmp_path), number)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["state.previous.pt", "state.pt"]
    (tmp_path / "state.pt").unlink()  # as a crash between two renamings leaves it
    assert same(load_state(tmp_path), 2)
    save_state(tmp_path, state(5))
    assert same(load_state(tmp_path), 5)


@pytest.mark.parametrize("damage", [b"", b"nothing", b"PK\x03\x04"])
def test_a_damaged_newest_one_is_named_and_passed_over(
    tmp_path: Path, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    save_state(tmp_path, state(1))
    save_state(tmp_path, state(2))
    (tmp_path / "state.pt").write_bytes(damage)
    assert same(load_state(tmp_path), 1)
    message = capsys.readouterr().err
    assert "state.pt is damaged" in message and "going on from the state before it, state.previous.pt" in message
    (tmp_path / "state.previous.pt").write_bytes(damage)
    with pytest.raises(WildcatError, match=r"state\.pt is damaged: .*; state\.previous\.pt too; delete it to start"):
        load_state(tmp_path)
    (tmp_path / "state.previous.pt").unlink()
    with pytest.raises(WildcatError, match=r"state\.pt is damaged: .*; delete it to start the run again"):
        load_state(tmp_path)


@pytest.mark.slow
def test_flipped_bits_and_cuts_are_noticed(tmp_path: Path) -> None:
    """Wherever a bit flips, the state is rejected or is the same: what no checksum covers says nothing."""
    save_state(tmp_path, state(1))
    save_state(tmp_path, state(2))
    file = tmp_path / "state.pt"
    whole = file.read_bytes()
    rng = random.Random(1)
    passed_over = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        found = load_state(tmp_path)
        passed_over += same(found, 1)
        assert same(found, 1) or same(found, 2)
    assert passed_over > 200
    for length in range(0, len(whole), 97):
        file.write_bytes(whole[:length])
        assert same(load_state(tmp_path), 1)


def test_a_full_disk_leaves_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(tmp_path, state(1))
    save_state(tmp_path, state(2))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WildcatError, match=r"state\.pt cannot be written: No space left on device"):
        save_state(tmp_path, state(3))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


HOLD = """
import sys, time
from pathlib import Path
from wildcat.state import locked
with locked(Path(sys.argv[1])):
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
            locked(folder),
        ):
            pass
        process.kill()
    assert (folder / ".lock").exists()  # it was killed; what it left locks nothing
    with locked(folder):
        assert (folder / ".lock").exists()
    assert not (folder / ".lock").exists()


def test_a_folder_made_for_nothing_is_removed(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()
    with locked(tmp_path / "run"):
        (tmp_path / "run" / "config.json").touch()
    assert (tmp_path / "run" / "config.json").exists()


def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with locked(tmp_path):
        pass
    assert "cannot be locked (No locks available)" in capsys.readouterr().err
