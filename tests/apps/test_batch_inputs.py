"""Inputs of a batch: every kind, split into parts."""

import io
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests import unusual
from wildcat.apps.batch.inputs import InputPart, split_inputs
from wildcat.errors import WildcatError


def png(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(unusual.photo(seed=seed)).save(buffer, "PNG")
    return buffer.getvalue()


def folder_of(where: Path, count: int) -> Path:
    where.mkdir()
    for number in range(count):
        (where / f"{number}.png").write_bytes(png(number))
    return where


def check(parts: list[InputPart], names: list[str]) -> None:
    """Check that the parts have these images in this order, also after conversion to JSON and back."""
    images = [entry for part in parts for entry in InputPart.from_json(part.to_json()).images()]
    assert [name for name, _ in images] == names
    for seed, (_, load) in enumerate(images):
        assert np.array_equal(np.asarray(load(None)), unusual.photo(seed=seed))


def test_folders_images_and_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "a", 5)
    names = [str(folder / f"{number}.png") for number in range(5)]
    parts = split_inputs([str(folder)], 2)
    assert [len(part.names) for part in parts] == [2, 2, 1]
    check(parts, names)
    monkeypatch.chdir(tmp_path)
    check(split_inputs(["a/0.png", "a"], 10), names)  # duplicates are removed, also with relative paths
    (tmp_path / "list.txt").write_text("".join(f"a/{number}.png\n\n" for number in range(4)) + names[4])
    check(split_inputs(["list.txt"], 3), names)


def test_parts_do_not_depend_on_what_is_finished(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a", 7)
    before = split_inputs([str(folder)], 3)
    finished = set(before[1].names)
    after = split_inputs([str(folder)], 3, finished)
    assert [part.id for part in after] == [before[0].id, before[2].id]
    (folder / "00.png").write_bytes(png())
    left = [name for part in split_inputs([str(folder)], 3, finished) for name in part.names]
    assert sorted(left) == sorted({str(file) for file in folder.iterdir()} - finished)


def test_cut_jpegs_are_read_on_request(tmp_path: Path) -> None:
    """As files, in shards and in Parquet files."""
    Image.fromarray(unusual.photo()).save(tmp_path / "a.jpg")
    cut = (tmp_path / "a.jpg").read_bytes()[:-100]
    (tmp_path / "a.jpg").write_bytes(cut)
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        shard.add(tmp_path / "a.jpg", "a.jpg")
    pq.write_table(pa.table({"bytes": [cut]}), tmp_path / "table.parquet")
    for name in ("a.jpg", "shard.tar", "table.parquet"):
        (part,) = split_inputs([str(tmp_path / name)], 10)
        ((_, load),) = part.images()
        with pytest.raises(WildcatError, match="truncated"):
            load(None)
        ((_, load),) = part.images(partial=True)
        assert load(None).size == (60, 40)


def test_object_stores(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    for number in range(3):
        store.pipe(f"/bucket/{number}.png", png(number))
    store.pipe("/bucket/readme.md", b"")
    store.pipe("/bucket/list.txt", b"0.png\nmemory://bucket/1.png\n2.png\n")
    names = [f"memory://bucket/{number}.png" for number in range(3)]
    check(split_inputs(["memory://bucket/list.txt"], 10), names)
    parts = split_inputs(["memory://bucket"], 10)
    assert [name.rpartition("/")[2] for name in parts[0].names] == ["0.png", "1.png", "2.png"]
    check(parts, list(parts[0].names))
    ((_, load),) = InputPart("images", ("memory://bucket/none.png",)).images()
    with pytest.raises(WildcatError, match=r"none\.png cannot be read"):
        load(None)
    store.pipe("/bucket/bad.png", b"x")
    ((_, load),) = InputPart("images", ("memory://bucket/bad.png",)).images()
    with pytest.raises(WildcatError, match=r"bad\.png.*not an image"):
        load(None)


def test_shards(tmp_path: Path) -> None:
    file = tmp_path / "shard.tar"
    with tarfile.open(file, "w") as shard:
        for name, content in (("0.png", png(0)), ("0.json", b"{}"), ("../1.png", png(1)), ("d/2.png", png(2))):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    check(split_inputs([str(file)], 10), [f"{file}#{name}" for name in ("0.png", "../1.png", "d/2.png")])
    assert list(tmp_path.iterdir()) == [file]  # nothing is extracted to disk
    file.write_bytes(file.read_bytes()[:-12_000])
    with pytest.raises(WildcatError, match=r"shard\.tar cannot be read"):
        list(split_inputs([str(file)], 10)[0].images())


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'wildcat-wsl[ray]'")
    pq = pytest.importorskip("pyarrow.parquet")
    images = [png(number) for number in range(5)]
    held, nested, paths = (str(tmp_path / f"{name}.parquet") for name in ("held", "nested", "paths"))
    pq.write_table(pa.table({"id": list(range(5)), "image": images}), held, row_group_size=2)
    parts = split_inputs([held], 10)
    assert [part.first_row for part in parts] == [0, 2, 4]
    check(parts, [f"{held}#{number}" for number in range(5)])
    pq.write_table(pa.table({"image": [{"bytes": image, "path": ""} for image in images]}), nested)
    check(split_inputs([nested], 10), [f"{nested}#{number}" for number in range(5)])
    folder = folder_of(tmp_path / "a", 3)
    pq.write_table(pa.table({"path": ["a/0.png", str(folder / "1.png"), "a/2.png"]}), paths)
    check(split_inputs([paths], 10), [str(folder / f"{number}.png") for number in range(3)])
    pq.write_table(pa.table({"x": [1]}), paths)
    with pytest.raises(WildcatError, match=r"paths\.parquet has no column of images.*it has x"):
        split_inputs([paths], 10)
    (tmp_path / "paths.parquet").write_bytes(b"x")
    with pytest.raises(WildcatError, match=r"paths\.parquet cannot be read"):
        split_inputs([paths], 10)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("absent", "absent does not exist"),
        ("empty", "empty holds no images"),
        ("none.txt", "none.txt is empty"),
        ("gone.txt", "gone.txt cannot be read"),
        ("gone.tar", "gone.tar cannot be read"),
        ("nonsense://x/y", "nonsense:// cannot be opened"),
    ],
)
def test_errors(given: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.txt").write_text("\n")
    with pytest.raises(WildcatError, match=message):
        for part in split_inputs([given], 10):
            list(part.images())
    with pytest.raises(WildcatError, match="at least 1 image"):
        split_inputs([given], 0)
