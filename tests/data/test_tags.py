"""A user's own CSV of images and tags."""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.data import trees
from wildcat.data import Dataset, check_dataset
from wildcat.data.registry import available_splits, default_splits, open_dataset
from wildcat.errors import WildcatError


def names(spec: str, split: str) -> list[str]:
    return [sample.name for sample in open_dataset(spec, split).samples]


def table(path: Path, text: str) -> str:
    (path / "my.csv").write_bytes(text.encode("utf-8-sig"))
    return f"tags:{path / 'my.csv'}"


def test_tags_column(tmp_path: Path) -> None:
    spec = table(tmp_path, 'image,tags\na.jpg, dog ; cat;\nsub/b.jpg,cat\n"c, d.jpg",\n')
    trees.image(tmp_path / "sub" / "b.jpg")
    data = open_dataset(spec, "all")
    assert data.classes == ("cat", "dog") and data.multi_label
    rows = {sample.name: sample.labels.tolist() for sample in data.samples}
    assert rows == {"a.jpg": [1, 1], "sub/b.jpg": [1, -1], "c, d.jpg": [-1, -1]}
    index = [sample.name for sample in data.samples].index("sub/b.jpg")
    assert data.image(index).size == (40, 30)  # relative to the CSV's folder


def test_zero_one_columns_tabs_absolute_paths_and_any_place(tmp_path: Path) -> None:
    elsewhere = trees.image(tmp_path / "elsewhere" / "a.jpg")
    spec = table(tmp_path, f"wild cat\tFile\tdog\r\n1\t{elsewhere}\t0\r\n0\tb.jpg\t1\r\n\r\n")
    data = open_dataset(spec, "all")
    assert data.classes == ("wild cat", "dog")  # the columns' order
    rows = {sample.name: sample.labels.tolist() for sample in data.samples}
    assert rows == {str(elsewhere): [1, -1], "b.jpg": [-1, 1]}
    assert data.samples[0].path == elsewhere


def test_split_column(tmp_path: Path) -> None:
    spec = table(tmp_path, "image,labels,Split\na.jpg,x,train\nb.jpg,y,val\nc.jpg,x;y,train\n")
    assert available_splits(spec) == ("train", "val") == default_splits(spec)
    assert names(spec, "train") == ["a.jpg", "c.jpg"]
    assert open_dataset(spec, "train").classes == open_dataset(spec, "val").classes == ("x", "y")
    with pytest.raises(WildcatError, match="split 'test' is unknown; allowed: train, val"):
        open_dataset(spec, "test")


@pytest.mark.parametrize(
    "text",
    [
        "split,photo,tags\ntrain,a.jpg,x;y\ntest,b.jpg,y\n",
        "tags,photo,split\nx;y,a.jpg,train\ny,b.jpg,test\n",
        "split,photo,x,y\ntrain,a.jpg,1,1\ntest,b.jpg,0,1\n",
    ],
)
def test_images_are_in_the_first_column_that_is_neither_split_nor_tags(tmp_path: Path, text: str) -> None:
    spec = table(tmp_path, text)
    assert (names(spec, "train"), names(spec, "test")) == (["a.jpg"], ["b.jpg"])
    assert open_dataset(spec, "train").classes == ("x", "y")
    assert open_dataset(spec, "train").labels.tolist() == [[1, 1]]


@pytest.mark.parametrize("cell", ["cat, dog", '"cat,dog"'])
def test_semicolons_as_spreadsheets_write_them(tmp_path: Path, cell: str) -> None:
    data = open_dataset(table(tmp_path, f"image;tags\na.jpg;dog\nb.jpg;{cell}\n"), "all")
    assert data.classes == ("cat", "dog")
    assert [sample.labels.tolist() for sample in data.samples] == [[-1, 1], [1, 1]]


def test_a_comma_in_a_tag(tmp_path: Path) -> None:
    data = open_dataset(table(tmp_path, 'image,tags\na.jpg,"cat, black;dog"\n'), "all")
    assert data.classes == ("cat, black", "dog")


