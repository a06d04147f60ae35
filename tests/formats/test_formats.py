"""Predictions as files; each format is checked with an independent reader."""

import csv
import io
import json
import runpy
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from PIL import Image
from scipy import ndimage

from tests.conftest import REPOSITORY
from tests.formats.brushes import read_brush
from tests.tiny_runs import ColourModel, spots
from wildcat.cli import main
from wildcat.errors import WildcatError
from wildcat.formats.label_studio import brush_rle
from wildcat.formats.names import UniqueNames
from wildcat.formats.polygons import polygons
from wildcat.formats.predicted_image import PredictedImage
from wildcat.formats.write import FORMATS, write_predictions
from wildcat.prediction.items import Failure, image_items
from wildcat.prediction.predictor import Part, Predictor
from wildcat.prediction.result import Prediction
from wildcat.runs.settings import InferenceSettings
from wildcat.system.output_folder import LIST

CLASSES = ("red", 'green <&> "blue\'s"', "blue")
WIDTH, HEIGHT = 200, 100
SCENE = spots(WIDTH, HEIGHT, {0: (60, 50), 2: (150, 50)}, spread=0.12)
TWO_REDS = spots(WIDTH, HEIGHT, {0: (30, 25)}, 0.12) + spots(WIDTH, HEIGHT, {0: (170, 80)}, 0.12)
NOTHING = np.zeros((HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    images = {"a/cat.png": SCENE, "b/cat.png": TWO_REDS, "b/cat.bmp": NOTHING, "c & d/été.png": SCENE}
    for name, pixels in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    (folder / "broken.png").write_bytes(b"x")
    return folder


NAMES = ["a/cat.png", "b/cat.png", "b/cat.bmp", "c & d/été.png"]
STEMS = ["a/cat", "b/cat", "b/cat-2", "c & d/été"]
LINKED = ["a/cat.png", "b/cat.png", "b/cat-2.bmp", "c & d/été.png"]


def stream(root: Path, names: list[str] = NAMES) -> Iterator[Prediction | Failure]:
    model = ColourModel()
    model.cell = 16
    predictor = Predictor(Part(model, InferenceSettings(CLASSES, True, (160,), (160,))))
    return predictor.stream(image_items([root / name for name in names]), on_error="yield", multi_maps=False)


def write(root: Path, out: Path, *formats: str, **options: object) -> list[Failure]:
    return write_predictions(stream(root), out, formats, CLASSES, root=root, **options)


def predictions(root: Path) -> list[Prediction]:
    return [result for result in stream(root) if isinstance(result, Prediction)]


def expected_mask(prediction: Prediction) -> np.ndarray:
    """The mask of the classes from 50 % on; all background if there are none."""
    return prediction.mask(allowed=prediction.present(0.5))


def expected_boxes(prediction: Prediction) -> list[tuple[int, float, float, float, float]]:
    """Class and edges of each region of the mask of each class, by a flood fill."""
    mask = expected_mask(prediction)
    boxes = []
    for label in prediction.present(0.5):
        left = {(int(y), int(x)) for y, x in np.argwhere(mask == 1 + label)}
        while left:
            todo, part = [left.pop()], []
            while todo:
                y, x = todo.pop()
                part.append((y, x))
                for near in [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                    if near in left:
                        left.remove(near)
                        todo.append(near)
            ys, xs = zip(*part, strict=True)
            if len(part) >= 0.001 * mask.size:
                boxes.append((label, min(xs), min(ys), max(xs) + 1, max(ys) + 1))
    return sorted(boxes)


def test_the_scenes_have_the_expected_regions(root: Path) -> None:
    two, reds, nothing, _ = predictions(root)
    assert [len(expected_boxes(p)) for p in (two, reds, nothing)] == [2, 2, 0]
    assert [p.present() for p in (two, reds, nothing)] == [[2, 0], [0], []]


def crowded(count: int) -> Prediction:
    """An image of 300 cells of four pixels, in each of which another one of so many classes is; all are present."""
    names = tuple(f"class {i}" for i in range(count))
    rows, columns = np.divmod(np.arange(300), 20)
    maps = np.zeros((count, 15, 20), np.float32)
    maps[np.arange(300) % count, rows, columns] = 1
    probabilities = np.linspace(0.9, 0.6, count, dtype=np.float32)
    image = Image.new("RGB", (40, 30))
    return Prediction(
        "a.png", image.size, InferenceSettings(names, True, (8,), (8,)), probabilities, maps, None, image.copy
    )


# ---- Names, whole files ---------------------------------------------------------------------------------------------


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_all_formats_at_once(root: Path, tmp_path: Path) -> None:
    names = ["broken.png", *NAMES]
    failures = write_predictions(stream(root, names), tmp_path / "deep/out", FORMATS, CLASSES, root=root)
    assert [(type(failure), Path(failure.name).name) for failure in failures] == [(Failure, "broken.png")]
    files = files_below(tmp_path / "deep/out")
    per_image = ("overlay/{}.jpg", "mask/{}.png", "mask-overlay/{}.jpg", "yolo/labels/{}.txt")
    voc = ("voc/SegmentationClass/{}.png", "voc/Annotations/{}.xml")
    links = {f"{folder}/{name}" for folder in ("yolo/images", "voc/JPEGImages") for name in LINKED}
    assert files == {pattern.format(stem) for pattern in (*per_image, *voc) for stem in STEMS} | links | {
        LIST,
        *("predictions.jsonl", "scores.csv", "mask-labels.txt"),
        *("coco/dataset.json", "coco/results-bbox.json", "coco/results-segm.json", "coco/results-keypoints.json"),
        *("yolo/data.yaml", "yolo/train.txt"),
        *("voc/labels.txt", "voc/ImageSets/Main/train.txt", "voc/ImageSets/Segmentation/train.txt"),
        *("label-studio/tasks.json", "label-studio/labels.xml"),
        *("cvat/annotations.xml", "cvat/labels.json"),
    }


@pytest.mark.parametrize("name", FORMATS)
def test_one_format_at_a_time(name: str, root: Path, tmp_path: Path) -> None:
    write(root, tmp_path / "out", name)
    expected = {"json": "predictions.jsonl", "csv": "scores.csv"}.get(name, name)
    assert expected in {path.name for path in (tmp_path / "out").iterdir()}
    assert len(list((tmp_path / "out").iterdir())) == (4 if name == "mask" else 2)  # with the list of files


def test_the_command_line_names_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    assert ", ".join(FORMATS) in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", FORMATS)
def test_no_images_at_all(name: str, root: Path, tmp_path: Path) -> None:
    failures = write_predictions(stream(root, ["broken.png"]), tmp_path, [name], CLASSES)
    assert len(failures) == 1
    for file in tmp_path.rglob("*.json"):
        assert json.loads(file.read_text()) is not None
    for file in tmp_path.rglob("*.xml"):
        ElementTree.parse(file)


@pytest.mark.parametrize("name", FORMATS)
def test_an_interrupted_run_leaves_only_files_of_single_images(name: str, root: Path, tmp_path: Path) -> None:
    def interrupted() -> Iterator[Prediction | Failure]:
        yield from stream(root, NAMES[:1])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(interrupted(), tmp_path / "out", [name], CLASSES, root=root)
    left = files_below(tmp_path / "out") - {LIST}
    assert all("a/cat." in file for file in left), left  # files of one image are whole

    # What an earlier run wrote stays whole.
    write(root, tmp_path / "out", name)
    before = {file: (tmp_path / "out" / file).read_bytes() for file in files_below(tmp_path / "out")}
    with pytest.raises(KeyboardInterrupt):
        write_predictions(interrupted(), tmp_path / "out", [name], CLASSES, root=root)
    assert {file: (tmp_path / "out" / file).read_bytes() for file in files_below(tmp_path / "out")} == before


class Failing:
    """A writer that raises errors: at an image, at the end, or also when it discards its files."""

    def __init__(self, *when: str) -> None:
        self.when = when

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*_: object) -> None:
            if name in self.when:
                raise ZeroDivisionError(name)

        return call


@pytest.mark.parametrize("when", [("add",), ("finish",), ("add", "discard")])
def test_an_error_in_one_writer_leaves_no_incomplete_files_of_others(
    when: tuple[str, ...], root: Path, tmp_path: Path
) -> None:
    write(root, tmp_path, "json", "mask")
    before = (tmp_path / "predictions.jsonl").read_bytes()
    with pytest.raises(ZeroDivisionError):
        write(root, tmp_path, "json", "csv", "coco", more=[Failing(*when)], threshold=0.0)
    ended = when == ("finish",)  # the folder's files come first, whatever becomes of the others
    assert ((tmp_path / "predictions.jsonl").read_bytes() != before) == ended
    assert ("scores.csv" in files_below(tmp_path)) == ended
    assert not [file for file in files_below(tmp_path) if file.endswith(".tmp")]
    assert len(list((tmp_path / "mask").rglob("*.png"))) == len(NAMES)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"

    def full(_: Path) -> io.BufferedWriter:
        return Path("/dev/full").open("wb")  # also closing the file fails then: it writes what is left

    monkeypatch.setattr("wildcat.formats.incremental.create_new", full)
    with pytest.raises(OSError, match="No space left"):
        write(root, out, "csv", "json", "coco")
    assert [path for path in out.rglob("*") if not path.is_dir()] == []


def test_images_are_written_one_by_one(root: Path, tmp_path: Path) -> None:
    def watched() -> Iterator[Prediction | Failure]:
        for number, prediction in enumerate(stream(root)):
            assert len(list((tmp_path / "overlay").rglob("*.jpg"))) == number
            yield prediction

    write_predictions(watched(), tmp_path, ["overlay", "json"], CLASSES, root=root)


def test_only_classes_above_the_threshold_are_written(root: Path, tmp_path: Path) -> None:
    for threshold, expected in ((0.0, 3), (0.5, 2), (1.0, 0)):
        write(root, tmp_path, "json", "label-studio", threshold=threshold)
        line = (tmp_path / "predictions.jsonl").read_text().splitlines()[0]
        assert len(json.loads(line)["predicted"]) == expected
        task = json.loads((tmp_path / "label-studio/tasks.json").read_text())[0]
        points = [item for item in task["predictions"][0]["result"] if item["type"] == "keypointlabels"]
        assert len(points) == expected


def test_more_classes_than_a_mask_can_hold(root: Path, tmp_path: Path) -> None:
    """Regions do not depend on the number of classes; files whose pixels are class numbers do."""
    (small,) = (p for p in stream(root, NAMES[:1]) if isinstance(p, Prediction))
    names = tuple(f"class {i}" for i in range(300))
    place = [270, 1, 299]
    probabilities, maps = np.zeros(300, np.float32), np.zeros((300, *small.class_maps.shape[1:]), np.float32)
    probabilities[place], maps[place] = small.probabilities, small.class_maps
    large = Prediction(
        small.name, small.size, InferenceSettings(names, True, (160,), (160,)), probabilities, maps, None, None
    )
    image, large_image = (PredictedImage("a.png", "a", p, 0.5, False) for p in (small, large))
    assert [(place[r.label], r.box) for r in image.regions] == [(r.label, r.box) for r in large_image.regions]
    assert len(image.regions) == 2
    assert large_image.mask.dtype == np.uint16
    np.testing.assert_array_equal(large_image.mask, np.array([0, 271, 2, 300])[image.mask])
    np.testing.assert_array_equal(large.mask(), large_image.mask)
    with pytest.raises(WildcatError, match="masks of PASCAL VOC hold up to 254 classes; the model has 300"):
        write_predictions([], tmp_path, ["voc"], names)


@pytest.mark.slow
@pytest.mark.parametrize("count", [255, 256, 300])
def test_more_classes_in_one_image_than_a_byte_can_number(count: int, tmp_path: Path) -> None:
    large = crowded(count)
    formats = ("json", "mask", "coco", "yolo", "label-studio", "cvat")
    write_predictions([large], tmp_path, formats, large.settings.classes)
    with Image.open(tmp_path / "mask/a.png") as image:
        stored = np.asarray(image)
    assert stored.dtype == np.uint16 and set(np.unique(stored)) - {0} == set(range(1, count + 1))
    np.testing.assert_array_equal(stored, large.mask())
    for number, cell in enumerate(stored.reshape(15, 2, 20, 2).transpose(0, 2, 1, 3).reshape(300, 4)):
        assert set(cell) <= {0, 1 + number % count}
    entries = json.loads((tmp_path / "coco/dataset.json").read_text())["annotations"]
    lines = (tmp_path / "yolo/labels/a.txt").read_text().splitlines()
    assert {entry["category_id"] for entry in entries} == {1 + int(line.split()[0]) for line in lines}
    masks = ElementTree.parse(tmp_path / "cvat/annotations.xml").iter("mask")
    assert {mask.get("label") for mask in masks} == set(large.settings.classes)
    with Image.open(tmp_path / "mask-overlay/a.jpg") as image:
        assert image.height > 2 * image.width  # the legend names all classes


def test_masks_of_many_classes_are_files_of_16_bits(root: Path, tmp_path: Path) -> None:
    (small,) = (p for p in stream(root, NAMES[:1]) if isinstance(p, Prediction))
    names = tuple(f"class {i}" for i in range(300))
    repeated = {
        "probabilities": np.tile(small.probabilities, 100),
        "class_maps": np.tile(small.class_maps, (100, 1, 1)),
    }
    large = replace(small, settings=InferenceSettings(names, False, (160,), (160,)), **repeated)
    write_predictions([large], tmp_path, ["mask"], names, root=root)
    with Image.open(tmp_path / "mask" / "a" / "cat.png") as image:
        stored = np.asarray(image)
    best = int(small.probabilities.argmax())
    assert stored.dtype == np.uint16 and set(np.unique(stored)) == {0, 1 + best}
    assert (tmp_path / "mask-labels.txt").read_text().splitlines() == ["background", *names]
    with Image.open(tmp_path / "mask-overlay" / "a" / "cat.jpg") as image:
        assert image.height > 320 * HEIGHT // WIDTH  # the legend names the class


@pytest.mark.slow
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30), max_size=8))
def test_names_are_unique_and_stay_inside_the_folder(texts: list[str]) -> None:
    names = UniqueNames(None)
    stems = [names.stem(text) for text in texts]
    assert len({stem.casefold() for stem in stems}) == len(texts)
    for stem in stems:
        assert not stem.startswith("/") and "\n" not in stem and "\\" not in stem and "\0" not in stem
        assert all(part.strip(".") for part in stem.split("/"))


