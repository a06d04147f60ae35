"""The training state: its entries, the last two files, damage."""

import os
import random
from pathlib import Path

import pytest
import torch

from wildcat.errors import WildcatError
from wildcat.training.state import TrainState, load_state, save_state


def state(number: float) -> dict:
    return {"model": {"w": torch.full((300,), number)}, "progress": {"epoch": int(number), "history": [{"loss": 0.5}]}}


def same(loaded: dict | None, number: float) -> bool:
    expected = state(number)
    return (
        loaded is not None
        and loaded["progress"] == expected["progress"]
        and torch.equal(loaded["model"]["w"], expected["model"]["w"])
    )


def test_entries_of_a_state_and_back() -> None:
    state = TrainState(first_loss=0.7)
    for loss in (0.75, 0.5):
        state.finish_step(loss, seconds=2.0, images=4)
    # The entries of state.pt since the first version.
    expected = {"epoch": 0, "step": 2, "loss": 1.25, "seconds": 4.0, "images": 8, "history": [], "first_loss": 0.7}
    assert state.to_dict() == expected
    assert TrainState.from_dict(expected) == state
    state.finish_epoch({"epoch": 1, "train_loss": 0.625})
    assert state == TrainState(epoch=1, history=[{"epoch": 1, "train_loss": 0.625}], first_loss=0.7)


def test_entries_that_a_state_lacks_or_that_none_has() -> None:
    old = {"epoch": 3, "step": 0, "loss": 0.0, "seconds": 0.0, "images": 0, "history": []}
    assert TrainState.from_dict(old) == TrainState(epoch=3)
    with pytest.raises(WildcatError, match="unknown entries: more"):
        TrainState.from_dict({**old, "more": 1})


def test_the_last_two_files_are_kept(tmp_path: Path) -> None:
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
def test_a_damaged_newest_file_is_named_and_skipped(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    save_state(tmp_path, state(1))
    save_state(tmp_path, state(2))
    (tmp_path / "state.pt").write_bytes(damage)
    assert same(load_state(tmp_path), 1)
    assert "state.pt is damaged" in caplog.text
    assert "resuming from the state before it, state.previous.pt" in caplog.text
    (tmp_path / "state.previous.pt").write_bytes(damage)
    with pytest.raises(WildcatError, match=r"state\.pt is damaged: .*; state\.previous\.pt too; delete it to start"):
        load_state(tmp_path)
    (tmp_path / "state.previous.pt").unlink()
    with pytest.raises(WildcatError, match=r"state\.pt is damaged: .*; delete it to start the run again"):
        load_state(tmp_path)


@pytest.mark.slow
def test_flipped_bits_and_cuts_are_noticed(tmp_path: Path) -> None:
    """Wherever a bit flips, the state is rejected or unchanged: bytes without a checksum do not matter."""
    save_state(tmp_path, state(1))
    save_state(tmp_path, state(2))
    file = tmp_path / "state.pt"
    whole = file.read_bytes()
    rng = random.Random(1)
    skipped = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        loaded = load_state(tmp_path)
        skipped += same(loaded, 1)
        assert same(loaded, 1) or same(loaded, 2)
    assert skipped > 200
    for length in range(0, len(whole), 97):
        file.write_bytes(whole[:length])
        assert same(load_state(tmp_path), 1)


class Attack:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_state_is_not_executed(tmp_path: Path) -> None:
    torch.save(state(1) | {"more": Attack(tmp_path / "executed")}, tmp_path / "state.pt")
    with pytest.raises(WildcatError, match=r"state\.pt is damaged: it holds more than tensors and plain values"):
        load_state(tmp_path)
    assert not (tmp_path / "executed").exists()


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
