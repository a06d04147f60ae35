"""A user's own folder per class, and a CSV of tags."""

from pathlib import Path

import pytest

from tests.data import trees
from wildcat.data.registry import available_splits, default_splits, open_dataset
from wildcat.errors import WildcatError


def names(spec: str, split: str) -> list[str]:
    return [sample.name for sample in open_dataset(spec, split).samples]


def folder(path: Path, *files: str) -> Path:
    for name in files:
        trees.image(path / name)
    return path


# folder:


def test_a_folder_per_class_with_images_at_any_depth(tmp_path: Path) -> None:
    folder(tmp_path, "dogs/old/a.JPG", "dogs/b.png", "cats/c.jpg", "cats/.hidden.jpg", ".git/x.jpg")
    (tmp_path / "cats" / "notes.txt").write_text("no image")
    (tmp_path / "readme.md").write_text("no image")
    spec = f"folder:{tmp_path}"
    data = open_dataset(spec, "all")
    assert data.classes == ("cats", "dogs") and not data.multi_label
    assert [sample.name for sample in data.samples] == ["cats/c.jpg", "dogs/b.png", "dogs/old/a.JPG"]
    assert data.labels.tolist() == [[1, -1], [-1, 1], [-1, 1]]
    assert data.image(2).size == (40, 30) and data.upright
    assert available_splits(spec) == ("train", "test", "all") and default_splits(spec) == ("train", "test")


def test_the_random_split_is_by_class_and_repeatable(tmp_path: Path) -> None:
    folder(
        tmp_path,
        *(f"a/{i}.png" for i in range(20)),
        *(f"b/{i}.png" for i in range(5)),
        "lonely/1.png",
        "pair/1.png",
        "pair/2.png",
    )
    spec = f"folder:{tmp_path}"
    train, test = names(spec, "train"), names(spec, "test")
    assert sorted(train + test) == names(spec, "all")
    assert [sum(n.startswith(c) for n in test) for c in ("a/", "b/", "lonely/", "pair/")] == [4, 1, 0, 1]
    assert names(f"{spec},seed=0,test=0.2", "test") == test != names(f"{spec},seed=1", "test")
    assert len(names(f"{spec},test=0.5", "test")) == 10 + 2 + 1
    # A new image joins one side; those who were there stay on theirs, but for the one that the fraction adds.
    trees.image(tmp_path / "b" / "new.png")
    assert len(set(names(spec, "test")) - set(test)) <= 1


def test_own_split_folders(tmp_path: Path) -> None:
    folder(tmp_path, "train/a/1.png", "train/b/2.png", "Valid/a/1.png", "test/c/4.png")
    spec = f"folder:{tmp_path}"
    assert available_splits(spec) == ("train", "val", "test") and default_splits(spec) == ("train", "test")
    assert open_dataset(spec, "val").classes == ("a", "b", "c")
    assert names(spec, "val") == ["a/1.png"] and names(spec, "test") == ["c/4.png"]
    assert open_dataset(spec, "val").image(0).size == (40, 30)
    with pytest.raises(WildcatError, match="split 'all' is unknown; allowed: train, val, test"):
        open_dataset(spec, "all")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    folder(tmp_path, "train/1.png", "car/2.png")
    assert open_dataset(f"folder:{tmp_path}", "all").classes == ("car", "train")


@pytest.mark.parametrize(
    ("files", "spec", "message"),
    [
        ([], "folder:{}", "holds no folder; each class needs a folder"),
        (["a/1.png", "stray.png"], "folder:{}", "1 images lie outside the class folders, the first one is stray.png"),
        (["a/1.png"], "folder:{}x", "abx: not found; give a folder that holds a folder per class.*did you mean"),
        (["a/1.png"], "folder:{},test=0", "test must be a fraction between 0 and 1; got 0"),
        (["a/1.png"], "folder:{},test=half", "option test=half is not allowed; it must be a number"),
        (["train/a/1.png", "val/a/.keep.png"], "folder:{}", "val: holds no images"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, files: list[str], spec: str, message: str) -> None:
    base = tmp_path / "ab"
    base.mkdir()
    folder(base, *files)
    with pytest.raises(WildcatError, match=message):
        open_dataset(spec.format(base), "val" if any(name.startswith("val") for name in files) else "train")


# tags:


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
        ("image,cat\na.jpg,-1\n", r"a\.jpg: column 'cat' holds '-1'; allowed are 0 and 1"),
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