@pytest.mark.parametrize(
    ("name", "relative", "stem"),
    [
        ("/data/set/a/cat.jpg", "a/cat.jpg", "a/cat"),
        ("/data/set/../set/a/cat.jpg", "a/cat.jpg", "a/cat"),
        ("/data/other/cat.jpg", "cat.jpg", "cat"),
        ("/data/set/../../etc/passwd", "passwd", "passwd"),
        ("/data/set/a/..hidden.jpg", "a/..hidden.jpg", "a/..hidden"),
        ("/data/set/new\nline.jpg", "new\nline.jpg", "new_line"),
        ("/data/set/" + "é" * 120 + ".jpg", "é" * 120 + ".jpg", "é" * 90),
    ],
)
def test_names_from_a_root(name: str, relative: str, stem: str) -> None:
    names = UniqueNames(Path("/data/set"))
    assert names.relative(name) == relative
    assert names.stem(relative) == stem


@pytest.mark.parametrize("name", ["..", "../..", ".", "", "/", "image 0", "../../etc/x.png"])
def test_names_without_a_root_are_one_part(name: str) -> None:
    names = UniqueNames(None)
    stem = names.stem(names.relative(name))
    assert stem and "/" not in stem and stem.strip(".")


def test_repeated_names_are_numbered_from_the_second_on() -> None:
    names = UniqueNames(None)
    assert [names.stem(name) for name in ("a.png", "a.jpg", "A.gif", "a-2.png")] == ["a", "a-2", "A-3", "a-2-2"]