def test_a_image_in_several_lines_has_the_tags_of_all(tmp_path: Path) -> None:
    spec = table(tmp_path, "image,tag,split\na.jpg,dog,train\nb.jpg,dog,train\na.jpg,cat,train\nc.jpg,cat,test\n")
    data = open_dataset(spec, "train")
    assert [(sample.name, sample.labels.tolist()) for sample in data.samples] == [("a.jpg", [1, 1]), ("b.jpg", [-1, 1])]
    spec = table(tmp_path, "image,tag,split\na.jpg,dog,train\na.jpg,cat,test\n")
    with pytest.raises(WildcatError, match=r"a\.jpg is in two splits, 'train' and 'test'"):
        open_dataset(spec, "train")


def test_random_split_counts_images_not_lines(tmp_path: Path) -> None:
    rows = "".join(f"{i % 10}.jpg,x\n" for i in range(20))
    spec = table(tmp_path, "image,tags\n" + rows)
    for fraction, count in (("0.2", 2), ("0.3", 3), ("0.35", 4)):
        train, test = (names(f"{spec},test={fraction}", split) for split in ("train", "test"))
        assert len(test) == count and len(train) == 10 - count and not set(train) & set(test)


def test_exclusive_tags_are_one_class_a_image(tmp_path: Path) -> None:
    spec = table(tmp_path, "image,tags\na.jpg,x\nb.jpg,y\n")
    assert not open_dataset(f"{spec},exclusive=yes", "all").multi_label
    assert open_dataset(f"{spec},exclusive=no", "all").multi_label
    with pytest.raises(WildcatError, match="exclusive=maybe is not allowed; it must be one of yes, no"):
        open_dataset(f"{spec},exclusive=maybe", "all")
    table(tmp_path, "image,tags\na.jpg,x;y\n")
    with pytest.raises(WildcatError, match=r"a.jpg has 2 tags; exclusive=yes allows exactly one"):
        open_dataset(f"{spec},exclusive=yes", "all")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line must name at least two columns"),
        ("image\na.jpg\n", "the first line must name at least two columns"),
        ("image tags\na.jpg dog\n", "separated by comma, tab or semicolon"),
        (
            "image,tags\na.jpg,x,y\n",
            "line 2 has 3 columns, the first line 2; several tags of an image are separated",
        ),
        ("image,tags\na.jpg,x\nb.jpg\n", "line 3 has 1 columns, the first line 2"),
        ("image,tags\na.jpg,\n", "no row has a tag"),
        ("image,cat,cat\na.jpg,1,1\n", "the column 'cat' occurs twice"),
        ("image,cat,dog\na.jpg,1,2\n", r"a\.jpg: column 'dog' holds '2'; allowed are 0 and 1"),
        ("image,tags\n,x\n", "a row has no image: , x"),
        ("split,tags\nall,x\n", "the first line names no column of images; it holds split, tags"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(WildcatError, match=message):
        open_dataset(table(tmp_path, text), "all")


def test_other_encodings_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_bytes("image,tags\na.jpg,zürich\n".encode("latin-1"))
    with pytest.raises(WildcatError, match="cannot be read as a CSV in UTF-8"):
        open_dataset(f"tags:{tmp_path / 'my.csv'}", "all")
    with pytest.raises(WildcatError, match=r"mi.csv: not found; .*did you mean .*my.csv"):
        open_dataset(f"tags:{tmp_path / 'mi.csv'}", "all")
    with pytest.raises(WildcatError, match="cannot be read as a CSV"):
        open_dataset(f"tags:{tmp_path}", "all")


# How tables are written by hand and by other programs

JOINED = [["cat"], ["dog"], ["cat", "dog"], ["bird"], ["cat", "bird"], ["dog", "bird"]]


def rows(cells: Sequence[str], header: str = "image,tags") -> str:
    """A CSV with these cells beside the images 0.jpg, 1.jpg and so on."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(
        [header.split(","), *([f"{i}.jpg", c] for i, c in enumerate(cells))]
    )
    return file.getvalue()


def tags_of(data: Dataset) -> list[set[str]]:
    """The tags of the images, in the order of the file."""
    return [
        {name for name, label in zip(data.classes, sample.labels, strict=True) if label == 1} for sample in data.samples
    ]


@pytest.mark.parametrize(
    "join",
    [
        *(";".join, ",".join, ", ".join, " ".join, "|".join, " | ".join, "/".join, "\t".join, "\n".join, "+".join),
        *(" & ".join, "_".join, json.dumps, str, lambda tags: str(tuple(tags)), lambda tags: str(set(tags))),
        *(lambda tags: str(np.array(tags)), lambda tags: f"[{', '.join(tags)}]", lambda tags: ";".join(tags) + ";"),
    ],
)
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_ways_to_join_tags(tmp_path: Path, join: Callable[[list[str]], str], delimiter: str) -> None:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows(
        [["image", "tags"], *([f"{i}", join(t)] for i, t in enumerate(JOINED))]
    )
    data = open_dataset(table(tmp_path, file.getvalue()), "all")
    assert data.classes == ("bird", "cat", "dog") and tags_of(data) == [set(tags) for tags in JOINED]
    assert data.warnings == ()


@pytest.mark.parametrize(
    ("cells", "classes", "warning"),
    [
        (["red car", "blue car", "dog"], 3, ""),  # names of two words
        (["hot", "dog", "hot dog"], 3, "1 of 3 tags consist of other tags joined by ' ' (hot dog)"),
        (["red car", "blue car", "red bus", "blue bus"], 4, "4 of 4 tags consist of other tags joined by ' '"),
        (["Smith, John", "Miller, Ann"], 2, "2 of 2 tags hold ',' (Miller, Ann, Smith, John)"),
        (["cat,dog", "dog,bird", "bird,cat"], 3, "3 of 3 tags consist of other tags joined by ','"),
        (["t-shirt", "shirt", "trousers"], 3, ""),
        (["1/2", "1/4"], 2, ""),
    ],
)
def test_tags_that_may_be_joined_are_asked_about(tmp_path: Path, cells: list[str], classes: int, warning: str) -> None:
    spec = table(tmp_path, rows(cells))
    data = open_dataset(spec, "all")
    assert len(data.classes) == classes and warning in "".join(data.warnings) and bool(warning) == bool(data.warnings)
    if warning:
        assert "sep=" in data.warnings[0] and not open_dataset(f"{spec},sep=none", "all").warnings


@pytest.mark.parametrize(
    ("sep", "cell"),
    [
        *(("comma", "a,b"), ("semicolon", "a;b"), ("pipe", "a|b"), ("slash", "a/b"), ("space", "a b"), ("tab", "a\tb")),
        *(("line", "a\nb"), ("plus", "a+b"), ("colon", "a:b"), ("dash", "a-b"), ("underscore", "a_b"), ("#", "a#b")),
    ],
)
def test_the_separator_of_tags_can_be_given(tmp_path: Path, sep: str, cell: str) -> None:
    spec = table(tmp_path, rows([cell]))
    assert open_dataset(f"{spec},sep={sep}", "all").classes == ("a", "b")
    assert len(open_dataset(f"{spec},sep=none", "all").classes) == 1
    with pytest.raises(
        WildcatError, match=r"option sep=ab is not allowed; it must be one of comma, .*none, or one char"
    ):
        open_dataset(f"{spec},sep=ab", "all")


@pytest.mark.parametrize(
    "cell", ["", " ", "nan", "NaN", "None", "none", "N/A", "n/a", "null", "NULL", "-", "<NA>", "?"]
)
def test_cells_that_say_there_is_no_tag(tmp_path: Path, cell: str) -> None:
    data = open_dataset(table(tmp_path, rows(["cat", cell, "dog"])), "all")
    assert data.classes == ("cat", "dog") and tags_of(data) == [{"cat"}, set(), {"dog"}]
    assert "1 of 3 rows have no tag" in data.notes[0]
    data = open_dataset(table(tmp_path, rows(["1", cell, "0"], "image,cat")), "all")
    assert data.labels.tolist() == [[1], [-1], [-1]]


def test_none_is_a_class_where_each_image_has_exactly_one(tmp_path: Path) -> None:
    data = open_dataset(table(tmp_path, rows(["left", "right", "none"])) + ",exclusive=yes", "all")
    assert data.classes == ("left", "none", "right")


@pytest.mark.parametrize(
    "forms",
    [
        ("caf\u00e9", "cafe\u0301"),
        (
            "red car",
            "red\u00a0car",
            "red  car",
            "red car\u200b",
            "\ufeffred car",
            "red\tcar",
            "red\u3000car",
            "red car\u200d",
        ),
        ("cat", "\u200ecat", "ca\u00adt", "cat\u2060"),
    ],
)
def test_tags_that_look_the_same_are_one_class(tmp_path: Path, forms: tuple[str, ...]) -> None:
    spec = table(tmp_path, rows([*(f"{form};x" for form in forms), "dog"]))
    data = open_dataset(spec, "all")
    assert data.classes == tuple(sorted([forms[0], "dog", "x"])) and not data.warnings
    assert f"spellings that look the same are one tag: {forms[0]}" in data.notes[0]
    header = open_dataset(table(tmp_path, f"\u200bimage,{forms[-1]}\na.jpg,1\n"), "all")
    assert header.classes == (forms[0],)


# 0/1 columns


@pytest.mark.parametrize(
    ("one", "zero"),
    [
        *(("1.0", "0.0"), ("1.00", "0"), ("True", "False"), ("TRUE", "FALSE"), ("yes", "no"), ("Y", "N"), ("t", "f")),
        *(
            ("1", ""),
            ("x", ""),
            ("1", "nan"),
            ("\u2713", ""),
            (" 1 ", " 0 "),
            ("1", "-1"),
            ("1", "-1.0"),
            ("1\u00a0", "0"),
        ),
    ],
)
def test_spellings_of_zero_and_one(tmp_path: Path, one: str, zero: str) -> None:
    lines = "".join(f"{i}.jpg,{one if i % 2 else zero},{one if i < 2 else zero}\n" for i in range(4))
    data = open_dataset(table(tmp_path, "image,cat,dog\n" + lines), "all")
    assert data.labels.tolist() == [[-1, 1], [1, 1], [-1, -1], [1, -1]] and not data.zeros_unknown
    assert "classes are the 0/1 columns cat, dog" in data.notes[0]


def test_decimal_commas_of_spreadsheets(tmp_path: Path) -> None:
    data = open_dataset(table(tmp_path, "image;cat;dog\r\na.jpg;1,0;0,0\r\nb.jpg;0,0;1,0\r\n"), "all")
    assert data.labels.tolist() == [[1, -1], [-1, 1]]


@pytest.mark.parametrize("unknown", ["-1", "-1.0"])
def test_minus_one_beside_zeros_is_unknown(tmp_path: Path, unknown: str) -> None:
    data = open_dataset(table(tmp_path, f"image,cat,dog\na.jpg,1,{unknown}\nb.jpg,0,1\na.jpg,0,{unknown}\n"), "all")
    assert data.labels.tolist() == [[1, 0], [-1, 1]] and data.zeros_unknown
    assert "2 cells of -1 are unknown: they are neither trained on nor scored" in data.notes[0]


@pytest.mark.parametrize(
    ("text", "left_out"),
    [
        (",image,cat\n0,a.jpg,1\n1,b.jpg,0\n", "column 1 (row numbers)"),
        (",image,cat\n1,a.jpg,1\n5,b.jpg,0\n", "column 1 (row numbers)"),
        ("Unnamed: 0,image,cat\n0,a.jpg,1\n1,b.jpg,0\n", "column 1 (row numbers)"),
        ("image,cat,\na.jpg,1,\nb.jpg,0,\n", "column 3 (empty)"),
        ("image,cat,,\na.jpg,1,,\nb.jpg,0,,\n", "column 3 (empty), column 4 (empty)"),
        ("image,,cat\na.jpg,,1\nb.jpg,,0\n", "column 2 (empty)"),
        ("image,cat\na.jpg,1,,\nb.jpg,0,\n", ""),
        ("image,cat\r\na.jpg,1\r\n,\r\n,\r\nb.jpg,0\r\n", ""),
    ],
)
def test_columns_and_rows_without_content(tmp_path: Path, text: str, left_out: str) -> None:
    data = open_dataset(table(tmp_path, text), "all")
    assert data.classes == ("cat",) and data.labels.tolist() == [[1], [-1]]
    assert [sample.name for sample in data.samples] == ["a.jpg", "b.jpg"]
    assert (f"not read: {left_out}" if left_out else "image") in data.notes[0]


@pytest.mark.parametrize(
    "content",
    [
        b"sep=;\r\nimage;tags\r\na.jpg;cat\r\nb.jpg;dog\r\n",
        b'"sep=,"\nimage,tags\na.jpg,cat\nb.jpg,dog\n',
        "SEP=|\nimage|tags\na.jpg|cat\nb.jpg|dog\n".encode("utf-8-sig"),
        "image\ttags\r\na.jpg\tcat\r\nb.jpg\tdog\r\n".encode("utf-16"),
        b"\xfe\xff" + "image,tags\na.jpg,cat\nb.jpg,dog\n".encode("utf-16-be"),
        "image,tags\na.jpg,cat\nb.jpg,dog\n".encode("utf-32"),
        b"image,tags\ra.jpg,cat\rb.jpg,dog\r",
    ],
)
def test_encodings_and_delimiters(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "my.csv").write_bytes(content)
    data = open_dataset(f"tags:{tmp_path / 'my.csv'}", "all")
    assert data.classes == ("cat", "dog") and tags_of(data) == [{"cat"}, {"dog"}]


# Which column holds what


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("image,class\na.jpg,0\nb.jpg,1\n", "0 1"),
        ("image,category\na.jpg,cat\nb.jpg,dog\n", "cat dog"),
        ("file_name,target\na.jpg,2\nb.jpg,10\n", "10 2"),
        ("image,label,is_valid\na.jpg,cat,0\nb.jpg,dog,1\n", "cat dog"),
        ("Image Index,Finding Labels,Follow-up,Age\na.jpg,cat|dog,0,58\nb.jpg,cat,1,33\n", "cat dog"),
        ("id,breed\na,cat\nb,dog\n", "cat dog"),
        ("id,image_name,tags\n7,a.jpg,cat\n8,b.jpg,dog\n", "cat dog"),
        ("tags,image\ncat,a.jpg\ndog,b.jpg\n", "cat dog"),
        ("breed,where\ncat,a.jpg\ndog,b.jpg\n", "cat dog"),
        ("image,class,split\na.jpg,cat,train\nb.jpg,dog,test\n", "cat dog"),
        ("image,cat,dog,set\na.jpg,1,0,train\nb.jpg,0,1,test\n", "cat dog"),
    ],
)
def test_columns_are_found_by_name_and_content(tmp_path: Path, text: str, classes: str) -> None:
    spec = table(tmp_path, text)
    assert available_splits(spec) == (("test", "train") if "train" in text else ("train", "test", "all"))
    data = open_dataset(spec, available_splits(spec)[-1])
    assert list(data.classes) == classes.split()
    assert {sample.name.removesuffix(".jpg") for sample in data.samples} <= {"a", "b"}


@pytest.mark.parametrize(
    ("text", "options", "classes"),
    [
        ("image,a,b,is_valid\n1.jpg,1,0,0\n2.jpg,0,1,1\n", "label_column=a+b", "a b"),
        ("image,a,b,age\n1.jpg,1,0,63\n2.jpg,0,1,12\n", "label_column=a+b", "a b"),
        ("image,a,b\n1.jpg,1,0\n2.jpg,0,1\n", "label_column=B", "b"),
        ("image,breed,owner\n1.jpg,cat,me\n2.jpg,dog,you\n", "label_column=breed", "cat dog"),
        ("photo,file,tags\n1.jpg,x,cat\n2.jpg,y,dog\n", "image_column=photo", "cat dog"),
        ("image,tags,part\n1.jpg,cat,a\n2.jpg,dog,b\n", "split_column=part", "cat dog"),
        ("image,tags,c+d\n1.jpg,x,cat\n2.jpg,y,dog\n", "label_column=c+d", "cat dog"),
    ],
)
def test_columns_can_be_named(tmp_path: Path, text: str, options: str, classes: str) -> None:
    spec = f"{table(tmp_path, text)},{options}"
    data = open_dataset(spec, available_splits(spec)[0])
    assert list(data.classes) == classes.split() and {s.name for s in data.samples} <= {"1.jpg", "2.jpg"}
    option = options.split("=")[0]
    with pytest.raises(WildcatError, match=rf"{option} 'colour' is unknown; allowed: {text.split(',')[0]}, "):
        open_dataset(spec.replace(options, f"{option}=colour"), "train")


def test_columns_that_look_like_metadata_are_asked_about(tmp_path: Path) -> None:
    data = open_dataset(table(tmp_path, "image,cat,dog,is_valid,frontal\na.jpg,1,0,0,1\nb.jpg,0,1,1,0\n"), "all")
    assert "classes are the 0/1 columns cat, dog, is_valid, frontal" in data.notes[0]
    assert data.warnings[0].endswith("is_valid is taken for a class too; if not: label_column=cat+dog+frontal")
    with pytest.raises(WildcatError, match=r"column 'age' holds '63'; .*label_column=cat\+dog$"):
        open_dataset(table(tmp_path, "image,cat,dog,age\na.jpg,1,0,63\nb.jpg,0,1,1\n"), "all")
    with pytest.raises(WildcatError, match=r"the first line must name the columns, as in image,tags; it holds a.jpg"):
        open_dataset(table(tmp_path, "a.jpg,cat\nb.jpg,dog\n"), "all")


@pytest.mark.parametrize(
    ("train", "test"), [("Train", "Test"), ("TRAINING", "testing"), (" train", "test "), ("train\u00a0", "TEST")]
)
def test_spellings_of_splits(tmp_path: Path, train: str, test: str) -> None:
    spec = table(tmp_path, f"image,tags,split\na.jpg,cat,{train}\nb.jpg,dog,{test}\n")
    assert default_splits(spec) == ("train", "test") and names(spec, "train") == ["a.jpg"]
    assert names(spec, train) == ["a.jpg"]  # as a run of an earlier version has it in its settings
    assert not open_dataset(spec, "test").warnings


@pytest.mark.parametrize(
    ("split", "warning"),
    [
        ("trian", "2 of 12 images have the split 'trian' .* the first one is 10.jpg; did you mean train?"),
        ("", "2 of 12 images have no split and are neither trained on nor scored by default, the first one is 10.jpg"),
        ("nan", "2 of 12 images have no split"),
        ("extra", "2 of 12 images have the split 'extra'"),
    ],
)
def test_rows_without_a_usual_split_are_counted(tmp_path: Path, split: str, warning: str) -> None:
    parts = ["train"] * 6 + ["test"] * 4 + [split] * 2
    spec = table(tmp_path, "image,tags,split\n" + "".join(f"{i}.jpg,cat,{part}\n" for i, part in enumerate(parts)))
    assert default_splits(spec) == ("train", "test")
    (message,) = open_dataset(spec, "train").warnings
    assert re.search(warning, message)


# Files


@pytest.mark.parametrize(
    ("written", "file"),
    [
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),
        ("cafe\u0301/a.jpg", "caf\u00e9/a.jpg"),
        ("a.JPG", "a.jpg"),
        ("Sub\\a.jpg", "sub/a.jpg"),
        ("a", "a.jpg"),
        ("sub/a.b", "sub/a.b.png"),
        ("red car.jpg", "red\u00a0car.jpg"),
        ("a.jpg\u200b", "a.jpg"),
    ],
)
def test_files_whose_names_are_written_in_another_way(tmp_path: Path, written: str, file: str) -> None:
    trees.image(tmp_path / file)
    (tmp_path / "other.txt").touch()
    data = open_dataset(table(tmp_path, f"image,tags\n{written},cat\nb.jpg,dog\n"), "all")
    assert data.samples[0].name == written and data.image(0).size == (40, 30)
    assert "1 files are found under names that differ" in data.notes[0]
    assert not data.samples[1].path.exists()


def test_a_name_that_two_files_look_like_is_not_guessed(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png"):
        trees.image(tmp_path / name)
    data = open_dataset(table(tmp_path, "image,tags\na,cat\nb.jpg,dog\n"), "all")
    assert not data.samples[0].path.exists()


@pytest.mark.parametrize("again", ["./a.jpg", "sub/../a.jpg", "a.jpg", "caf\u00e9.jpg"])
def test_one_image_named_in_two_ways_is_one_sample(tmp_path: Path, again: str) -> None:
    first = "cafe\u0301.jpg" if again.startswith("caf") else "a.jpg"
    data = open_dataset(table(tmp_path, f"image,tags\n{first},cat\n{again},dog\nb.jpg,dog\n"), "all")
    assert [sample.name for sample in data.samples] == [first, "b.jpg"] and tags_of(data)[0] == {"cat", "dog"}


def test_the_folder_of_the_images_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.image(tmp_path / "images" / "a.jpg")
    spec = table(tmp_path / "images" / "..", "image,tags\na.jpg,cat\nb.jpg,dog\n")
    for given in ("images", str(tmp_path / "images")):
        assert open_dataset(f"{spec},images={given}", "all").image(0).size == (40, 30)
    monkeypatch.chdir(tmp_path / "images")
    assert open_dataset(f"{spec},images=.", "all").image(0).size == (40, 30)
    with pytest.raises(WildcatError, match="images=nowhere: no such folder, neither here nor beside the CSV"):
        open_dataset(f"{spec},images=nowhere", "all")
    with pytest.raises(WildcatError, match=r"no image can be used; names are relative .* or to images=DIR"):
        check_dataset(open_dataset(spec, "all").subset([1]))


# The random split


def test_the_images_held_out_are_those_of_earlier_versions(tmp_path: Path) -> None:
    """Where every class is in both parts, a run is scored on the images held out when it was trained."""
    spec = table(tmp_path, rows([f"{'abc'[i % 3]};{'de'[i % 2]}" for i in range(20)]))
    assert set(names(spec, "test")) == {"8.jpg", "9.jpg", "10.jpg", "18.jpg"}
    assert set(names(f"{spec},test=0.3,seed=5", "test")) == {f"{i}.jpg" for i in (1, 2, 6, 8, 14, 17)}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("exclusive", ["yes", "no"])
def test_every_class_with_two_images_is_in_both_parts(tmp_path: Path, seed: int, exclusive: str) -> None:
    rng = np.random.default_rng(seed)
    cells = [f"common{i % 3}" for i in range(60)]
    for label in range(8):
        for place in rng.choice(60, 1 if label == 0 else 2 + label % 3, replace=False):
            cells[place] = f"rare{label}" if exclusive == "yes" else f"{cells[place]};rare{label}"
    spec = f"{table(tmp_path, rows(cells))},seed={seed},exclusive={exclusive}"
    train, test, everything = (open_dataset(spec, split) for split in ("train", "test", "all"))
    assert len(test) == 12 and len(train) == 48
    assert {s.name for s in train.samples} | {s.name for s in test.samples} == {s.name for s in everything.samples}
    often = (everything.labels == 1).sum(axis=0) >= 2
    assert (train.labels == 1).any(axis=0)[often].all() and (test.labels == 1).any(axis=0)[often].all()
    assert [s.name for s in open_dataset(spec, "test").samples] == [s.name for s in test.samples]


def test_the_choice_of_earlier_versions_can_be_kept(tmp_path: Path) -> None:
    spec = table(tmp_path, rows(["a;rare", "a;rare"] + ["a"] * 18))
    earlier, now = (open_dataset(f"{spec},balanced={word}", "test") for word in ("no", "yes"))
    assert [s.name for s in earlier.samples] == ["8.jpg", "9.jpg", "10.jpg", "18.jpg"]
    assert len(now) == 4 and len({s.name for s in now.samples} & {s.name for s in earlier.samples}) == 3
    assert (now.labels == 1).all(axis=0).any() and (now.labels == 1).any(axis=0).all()


def test_classes_that_cannot_be_in_both_parts(tmp_path: Path) -> None:
    """Of three images, each pair shares a class: one class is in one part alone."""
    train, test = (open_dataset(table(tmp_path, rows(["a;c", "a;b", "b;c"])), split) for split in ("train", "test"))
    assert (len(train), len(test)) == (2, 1) and (train.labels == 1).any(axis=0).all()


def test_a_single_image_cannot_be_held_out(tmp_path: Path) -> None:
    with pytest.raises(WildcatError, match="no image is held out: there is one"):
        open_dataset(table(tmp_path, rows(["a"])), "test")
