"""Parts of a batch from the inputs to the tables, without Ray: what is not read is reported, and is read later."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.tiny_runs import ColourModel
from wildcat.apps.batch.inputs import InputPart, is_source, split_inputs
from wildcat.apps.batch.results import ERRORS, PREDICTIONS, count_rows, read_results
from wildcat.apps.batch.stores import normal_name
from wildcat.apps.batch.worker import ATTEMPTS, BatchWorker, WorkerSettings
from wildcat.errors import WildcatError
from wildcat.model import WildcatOutput
from wildcat.prediction.predictor import Part, Predictor
from wildcat.prediction.result import Prediction
from wildcat.runs.settings import InferenceSettings

pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'wildcat-wsl[ray]'")
pq = pytest.importorskip("pyarrow.parquet")

SETTINGS = InferenceSettings(("red", "green", "blue"), True, (32,), (32,))


def png(level: int = 100) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (level, 50, 50)).save(buffer, "PNG")
    return buffer.getvalue()


def images_in(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(png())
    return folder


def tar(file: Path, *names: str, mode: Any = "w", content: bytes | None = None) -> Path:
    with tarfile.open(file, mode) as shard:
        for name in names:
            info = tarfile.TarInfo(name)
            data = png() if content is None else content
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))
    return file


class Batch:
    """A batch in one process: the same command again is another call."""

    def __init__(self, out: Path, network: Any = None) -> None:
        self.out = out
        for name in (PREDICTIONS, ERRORS, ATTEMPTS):
            (out / name).mkdir(parents=True, exist_ok=True)
        self.worker = BatchWorker(WorkerSettings("", str(out), 0.5, 4, "fp32", "torch"))
        self.worker.__dict__["_predictor"] = Predictor(Part(network or ColourModel(), SETTINGS))

    def __call__(self, *inputs: Path | str, size: int = 100) -> tuple[int, list[str], dict[str, str]]:
        """The number of images that were processed now; the names of all predicted images; all errors by name."""
        given = [str(each) for each in inputs]
        results = read_results(self.out)
        parts = split_inputs(given, size, results.finished_images())
        parts = results.unfinished_parts(parts, filter(is_source, map(normal_name, given)))
        done = 0
        for part in parts:
            outcome = self.worker({"part": [part.to_json()]})
            assert outcome["error"] == [""]
            done += outcome["images"][0]
        predicted = [row["file"] for row in rows(self.out / PREDICTIONS)]
        errors = {row["file"]: row["error"] for row in rows(self.out / ERRORS)}
        assert count_rows(self.out)[:2] == (len(predicted), len(errors))
        return done, sorted(predicted), errors


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.ParquetFile(file).read().to_pylist()]


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch(tmp_path / "out")


# ---- what is not read is reported, and is read later


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_shard_that_was_cut_is_read_again_when_it_is_whole(batch: Batch, tmp_path: Path, mode: str) -> None:
    names = [f"{number}.{kind}" for number in range(8) for kind in ("png", "json")]
    shard = tar(tmp_path / "a.tar", *names, mode=mode)
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    _, predicted, errors = batch(shard)
    assert len(predicted) < 8 and list(errors) == [str(shard)] and "cannot be read" in errors[str(shard)]
    os.utime(shard, (1, 1))  # also where its date says nothing
    assert batch(shard)[2] == errors
    shard.write_bytes(whole)
    assert batch(shard) == (8, [f"{shard}#{number}.png" for number in range(8)], {})
    assert batch(shard)[0] == 0


@pytest.mark.parametrize("rows_per_group", [2, 3])
def test_a_file_that_changed_under_its_name_is_read_again(batch: Batch, tmp_path: Path, rows_per_group: int) -> None:
    shard = tar(tmp_path / "a.tar", *[f"{number}.png" for number in range(3)])
    table = tmp_path / "a.parquet"
    folder = images_in(tmp_path / "images", "a.png", "b.png", "c.png")
    (folder / "b.png").write_bytes(b"broken")
    pq.write_table(pa.table({"image": [png()] * 6}), table, row_group_size=2)
    inputs = (shard, table, folder)
    assert batch(*inputs)[0] == 12 and batch(*inputs)[0] == 0
    (folder / "a.png").write_bytes(png(200))
    (folder / "b.png").write_bytes(png(200))
    tar(shard, *[f"{number}.png" for number in range(5)])
    pq.write_table(pa.table({"image": [png(200)] * 4}), table, row_group_size=rows_per_group)
    done, predicted, errors = batch(*inputs)
    assert done == 2 + 5 + 4 and errors == {}
    assert predicted == sorted(
        [str(folder / name) for name in ("a.png", "b.png", "c.png")]
        + [f"{shard}#{number}.png" for number in range(5)]
        + [f"{table}#{number}" for number in range(4)]
    )
    assert batch(*inputs)[0] == 0
    images = {row["file"]: row["scores"]["red"] for row in rows(batch.out / PREDICTIONS)}
    assert images[str(folder / "a.png")] > images[str(folder / "c.png")]


def test_a_file_that_changes_while_it_is_read_is_not_finished(batch: Batch, tmp_path: Path) -> None:
    (part,) = split_inputs([str(tar(tmp_path / "a.tar", "0.png"))], 10)
    tar(tmp_path / "a.tar", "0.png", "1.png")
    assert batch.worker({"part": [part.to_json()]}) == {"images": [3], "error": [""]}
    ((_, message),) = [tuple(row.values()) for row in rows(batch.out / ERRORS)]
    assert message.endswith("a.tar changed while it was read")
    assert batch(tmp_path / "a.tar")[1:] == ([f"{tmp_path}/a.tar#{number}.png" for number in (0, 1)], {})


# ---- one image, one name


def test_an_image_is_predicted_once_however_it_is_named(batch: Batch, tmp_path: Path) -> None:
    folder = images_in(tmp_path / "n", "a.png", "b c.png")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link").symlink_to(folder)
    names = ["a.png", "./a.png", "../n/a.png", f"file://{folder}/a.png", f"{folder}/a.png", f"{folder}//x/../a.png"]
    (folder / "list.txt").write_text("\n".join([*names, f"file://{folder}/b%20c.png", "b c.png"]))
    pq.write_table(pa.table({"path": names}), folder / "paths.parquet")
    inputs = [folder / "list.txt", folder / "paths.parquet", f"file://{folder}", os.path.relpath(folder)]
    expected = [str(folder / "a.png"), str(folder / "b c.png")]
    assert batch(*inputs) == (2, expected, {})
    assert batch(f"{tmp_path}/elsewhere/link/../n/a.png")[1] == expected  # not elsewhere/n/a.png
    assert normal_name(f"{tmp_path}/elsewhere/link/..") == str(tmp_path)
    assert normal_name(f"{tmp_path}/elsewhere/link/a.png") == f"{tmp_path}/elsewhere/link/a.png"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_lists_in_any_encoding_with_a_byte_order_mark(batch: Batch, tmp_path: Path, encoding: str) -> None:
    images_in(tmp_path, "0.png", "é.png")
    text = "0.png\r\né.png\r\n"
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    (tmp_path / "list.txt").write_bytes((mark + text).encode(encoding))
    assert batch(tmp_path / "list.txt") == (2, [str(tmp_path / name) for name in ("0.png", "é.png")], {})


# ---- errors of images end no batch


def test_names_that_are_not_utf_8(batch: Batch, tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.png")
    folder = images_in(tmp_path / "images", "good.png", odd)
    shard = tar(tmp_path / "a.tar", odd, "good.png")
    (tmp_path / "list.txt").write_bytes(b"images/gone\xe9.png\nimages/good.png\nimages/nul\0.png\n")
    table = pa.table({"path": pa.array([b"images/good.png", b"images/caf\xe9.png"])})
    pq.write_table(table.cast(pa.schema([("path", pa.binary())])), tmp_path / "paths.parquet")
    inputs = (folder, shard, tmp_path / "list.txt", tmp_path / "paths.parquet")
    done, predicted, errors = batch(*inputs)
    assert done == 6 and batch(*inputs)[0] == 0
    assert predicted == sorted(f"{place}{name}.png" for place in (f"{folder}/", f"{shard}#") for name in NAMES)
    assert [name.rpartition("/")[2] for name in errors] == ["gone\\udce9.png", "nul\0.png"]


NAMES = ("good", "caf\\udce9")


def test_rows_of_parquet_files(batch: Batch, tmp_path: Path) -> None:
    images_in(tmp_path, "a.png")
    structs = [{"bytes": png(), "path": None}, {"bytes": None, "path": "a.png"}, {"bytes": b"", "path": ""}, None]
    columns = {
        "structs": {"image": structs},
        "beside": {"bytes": [png(), None, None, None], "path": ["gone.png", "a.png", None, " "]},
        "paths": {"path": ["a.png", "./a.png", None, ""]},
        "text": {"image": ["a.png", f"{tmp_path}/a.png", None, None], "label": [0, 1, 2, 3]},
    }
    for name, content in columns.items():
        file = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table(content), file, row_group_size=3)
        done, predicted, errors = Batch(tmp_path / name)(file)
        encoded = name in ("structs", "beside")
        assert predicted == ([f"{file}#0", f"{file}#1"] if encoded else [str(tmp_path / "a.png")])
        assert errors == {f"{file}#{row}": f"{file}: row {row} has no image" for row in (2, 3)}
        assert done == len(predicted) + 2 and Batch(tmp_path / name)(file)[0] == 0
    pq.write_table(pa.table({"path": ["a.png", "a.png"]}), file)
    assert Batch(tmp_path / "text")(file)[1:] == ([str(tmp_path / "a.png")], {})  # the rows are not without images now
    pq.write_table(pa.table({"path": [None, None]}), file)  # a column without a type
    assert [message.rpartition(": ")[2] for message in Batch(tmp_path / "text")(file)[2].values()] == [
        "row 0 has no image",
        "row 1 has no image",
    ]
    pq.write_table(pa.table({"path": pa.array([], pa.string())}), file)
    with pytest.raises(WildcatError, match=r"text\.parquet has no rows"):
        split_inputs([str(file)], 10)
    for content in ({"bytes": [1, 2]}, {"path": [1.5]}, {"image": [[1]]}):
        pq.write_table(pa.table(content), file)
        with pytest.raises(WildcatError, match=r"text\.parquet: column '\w+' holds values of type .*; encoded images"):
            split_inputs([str(file)], 10)


def test_members_of_shards_that_are_not_read(batch: Batch, tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    with tarfile.open(
        tar(file, "./a.png", "._a.png", "d/.hidden/b.png", "__MACOSX/a.png", "../b.png", "d/@eaDir/a.png"), "a"
    ) as shard:
        for kind, name in ((tarfile.SYMTYPE, "link.png"), (tarfile.LNKTYPE, "hard.png"), (tarfile.DIRTYPE, "dir.png")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a.png"
            shard.addfile(info)
    _, predicted, errors = batch(file)
    assert predicted == [f"{file}#../b.png", f"{file}#./a.png"] and count_rows(batch.out)[2] == 4
    assert list(errors) == [f"{file}#link.png", f"{file}#hard.png"]
    assert all("links in shards are not followed" in message for message in errors.values())
    none = tar(tmp_path / "none.tar.gz", "a.json", mode="w:gz")
    assert "it holds no images" in batch(none)[2][str(none)]


class Poisoned(ColourModel):
    """A network that fails for images whose first value is 66: with an exception, or with NaN."""

    def __init__(self, nan: bool, always: bool = False) -> None:
        super().__init__()
        self.nan, self.always = nan, always

    def __call__(self, images: torch.Tensor) -> WildcatOutput:
        poisoned = torch.isclose(images[:, 0].amax((1, 2)), torch.tensor(66 / 255)) | self.always
        if poisoned.any() and not self.nan:
            raise RuntimeError("could not create a primitive")
        output = super().__call__(images)
        return output._replace(scores=output.scores.masked_fill(poisoned[:, None], torch.nan))


@pytest.mark.parametrize("nan", [False, True])
def test_an_image_that_the_network_cannot_process(tmp_path: Path, nan: bool) -> None:
    folder = images_in(tmp_path / "images", *[f"{number}.png" for number in range(6)])
    (folder / "3.png").write_bytes(png(66))
    batch = Batch(tmp_path / "out", Poisoned(nan))
    done, predicted, errors = batch(folder)
    assert (done, len(predicted), list(errors)) == (6, 5, [str(folder / "3.png")])
    assert "3.png: cannot be predicted: " in errors[str(folder / "3.png")]
    broken = Batch(tmp_path / "broken", Poisoned(nan, always=True))
    (part,) = split_inputs([str(folder)], 10)
    assert broken.worker({"part": [part.to_json()]})["error"][0] and not rows(broken.out / PREDICTIONS)


def test_any_exception_of_a_decoder_is_an_error_of_the_image(
    batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = images_in(tmp_path / "images", "0.png", "1.png", "2.png")
    load = InputPart.images

    def images(part: InputPart, *arguments: Any, **options: Any) -> Any:
        for name, each in load(part, *arguments, **options):
            yield name, (lambda _: 1 / 0) if name.endswith("1.png") else each

    monkeypatch.setattr(InputPart, "images", images)
    done, predicted, errors = batch(folder)
    assert done == 3 and len(predicted) == 2
    assert errors[str(folder / "1.png")].endswith("1.png: cannot be read: ZeroDivisionError: division by zero")


def test_a_row_that_the_table_cannot_hold_is_an_error_of_the_image(
    batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = images_in(tmp_path / "images", "0.png", "1.png")
    to_dict = Prediction.to_dict
    monkeypatch.setattr(
        Prediction,
        "to_dict",
        lambda self, threshold: to_dict(self, threshold) | ({"width": 2**40} if self.name.endswith("1.png") else {}),
    )
    done, predicted, errors = batch(folder)
    assert (done, predicted) == (2, [str(folder / "0.png")])
    assert "1.png: cannot be stored: " in errors[str(folder / "1.png")]


# ---- what is read back from the folder


@pytest.mark.parametrize("size", [0, 3, 100, -9])
def test_a_damaged_table_is_computed_again(
    batch: Batch, tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder = images_in(tmp_path / "images", "a.png", "b.png", "c.png", "d.png")
    (folder / "b.png").write_bytes(b"")
    before = batch(folder, size=2)
    for kind in (PREDICTIONS, ERRORS):
        file = min((batch.out / kind).iterdir())
        file.write_bytes(file.read_bytes()[:size])
        assert batch(folder, size=2)[1:] == before[1:]
        assert f"damaged tables are computed again: {kind}/{file.name}" in caplog.text
    other = batch.out / PREDICTIONS / "mine.parquet"
    other.write_bytes(b"")
    with pytest.raises(WildcatError, match=r"mine\.parquet is not a table of a batch"):
        batch(folder)
    pq.write_table(pa.table({"file": [1]}), other)
    with pytest.raises(WildcatError, match=r"mine\.parquet is not a table of a batch"):
        batch(folder)
    other.unlink()
    other.mkdir()
    with pytest.raises(WildcatError, match=r"mine\.parquet cannot be read: Is a directory"):
        batch(folder)


@pytest.mark.parametrize("record", [None, "{", "[]", '{"source": 1}', '{"complete": "yes"}'])
def test_a_damaged_record_is_computed_again(batch: Batch, tmp_path: Path, record: str) -> None:
    folder = images_in(tmp_path / "images", "a.png")
    batch(folder)
    (file,) = (batch.out / PREDICTIONS).iterdir()
    pq.write_table(pq.ParquetFile(file).read().replace_schema_metadata(record and {"wildcat": record}), file)
    assert batch(folder) == (1, [str(folder / "a.png")], {})