# ---- The formats, read back -----------------------------------------------------------------------------------------


def test_json_and_csv(root: Path, tmp_path: Path) -> None:
    write(root, tmp_path, "json", "csv")
    entries = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    truth = predictions(root)
    assert len(entries) == len(rows) == len(truth) == 4
    for entry, row, prediction in zip(entries, rows, truth, strict=True):
        assert entry["file"] == row.pop("file") == prediction.name
        assert (entry["width"], entry["height"]) == prediction.size
        assert list(row) == list(CLASSES)
        for name, probability in zip(CLASSES, prediction.probabilities, strict=True):
            assert entry["scores"][name] == float(row[name]) == pytest.approx(probability, abs=6e-7)
        for predicted in entry["predicted"]:
            assert predicted["point"] == pytest.approx(prediction.points[predicted["class"]], abs=6e-3)
        assert [CLASSES.index(predicted["class"]) for predicted in entry["predicted"]] == prediction.present()


def test_overlays_and_masks(root: Path, tmp_path: Path) -> None:
    write(root, tmp_path, "overlay", "mask")
    for stem, prediction in zip(STEMS, predictions(root), strict=True):
        for name in ("overlay", "mask-overlay"):
            with Image.open(tmp_path / name / f"{stem}.jpg") as image:
                assert min(image.size) > 100 and (stem == "b/cat-2" or np.asarray(image.convert("RGB")).std() > 10)
        with Image.open(tmp_path / "mask" / f"{stem}.png") as image:
            assert image.mode == "P" and (np.asarray(image) == prediction.mask()).all()
    labels = (tmp_path / "mask-labels.txt").read_text().splitlines()
    assert labels == ["background", *(" ".join(name.split()) for name in CLASSES)]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside pycocotools
