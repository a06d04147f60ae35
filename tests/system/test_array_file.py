"""Arrays in files that only grow: after a kill at any byte, what is read is what was written."""

from pathlib import Path

import numpy as np
import pytest

from wildcat.errors import WildcatError
from wildcat.system.array_file import ArrayFile

KEYS = [bytes([number]) * 16 for number in range(5)]
ARRAYS = np.arange(5 * 6, dtype=np.float32).reshape(5, 2, 3)


def opened(folder: Path) -> ArrayFile:
    return ArrayFile(folder / "a", (2, 3), np.dtype(np.float32))


def written(folder: Path, count: int = 5) -> ArrayFile:
    file = opened(folder)
    with file.writer() as append:
        append(KEYS[:count], ARRAYS[:count])
    return file


def test_arrays_are_found_by_their_keys(tmp_path: Path) -> None:
    written(tmp_path, 3)
    file = opened(tmp_path)
    assert file.rows([KEYS[2], KEYS[4], KEYS[0]]).tolist() == [2, -1, 0]
    np.testing.assert_array_equal(file.read([2, 0]), ARRAYS[[2, 0]])
    with file.writer() as append:
        append([KEYS[0]], -ARRAYS[:1])  # the later one counts
    np.testing.assert_array_equal(file.read(file.rows([KEYS[0]])), -ARRAYS[:1])


def test_files_that_end_anywhere_hold_whole_arrays(tmp_path: Path) -> None:
    """Whatever length of each file reached the disk."""
    written(tmp_path)
    index, values = (tmp_path / f"a.{suffix}" for suffix in ("index", "values"))
    whole_index, whole_values = index.read_bytes(), values.read_bytes()
    for index_length in range(0, len(whole_index) + 1, 7):
        for values_length in range(0, len(whole_values) + 1, 13):
            index.write_bytes(whole_index[:index_length])
            values.write_bytes(whole_values[:values_length])
            file = opened(tmp_path)
            known = min(index_length // 24, values_length // 24)
            assert file.rows(KEYS).tolist() == [*range(known), *[-1] * (5 - known)]
            np.testing.assert_array_equal(file.read(range(known)), ARRAYS[:known])
            with file.writer() as append:  # what a killed process left does not shift what comes after it
                append(KEYS[known:], ARRAYS[known:])
            again = opened(tmp_path)
            rows = again.rows(KEYS)
            np.testing.assert_array_equal(again.read(rows), ARRAYS)
            assert again.intact(rows).all()


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    written(tmp_path)
    values, index = (tmp_path / f"a.{suffix}" for suffix in ("values", "index"))
    content = bytearray(values.read_bytes())
    content[2 * 24 + 5] ^= 1
    values.write_bytes(content)
    assert opened(tmp_path).intact(range(5)).tolist() == [True, True, False, True, True]
    content = bytearray(index.read_bytes())
    content[1 * 24 + 20] ^= 1
    index.write_bytes(content)
    assert opened(tmp_path).rows(KEYS).tolist() == [0, -1, 2, 3, 4]


def test_what_was_written_before_an_error_is_kept(tmp_path: Path) -> None:
    file = opened(tmp_path)
    with pytest.raises(KeyboardInterrupt), file.writer() as append:
        append(KEYS[:2], ARRAYS[:2])
        raise KeyboardInterrupt
    assert opened(tmp_path).rows(KEYS).tolist() == [0, 1, -1, -1, -1]


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, 2)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    file = opened(tmp_path)
    with pytest.raises(WildcatError, match=r"a\.values cannot be written: No space left on device"), file.writer() as a:
        a(KEYS[2:], ARRAYS[2:])
    monkeypatch.undo()
    assert opened(tmp_path).rows(KEYS[:2]).tolist() == [0, 1]
