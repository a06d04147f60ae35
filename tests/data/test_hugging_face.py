"""Layouts of Hugging Face: Parquet tables written by its library, and images with a file metadata."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.data import trees
from tests.data.tool_scenes import IMAGES, SCENES, TOOLS, check_boxes, check_labels, copy
from wildcat.data.registry import available_splits, open_dataset
from wildcat.errors import WildcatError

LABELS = {name: sorted({label for label, _ in objects}) for name, objects in SCENES.items()}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_parquet_table_of_its_library(cache: Path) -> None:
    """One class per image, -1 for the last one, which is not labelled; the images are in the table."""
    pytest.importorskip("pyarrow")
    for spec in (f"hf:{TOOLS}/hf", f"hf:{TOOLS}/hf/data/train-00000-of-00001.parquet"):
        data = open_dataset(f"{spec},exclusive=yes", "all")
        assert not data.multi_label and len(data) == 3 and set(data.classes) == {"cat", "dog"}
        named = [[data.classes[i] for i in (sample.labels == 1).nonzero()[0]] for sample in data.samples]
        assert named == [["cat"], ["dog"], ["dog"]]
        assert data.image(0).size == (40, 30) and data.samples[0].path.is_relative_to(cache)
        assert not any(Path(sample.name).is_absolute() for sample in data.samples)  # splits depend on names
        with Image.open(IMAGES / "one.png") as expected:
            assert data.image(0).tobytes() == expected.convert("RGB").tobytes()


def test_several_labels_in_a_parquet_table() -> None:
    pytest.importorskip("pyarrow")
    data = open_dataset(f"hf:{TOOLS}/hf-multi.parquet,image_column=image", "all")
    found = [[data.classes[i] for i in (sample.labels == 1).nonzero()[0]] for sample in data.samples]
    assert found == list(LABELS.values())


def test_objects_in_a_parquet_table() -> None:
    pytest.importorskip("pyarrow")
    data = open_dataset(f"hf:{TOOLS}/hf-objects.parquet", "all")
    assert data.classes == ("cat", "dog", "bird") and data.has_boxes
    for sample, objects in zip(data.samples, SCENES.values(), strict=True):
        assert sample.boxes is not None and sample.boxes.tolist() == [list(map(float, box)) for _, box in objects]


def metadata(root: Path, form: str, rows: list[dict[str, object]], folder: str = "") -> Path:
    file = root / folder / f"metadata.{form}"
    if form == "parquet":
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        file.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.Table.from_pylist(rows), file)
    elif form == "jsonl":
        trees.write(file, "".join(json.dumps(row) + "\n" for row in rows))
    else:
        cells = [[";".join(v) if isinstance(v, list) else str(v) for v in row.values()] for row in rows]
        trees.write(file, "\n".join(",".join(line) for line in [list(rows[0]), *cells]) + "\n")
    return root


ROWS: list[dict[str, object]] = [{"file_name": f"{name}.png", "labels": labels} for name, labels in LABELS.items()]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_metadata_beside_images(tmp_path: Path, form: str) -> None:
    root = metadata(copy("images", tmp_path), form, ROWS)
    for spec in (f"hf:{root}", f"hf:{root}/metadata.{form}", f"tags:{root}/metadata.{form}"):
        assert available_splits(spec) == ("train", "test", "all")
        data = open_dataset(spec, "all")
        assert data.classes == ("cat", "dog")
        check_labels(data)


def test_metadata_of_each_split(tmp_path: Path) -> None:
    for split, names in (("train", ("one", "two")), ("validation", ("three", "empty"))):
        metadata(tmp_path, "jsonl", [row for row in ROWS if str(row["file_name"])[:-4] in names], split)
        for name in names:
            (tmp_path / split / f"{name}.png").write_bytes((IMAGES / f"{name}.png").read_bytes())
    assert available_splits(f"hf:{tmp_path}") == ("train", "val")
    train, val = (open_dataset(f"hf:{tmp_path}", split) for split in ("train", "val"))
    assert train.classes == val.classes == ("cat", "dog")
    check_labels(train, {name: SCENES[name] for name in ("one", "two")})
    check_labels(val, {name: SCENES[name] for name in ("three", "empty")})


@pytest.mark.parametrize("boxes", ["xywh", "xyxy"])
@pytest.mark.parametrize("as_list", [False, True])
def test_objects_in_json_lines(tmp_path: Path, boxes: str, as_list: bool) -> None:
    rows: list[dict[str, object]] = []
    for name, objects in SCENES.items():
        edges = [[x1, y1, x2, y2] if boxes == "xyxy" else [x1, y1, x2 - x1, y2 - y1] for _, (x1, y1, x2, y2) in objects]
        numbers = [["cat", "dog"].index(label) for label, _ in objects]
        value: object = {"bbox": edges, "categories": numbers}
        if as_list:
            value = [{"bbox": box, "category": number} for box, number in zip(edges, numbers, strict=True)]
        rows.append({"file_name": f"{name}.png", "objects": value})
    root = metadata(copy("images", tmp_path), "jsonl", rows)
    trees.write(root / "classes.txt", "cat\ndog\n")
    data = open_dataset(f"hf:{root},class_list=classes.txt,boxes={boxes}", "all")
    check_labels(data)
    check_boxes(data)
    assert open_dataset(f"hf:{root},boxes={boxes}", "all").classes == ("0", "1")


def test_class_folders(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for number in range(2):
            trees.image(tmp_path / name / f"{number}.png")
    data = open_dataset(f"hf:{tmp_path}", "train")
    assert data.classes == ("cat", "dog") and not data.multi_label


# What tables of any kind can say: blanks, -1, numbers of classes, probabilities


def table(tmp_path: Path, text: str) -> str:
    copy("images", tmp_path)
    trees.write(tmp_path / "images" / "table.csv", text)
    return f"tags:{tmp_path}/images/table.csv"


def test_blank_cells_are_unknown_if_the_user_says_so(tmp_path: Path) -> None:
    spec = table(tmp_path, "image,cat,dog\none.png,1,0\ntwo.png,,1\nthree.png,,\nempty.png,0,-1\n")
    absent = open_dataset(spec, "all")
    assert absent.labels.tolist() == [[1, -1], [-1, 1], [-1, -1], [-1, 0]]
    unknown = open_dataset(f"{spec},blank=unknown", "all")
    assert unknown.labels.tolist() == [[1, -1], [0, 1], [-1, 0]] and unknown.zeros_unknown
    assert "1 images without a known label are left out" in unknown.notes[0]
    dropped = open_dataset(f"{spec},empty=drop", "all")
    assert [sample.name for sample in dropped.samples] == ["one.png", "two.png"]


def test_minus_one_among_numbers_is_unknown(tmp_path: Path) -> None:
    spec = table(tmp_path, "image,label\none.png,0\ntwo.png,1\nthree.png,-1\nempty.png,1\n")
    data = open_dataset(f"{spec},exclusive=yes", "all")
    assert data.classes == ("0", "1") and [sample.name for sample in data.samples] == [
        "one.png",
        "two.png",
        "empty.png",
    ]
    trees.write(tmp_path / "images" / "names.txt", "cat\ndog\nbird\n")
    named = open_dataset(f"{spec},exclusive=yes,class_list=names.txt", "all")
    assert named.classes == ("cat", "dog", "bird") and named.labels.argmax(axis=1).tolist() == [0, 1, 1]
    words = table(tmp_path, "image,label\none.png,cat\ntwo.png,-1\n")  # a class may have this name
    assert open_dataset(words, "all").classes == ("-1", "cat")


def test_probabilities_become_labels(tmp_path: Path) -> None:
    spec = table(tmp_path, "file,'=cat,class:file\none.png,0.9,0.2\ntwo.png,0.5,1\nthree.png,0.49,0\n")
    data = open_dataset(f"{spec},threshold=0.5", "all")
    assert data.classes == ("=cat", "file") and data.labels.tolist() == [[1, -1], [1, 1], [-1, -1]]
    with pytest.raises(WildcatError, match="threshold must be a probability"):
        open_dataset(f"{spec},threshold=7", "all")


def test_urls_in_tables(tmp_path: Path) -> None:
    spec = table(tmp_path, "image,tags\nhttps://example.org/x/one.png?y=1,cat\nD:\\photos\\two.png,cat;dog\n")
    data = open_dataset(spec, "all")
    assert [sample.path.name for sample in data.samples] == ["one.png", "two.png"] and data.image(1).size == (40, 30)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"PAR1", "cannot be read as Parquet"),
        ("a.parquet", b"", "cannot be read as Parquet"),
        ("metadata.jsonl", b'{"file_name": "a.png", "label": 1}\n{"file', "line 2 cannot be read as JSON"),
        ("metadata.jsonl", b"[1]\n", "line 1 must be an object"),
        ("metadata.jsonl", b"", "its lines must name an image and its tags; they have 0 keys"),
        ("metadata.jsonl", b"\xff\xfe", "cannot be read as text in UTF-8"),
        (
            "metadata.jsonl",
            b'{"file_name": "a.png", "objects": {"bbox": [[1, 2, 3]], "categories": ["cat"]}}',
            "row 1: a bbox must be four numbers; got [1, 2, 3]",
        ),
        (
            "metadata.jsonl",
            b'{"file_name": "a.png", "objects": {"bbox": [[1, 2, 3, 4]], "categories": []}}',
            "row 1: objects have 1 boxes, but 0 categories",
        ),
        (
            "metadata.jsonl",
            b'{"file_name": "a.png", "objects": [{"bbox": [1, 2, -3, 4], "category": "cat"}]}',
            "ends before",
        ),
        ("a.txt", b"", "holds no metadata and no Parquet table"),
    ],
)
def test_broken_tables(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    (tmp_path / "a.png").write_bytes(png())
    with pytest.raises(WildcatError) as error:
        open_dataset(f"hf:{tmp_path}", "all")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_parquet_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(WildcatError, match=r"pip install 'wildcat-wsl\[parquet\]'"):
        open_dataset(f"hf:{TOOLS}/hf-multi.parquet", "all")