def test_coco_with_pycocotools(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    write(root, tmp_path, "coco")
    truth = coco.COCO(tmp_path / "coco/dataset.json")
    results = {
        kind: truth.loadRes(str(tmp_path / f"coco/results-{kind}.json")) for kind in ("bbox", "segm", "keypoints")
    }
    assert [truth.cats[i]["name"] for i in (1, 2, 3)] == list(CLASSES)
    for number, (name, prediction) in enumerate(zip(NAMES, predictions(root), strict=True), start=1):
        image = truth.imgs[number]
        assert image["file_name"] == name and (image["width"], image["height"]) == prediction.size
        for api in (truth, results["segm"]):
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            for entry in api.loadAnns(api.getAnnIds(number)):
                part = api.annToMask(entry).astype(bool)
                assert entry["area"] == part.sum()
                mask[part] = entry["category_id"]
            assert (mask == expected_mask(prediction)).all()
        for api in (truth, *results.values()):
            for entry in api.loadAnns(api.getAnnIds(number)):
                probability = prediction.probabilities[entry["category_id"] - 1]
                assert entry["score"] == pytest.approx(probability, abs=1e-6)
        for api in (truth, results["bbox"], results["segm"]):
            boxes = [(e["category_id"] - 1, *e["bbox"]) for e in api.loadAnns(api.getAnnIds(number))]
            edges = sorted((label, x, y, x + w, y + h) for label, x, y, w, h in boxes)
            assert edges == expected_boxes(prediction)
        entries = results["keypoints"].loadAnns(results["keypoints"].getAnnIds(number))
        assert [entry["category_id"] - 1 for entry in entries] == prediction.present()
        for entry in entries:
            x, y, visible = entry["keypoints"]
            assert (x, y) == pytest.approx(prediction.point_array[entry["category_id"] - 1], abs=6e-3) and visible == 2


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside pycocotools
@pytest.mark.parametrize("seed", range(12))
def test_polygons_fill_the_pixels_of_masks(seed: int) -> None:
    """With holes, holes in holes, and parts that touch at corners; pycocotools draws them."""
    coco = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(seed)
    noise = random.random(random.integers(1, 30, 2))
    inside = (ndimage.gaussian_filter(noise, 1.5) if seed % 2 else noise) > random.uniform(0.1, 0.6)
    numbers, count = ndimage.label(inside, np.ones((3, 3)))
    for part in [numbers == number for number in range(1, count + 1)]:
        outlines = polygons(part)
        assert all(len(outline) >= 8 for outline in outlines)
        filled = coco.decode(coco.merge(coco.frPyObjects(outlines, *part.shape)))
        np.testing.assert_array_equal(filled.astype(bool), part)
        shifted = np.array(polygons(part, (5, 7))[0]).reshape(-1, 2) - (5, 7)
        assert shifted.ravel().tolist() == outlines[0]


def test_coco_with_the_converter_of_label_studio(root: Path, tmp_path: Path) -> None:
    converter = pytest.importorskip("label_studio_sdk.converter.imports.coco", reason="needs label-studio-sdk")
    write(root, tmp_path, "coco")
    converter.convert_coco_to_ls(str(tmp_path / "coco/dataset.json"), str(tmp_path / "tasks.json"))
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    kinds = [item["type"] for task in tasks for item in task["annotations"][0]["result"]]
    assert kinds.count("polygonlabels") == sum(len(expected_boxes(p)) for p in predictions(root))


def test_yolo_with_its_reader(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    utils = pytest.importorskip("ultralytics.data.utils", reason="needs ultralytics")
    write(root, tmp_path, "yolo")
    monkeypatch.chdir("/")
    data = utils.check_det_dataset(str(tmp_path / "yolo/data.yaml"), autodownload=False)
    assert Path(data["train"]).is_file() and data["names"] == dict(enumerate(CLASSES))


def test_yolo(root: Path, tmp_path: Path) -> None:
    from torchvision.ops import box_convert

    write(root, tmp_path, "yolo")
    data = yaml.safe_load((tmp_path / "yolo/data.yaml").read_text(encoding="utf-8"))
    assert data["names"] == dict(enumerate(CLASSES))
    assert "path" not in data  # readers then take the folder of the file
    listed = (tmp_path / "yolo" / data["train"]).read_text(encoding="utf-8").splitlines()
    assert listed == [f"./images/{name}" for name in LINKED]
    for place, name in zip(listed, NAMES, strict=True):
        assert (tmp_path / "yolo" / place).samefile(root / name)
    for place, prediction in zip(listed, predictions(root), strict=True):
        labels = (tmp_path / "yolo" / place.replace("images/", "labels/")).with_suffix(".txt")
        values = np.loadtxt(labels, ndmin=2) if labels.stat().st_size else np.zeros((0, 5))
        boxes = box_convert(torch.from_numpy(values[:, 1:]), "cxcywh", "xyxy") * torch.tensor([WIDTH, HEIGHT] * 2)
        regions = sorted((int(label), *box) for label, box in zip(values[:, 0], boxes.tolist(), strict=True))
        assert np.allclose(
            np.array(regions).reshape(-1, 5), np.array(expected_boxes(prediction)).reshape(-1, 5), atol=1e-4
        )


def test_voc_with_torchvision(root: Path, tmp_path: Path) -> None:
    from torchvision.datasets import VOCDetection, VOCSegmentation

    write(root, tmp_path, "voc")
    year = tmp_path / "VOCdevkit/VOC2012"
    shutil.copytree(tmp_path / "voc", year)
    for stem, name in zip(STEMS, NAMES, strict=True):
        assert (tmp_path / "voc/JPEGImages" / stem).with_suffix(Path(name).suffix).samefile(root / name)
        Image.open(root / name).save(year / "JPEGImages" / f"{stem}.jpg")
    masks = VOCSegmentation(tmp_path, image_set="train")
    boxes = VOCDetection(tmp_path, image_set="train")
    assert len(masks) == len(boxes) == 4
    assert (year / "labels.txt").read_text().splitlines() == ["background", *CLASSES]
    for (_, mask), (_, tree), name, prediction in zip(masks, boxes, NAMES, predictions(root), strict=True):
        assert (np.asarray(mask) == expected_mask(prediction)).all()
        annotation = tree["annotation"]
        assert f"{annotation['folder']}/{annotation['filename']}" == name
        assert annotation["size"] == {"width": "200", "height": "100", "depth": "3"}
        assert annotation["segmented"] == str(int(expected_mask(prediction).any()))
        boxes = []
        for entry in annotation.get("object", []):
            x1, y1, x2, y2 = (int(entry["bndbox"][edge]) for edge in ("xmin", "ymin", "xmax", "ymax"))
            boxes.append((CLASSES.index(entry["name"]), x1 - 1, y1 - 1, x2, y2))
        assert sorted(boxes) == expected_boxes(prediction)


def test_label_studio(root: Path, tmp_path: Path) -> None:
    write(root, tmp_path, "label-studio")
    tasks = json.loads((tmp_path / "label-studio/tasks.json").read_text())
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=a/cat.png"
    assert tasks[3]["data"]["image"] == "/data/local-files/?d=c%20%26%20d/%C3%A9t%C3%A9.png"
    interface = ElementTree.parse(tmp_path / "label-studio/labels.xml").getroot()
    controls = {element.get("name"): element for element in interface if element.get("toName")}
    kinds = {"choices": "Choices", "keypointlabels": "KeyPointLabels", "brushlabels": "BrushLabels"}
    for control in controls.values():
        assert [label.get("value") for label in control] == list(CLASSES)
    for task, prediction in zip(tasks, predictions(root), strict=True):
        (prediction_entry,) = task["predictions"]
        results = prediction_entry["result"]
        assert len({item["id"] for item in results}) == len(results)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        tags: list[str] = []
        points = {}
        for item in results:
            assert controls[item["from_name"]].tag == kinds[item["type"]]
            assert (item["to_name"], item["image_rotation"]) == ("image", 0)
            assert (item["original_width"], item["original_height"]) == prediction.size
            if item["type"] == "choices":
                tags = item["value"]["choices"]
                continue
            (name,) = item["value"][item["type"]]
            assert item["score"] == pytest.approx(prediction.scores[name], abs=1e-6)
            if item["type"] == "keypointlabels":
                points[name] = (item["value"]["x"] / 100 * WIDTH, item["value"]["y"] / 100 * HEIGHT)
            else:
                inside = read_brush(item["value"]["rle"], HEIGHT, WIDTH)
                mask[inside == 255] = 1 + CLASSES.index(name)
        assert tags == list(points) == [CLASSES[c] for c in prediction.present()]
        for name, point in points.items():
            assert point == pytest.approx(prediction.points[name], abs=0.001 * WIDTH)
        assert (mask == expected_mask(prediction)).all()


@pytest.mark.parametrize(
    ("prefix", "url"),
    [
        ("https://photos.example/all", "https://photos.example/all/a/cat.png"),
        ("s3://bucket/", "s3://bucket/a/cat.png"),
        ("/data/local-files/?d=photos", "/data/local-files/?d=photos/a/cat.png"),
        ("/files?name=", "/files?name=a/cat.png"),
    ],
)
def test_label_studio_image_urls(root: Path, tmp_path: Path, prefix: str, url: str) -> None:
    write(root, tmp_path, "json", "label-studio", image_prefix=prefix)
    tasks = json.loads((tmp_path / "label-studio/tasks.json").read_text())
    assert tasks[0]["data"]["image"] == url


def test_a_prefix_without_label_studio_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "imagenet", "x.png", "--out", str(tmp_path / "out"), "--image-prefix", "s3://b"]) == 2
    assert "--image-prefix is only for --formats label-studio" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@given(hypothesis_numpy.arrays(np.bool_, hypothesis_numpy.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_brushes(inside: np.ndarray) -> None:
    assert (read_brush(brush_rle(inside), *inside.shape) == 255 * inside).all()


def test_brushes_longer_than_the_longest_run() -> None:
    inside = np.zeros((150, 260), np.bool_)
    inside[130:, 30:] = True
    assert (read_brush(brush_rle(inside), 150, 260) == 255 * inside).all()


def test_brushes_with_the_reader_of_label_studio() -> None:
    brush = pytest.importorskip("label_studio_converter.brush", reason="label-studio-converter is not installed")
    inside = np.random.default_rng(0).random((40, 70)) > 0.4
    inside[10:30, 5:60] = True
    decoded = np.asarray(brush.decode_rle(brush_rle(inside))).reshape(40, 70, 4)
    assert (decoded == 255 * inside[..., None]).all()


def test_cvat_against_its_documented_format(root: Path, tmp_path: Path) -> None:
    write(root, tmp_path, "cvat")
    tree = ElementTree.parse(tmp_path / "cvat/annotations.xml").getroot()
    assert (tree.tag, tree.findtext("version")) == ("annotations", "1.1")
    labels = [entry["name"] for entry in json.loads((tmp_path / "cvat/labels.json").read_text())]
    assert labels == list(CLASSES)
    assert [label.findtext("name") for label in tree.findall("meta/task/labels/label")] == labels
    images = tree.findall("image")
    assert [(int(image.get("id")), image.get("name")) for image in images] == list(enumerate(NAMES))
    for image, prediction in zip(images, predictions(root), strict=True):
        assert (int(image.get("width")), int(image.get("height"))) == prediction.size
        present = [CLASSES[c] for c in prediction.present()]
        assert [tag.get("label") for tag in image.findall("tag")] == present
        assert [point.get("label") for point in image.findall("points")] == present
        for point in image.findall("points"):
            x, y = map(float, point.get("points").split(","))
            assert (x, y) == pytest.approx(prediction.points[point.get("label")], abs=6e-3)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        for shape in image.findall("mask"):
            left, top, width, height = (int(shape.get(key)) for key in ("left", "top", "width", "height"))
            runs = list(map(int, shape.get("rle").split(", ")))
            inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
            mask[top : top + height, left : left + width][inside] = 1 + CLASSES.index(shape.get("label"))
        assert (mask == expected_mask(prediction)).all()


def test_cvat_with_datumaro(root: Path, tmp_path: Path) -> None:
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed")
    names = NAMES[:2]  # it knows images by their stems
    write_predictions(stream(root, names), tmp_path, ["cvat"], CLASSES, root=root)
    shutil.copytree(root, tmp_path / "cvat/images")
    dataset = datumaro.Dataset.import_from(str(tmp_path / "cvat"), "cvat")
    labels = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
    assert labels == list(CLASSES)
    items = {item.id: item for item in dataset}
    assert set(items) == {"a/cat", "b/cat"}
    for name, prediction in zip(names, predictions(root), strict=False):
        annotations = items[name.removesuffix(".png")].annotations
        tags = [labels[a.label] for a in annotations if a.type == datumaro.AnnotationType.label]
        assert tags == [CLASSES[c] for c in prediction.present()]
        points = {labels[a.label]: a.points for a in annotations if a.type == datumaro.AnnotationType.points}
        assert set(points) == set(tags)
        for label, point in points.items():
            assert point == pytest.approx(prediction.points[label], abs=6e-3)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        for annotation in annotations:
            if annotation.type == datumaro.AnnotationType.mask:
                mask[np.asarray(annotation.image).astype(bool)] = 1 + annotation.label
        assert (mask == expected_mask(prediction)).all()


def test_the_documentation_of_formats_is_up_to_date() -> None:
    """docs/formats.md is made by docs/formats.py."""
    page = runpy.run_path(str(REPOSITORY / "docs/formats.py"))["page"]()
    assert (REPOSITORY / "docs/formats.md").read_text(encoding="utf-8") == page
