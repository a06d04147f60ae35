"""Names from data, of images and of classes, never lead to a file outside the output folder."""

import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import unusual
from tests.tiny_runs import tiny
from wildcat.apps.batch.inputs import InputPart, split_inputs
from wildcat.apps.report.build import write_report
from wildcat.errors import WildcatError
from wildcat.evaluation import submission
from wildcat.formats.write import FORMATS, write_predictions
from wildcat.prediction.items import Item
from wildcat.prediction.loading import load
from wildcat.training.launch import train

NAMES = [
    "../up.jpg",
    "../../up/and/up.jpg",
    "a/../../up.jpg",
    "/absolute.jpg",
    "//two.jpg",
    "..",
    ".",
    "...",
    "",
    " ",
    "nul\0.jpg",
    "line\n../up.jpg",
    "..\\up.jpg",
    "C:\\up.jpg",
    "C:up.jpg",
    "\\\\server\\share\\up.jpg",
    "~/up.jpg",
    "$HOME/up.jpg",
    "a" * 5000 + ".jpg",
    "é" * 200 + ".jpg",
    "/".join(["deep"] * 400) + ".jpg",
    "\u202egpj.up",
    "file:///up.jpg",
    "-rf.jpg",
    ".lock",
    ".hidden.jpg",
    "con.jpg",
    "predictions.jsonl",
]
CLASSES = (
    "../up",
    "/absolute",
    "nul\0<b>\n",
    "..",
    "a\\b",
    "C:\\up",
    "long" * 1000,
    "é",
)  # as many as in the run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, run_and_image: Path) -> Path:
    """A folder with a run."""
    folder = tmp_path_factory.mktemp("names")
    shutil.copytree(run_and_image / "run", folder / "run")
    return folder


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Callable[[], set[Path]]]:
    """An output folder, and a function that returns the new files outside of it."""
    out = tmp_path / "deep" / "deeper" / "out"
    out.parent.mkdir(parents=True)
    monkeypatch.chdir(out.parent)
    places = (Path("/"), Path.home())
    before = {file for place in places for file in place.iterdir()}

    def outside() -> set[Path]:
        files = {file for file in tmp_path.rglob("*") if not file.is_relative_to(out)} - {*out.parents}
        return files | {file for place in places for file in place.iterdir()} - before

    return out, outside


def loader(number: int) -> Callable[[int | None], Image.Image]:
    return lambda _: Image.fromarray(unusual.photo(24, 20, seed=number))


@pytest.mark.slow
@pytest.mark.parametrize("root", [None, Path(), Path("/")], ids=["no root", "root here", "root /"])
def test_every_format(place: Path, inside: Any, root: Path | None) -> None:
    pytest.importorskip("pycocotools")
    out, outside = inside
    predictor = load(place / "run")
    predictor = predictor.with_settings(replace(predictor.settings, classes=CLASSES))
    items = [Item(name, loader(number)) for number, name in enumerate(NAMES)]
    predictions = predictor.stream(items, multi_maps=False)
    # Overlays of all classes are slow: one case is enough.
    formats = FORMATS if root is None else [name for name in FORMATS if name != "overlay"]
    write_predictions(predictions, out, formats, CLASSES, root=root, threshold=0.0)
    assert outside() == set()
    for kind, suffix in (("mask", ".png"), ("voc/Annotations", ".xml"), ("yolo/labels", ".txt")):
        files = [file for file in (out / kind).rglob("*") if file.is_file()]
        assert len(files) == len(NAMES) and {file.suffix for file in files} == {suffix}
    assert not any(file.is_symlink() for file in out.rglob("*"))


@pytest.mark.slow
def test_the_report(place: Path, inside: Any) -> None:
    out, outside = inside
    (out / "images").mkdir(parents=True)
    lines = ["image,tags"]
    for number, name in enumerate(["../images", "../../out/images", str(out / "images"), "."]):
        loader(number)(None).save(out / "images" / f"{number}.png")
        lines.append(f"{name}/{number}.png,{CLASSES[number % 2]};<b>")
    (out / "images" / "my.csv").write_text("\n".join(lines) + "\n")
    run = train(tiny(data=f"tags:{out}/images/my.csv,test=0.5", train_split="all", epochs=1, batch_size=2), out / "run")
    write_report(run, out / "report.html", split="all")
    page = (out / "report.html").read_text()
    assert outside() == set() and 'src="http' not in page


@pytest.mark.slow
def test_a_batch(place: Path, inside: Any) -> None:
    """Its files are named by digests; members of shards are never unpacked."""
    pytest.importorskip("pyarrow", reason="needs pyarrow, which comes with Ray")
    from wildcat.apps.batch.results import ERRORS, PREDICTIONS
    from wildcat.apps.batch.worker import ATTEMPTS, BatchWorker, WorkerSettings

    out, outside = inside
    for name in (PREDICTIONS, ERRORS, ATTEMPTS):
        (out / name).mkdir(parents=True)
    image = out / "image.png"
    loader(0)(None).save(image)
    with tarfile.open(out / "shard.tar", "w") as shard:
        for name in NAMES:
            if name.strip("./ ") and "\0" not in name:
                shard.add(image, name)
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        shard.addfile(link)
    (out / "list.txt").write_text("".join(f"{name}\n" for name in NAMES if name.isprintable() and name.strip()))
    worker = BatchWorker(WorkerSettings(str(place / "run"), str(out), 0.5, 8, "auto", "torch"))
    parts = [*split_inputs([str(out / "shard.tar"), str(out / "list.txt")], 100), InputPart("images", tuple(NAMES))]
    for part in parts:
        (error,) = worker({"part": [part.to_json()]})["error"]
        assert error == ""
    assert outside() == set()
    assert len(list((out / PREDICTIONS).iterdir())) == len(parts)


def test_files_for_the_server(inside: Any) -> None:
    """Names from a dataset's lists and classes: rejected where they are no plain names."""
    out, outside = inside
    mask = np.zeros((4, 5), np.uint8)
    scores = np.zeros((1, 1), np.float32)
    for name in ("../up", "/absolute", "a/b", "a\\b", "", "..", "nul\0", "line\n"):
        for write in (
            lambda name=name: submission.write_masks(out, [(name, mask)]),
            lambda name=name: submission.write_classification(out, ["000001"], scores, [name]),
        ):
            with pytest.raises(WildcatError, match="cannot be used as a file name"):
                write()
    assert outside() == set()
