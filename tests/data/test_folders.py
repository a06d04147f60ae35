"""A user's own folder per class: which folders are classes and splits, and what is left out."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data import trees
from tests.tiny_runs import tiny
from wildcat.data import Dataset
from wildcat.data.files import image_files_below, unnamed_images
from wildcat.data.registry import available_splits, default_splits, open_dataset
from wildcat.errors import WildcatError
from wildcat.system.output_folder import OutputFolder
from wildcat.training.data import open_training_data


def names(spec: str, split: str) -> list[str]:
    return [sample.name for sample in open_dataset(spec, split).samples]


def folder(path: Path, *files: str) -> Path:
    for name in files:
        trees.image(path / name)
    return path


def empty(path: Path, *files: str) -> Path:
    """Files without content: opening a dataset reads none."""
    for name in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    return path


USUAL = ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg")
SPLIT = ("train/cat/1.jpg", "train/dog/1.jpg", "test/cat/2.jpg", "test/dog/2.jpg")


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
    empty(
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
    empty(tmp_path, "b/new.png")
    assert len(set(names(spec, "test")) - set(test)) <= 1


def test_the_images_held_out_are_those_of_earlier_versions(tmp_path: Path) -> None:
    """A run is scored on the images that were held out when it was trained."""
    for label, count in (("cat", 7), ("dog", 12), ("owl", 1)):
        empty(tmp_path, *(f"{label}/{'' if i % 3 else 'old/'}{i}.jpg" for i in range(count)))
    assert names(f"folder:{tmp_path}", "test") == ["cat/1.jpg", "dog/2.jpg", "dog/old/6.jpg"]
    assert names(f"folder:{tmp_path},test=0.4,seed=3", "test") == [
        *("cat/4.jpg", "cat/old/0.jpg", "cat/old/6.jpg"),
        *("dog/10.jpg", "dog/7.jpg", "dog/old/3.jpg", "dog/old/6.jpg", "dog/old/9.jpg"),
    ]


def test_own_split_folders(tmp_path: Path) -> None:
    folder(tmp_path, "train/a/1.png", "train/b/2.png", "Valid/a/1.png", "test/c/4.png")
    spec = f"folder:{tmp_path}"
    assert available_splits(spec) == ("train", "val", "test") and default_splits(spec) == ("train", "test")
    assert open_dataset(spec, "val").classes == ("a", "b", "c")
    assert names(spec, "val") == ["a/1.png"] and names(spec, "test") == ["c/4.png"]
    assert open_dataset(spec, "val").image(0).size == (40, 30)
    with pytest.raises(WildcatError, match="split 'all' is unknown; allowed: train, val, test"):
        open_dataset(spec, "all")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        *(("Train", "Test"), ("TRAIN", "TESTING"), ("training", "testing"), ("training_set", "test_set")),
        *(
            ("train-images", "test images"),
            ("trainset", "dev"),
            ("Training Data", "validation"),
            ("train", "valid_set"),
        ),
    ],
)
def test_usual_names_of_split_folders(tmp_path: Path, train: str, test: str) -> None:
    empty(tmp_path, f"{train}/cat/1.jpg", f"{train}/dog/1.jpg", f"{test}/cat/2.jpg", f"{test}/dog/2.jpg")
    first, second = default_splits(f"folder:{tmp_path}")
    data = open_dataset(f"folder:{tmp_path}", first)
    assert first == "train" and second in ("test", "val") and data.classes == ("cat", "dog")
    assert names(f"folder:{tmp_path}", second) == ["cat/2.jpg", "dog/2.jpg"]


@pytest.mark.parametrize("files", [("train/1.png", "car/2.png"), ("train/1.png", "train/old/2.png", "test/a/1.png")])
def test_a_class_may_be_called_train(tmp_path: Path, files: tuple[str, ...]) -> None:
    empty(tmp_path, *files, "bus/3.png")
    assert "train" in open_dataset(f"folder:{tmp_path}", "all").classes


# Folders that are never data


SYSTEM = [
    *("__MACOSX/cat/._1.jpg", "__MACOSX/cat/1.jpg", "@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", ".ipynb_checkpoints/1.jpg"),
    *(".git/x.jpg", "$RECYCLE.BIN/S-1/1.jpg", "System Volume Information/1.jpg", ".thumbnails/1.jpg", "#recycle/1.jpg"),
    *("lost+found/1.jpg", "@Recycle/1.jpg", "@__thumb/1.jpg", "thumbnails/1.jpg", "Thumbs/1.jpg", "__pycache__/x.jpg"),
]
OUTPUTS: dict[str, tuple[str, ...]] = {
    "run": ("config.json", "model.safetensors", "metrics.csv", "shown/1.png"),
    "unfinished": ("config.json", "metrics.csv", "shown/1.png"),
    "scales": ("scales.json", "scale-64/shown.png"),
    "found": ("predictions.jsonl", "overlay/cat/1.jpg", "mask/cat/1.png"),
    "masks": ("mask-labels.txt", "mask/cat/1.png"),
}


@pytest.mark.parametrize("place", ["", "cat/", "cat/deep/"])
@pytest.mark.parametrize("files", [*((name,) for name in SYSTEM), *OUTPUTS.values()], ids=lambda files: files[0])
def test_folders_that_are_never_data(tmp_path: Path, files: tuple[str, ...], place: str) -> None:
    empty(tmp_path, *USUAL)
    below = place if len(files) == 1 else f"{place}runs/mine/"
    empty(tmp_path, *(below + name for name in files))
    data = open_dataset(f"folder:{tmp_path}", "all")
    assert data.classes == ("cat", "dog") and len(data) == 4
    assert data.warnings == () and ("runs/mine" in "".join(data.notes)) == (len(files) > 1)


@pytest.mark.parametrize("files", [*((name,) for name in SYSTEM), *OUTPUTS.values()], ids=lambda files: files[0])
def test_folders_beside_the_splits_that_are_never_data(tmp_path: Path, files: tuple[str, ...]) -> None:
    empty(tmp_path, *SPLIT, "empty/.keep", "docs/readme.txt")
    empty(tmp_path, *(name if len(files) == 1 else f"runs/mine/{name}" for name in files))
    assert available_splits(f"folder:{tmp_path}") == ("train", "test")
    assert open_dataset(f"folder:{tmp_path}", "train").classes == ("cat", "dog")


def test_predictions_in_the_folder_of_the_images(tmp_path: Path) -> None:
    """The outputs mask and overlay are none of the classes, unless a class is called mask."""
    empty(tmp_path, *USUAL, "predictions.jsonl", "overlay/cat/1.jpg", "mask/cat/1.png", "mask/dog/1.png")
    assert open_dataset(f"folder:{tmp_path}", "all").classes == ("cat", "dog")
    (tmp_path / "predictions.jsonl").unlink()
    output = OutputFolder(tmp_path)
    for name in ("overlay/cat/1.jpg", "overlay/dog/1.jpg", "mask/cat/1.png", "mask/dog/1.png", "cat/found.png"):
        (tmp_path / name).unlink(missing_ok=True)
        output.write(name, b"")
    data = open_dataset(f"folder:{tmp_path}", "all")
    assert data.classes == ("cat", "dog") and len(data) == 4 and not data.warnings
    assert len(image_files_below(tmp_path)) == 4
    empty(tmp_path, *SPLIT)
    with pytest.raises(WildcatError, match="holds images in cat, dog beside the split folders"):
        open_dataset(f"folder:{tmp_path}", "all")
    empty(tmp_path / "own", "mask/1.jpg", "none/1.jpg", "predictions.jsonl")
    assert open_dataset(f"folder:{tmp_path / 'own'}", "all").classes == ("mask", "none")


@pytest.mark.parametrize(
    ("name", "is_thumbnail"),
    [
        *(("1_thumb.jpg", True), ("1-thumbnail.png", True), ("thumb_1.jpg", True), ("1.thumb.jpg", True)),
        *(("1-150x150.jpg", True), ("2_tn.jpg", True), ("9_thumb.jpg", False), ("thumb.jpg", False)),
        *(("thumb_up.jpg", False), ("1_small.jpg", False), ("1-2.jpg", False)),
    ],
)
def test_thumbnails_beside_their_images(tmp_path: Path, name: str, is_thumbnail: bool) -> None:
    empty(tmp_path, *USUAL, f"cat/{name}")
    data = open_dataset(f"folder:{tmp_path}", "all")
    assert len(data) == (4 if is_thumbnail else 5)
    assert (f"1 thumbnails (cat/{name})" in "".join(data.notes)) == is_thumbnail


# Folders that may be meant otherwise


def test_other_folders_beside_the_splits_are_an_error(tmp_path: Path) -> None:
    empty(tmp_path, *SPLIT, "extra/1.jpg", "more/cat/1.jpg")
    spec = f"folder:{tmp_path}"
    with pytest.raises(WildcatError, match=r"images in extra, more beside the split folders test, train.*,splits=yes;"):
        open_dataset(spec, "train")
    left_out = open_dataset(f"{spec},splits=yes", "train")
    assert (
        left_out.classes == ("cat", "dog") and "2 folders beside the split folders (extra, more)" in left_out.notes[0]
    )
    assert open_dataset(f"{spec},splits=no", "all").classes == ("extra", "more", "test", "train")
    empty(tmp_path / "none", *USUAL)
    with pytest.raises(WildcatError, match=r"splits=yes needs a folder train; it holds cat, dog"):
        open_dataset(f"folder:{tmp_path / 'none'},splits=yes", "train")


def test_two_folders_of_one_split_are_an_error(tmp_path: Path) -> None:
    empty(tmp_path, *SPLIT, "val/cat/1.jpg", "validation/cat/2.jpg")
    with pytest.raises(WildcatError, match="the folders val and validation are both the split val"):
        available_splits(f"folder:{tmp_path}")


def test_a_single_split_is_asked_about(tmp_path: Path) -> None:
    empty(tmp_path, "Train/cat/1.jpg", "Train/dog/1.jpg")
    with pytest.raises(WildcatError, match=r"has one split, train: --train-split train .*; a share is held out if its"):
        default_splits(f"folder:{tmp_path}")


def warnings(data: Dataset) -> str:
    return "\n".join(data.warnings)


@pytest.mark.parametrize(
    ("files", "warning"),
    [
        (
            ("images/cat/1.jpg", "images/dog/1.jpg"),
            "the only folder with images is images, which holds the folders cat",
        ),
        (("data/train/1.jpg", "data/test/1.jpg"), "these are the classes, give folder:{}/data"),
        (("images/cat/1.jpg", "images/dog/1.jpg", "annotations/a.xml"), "no classes: annotations (.xml 1)"),
        (("images/cat/1.jpg", "images/dog/1.jpg", "masks/cat/1.png"), "the classes are images, masks, and not"),
        ((*USUAL, "bird/.keep"), "1 folders without images are no classes: bird"),
        ((*USUAL, "bird/1.dcm", "bird/2.dcm"), "no classes: bird (.dcm 2)"),
        ((*SPLIT, "logo.png"), "1 images beside the split folders are not used, the first one is logo.png"),
        ((*SPLIT, "train/bird/.keep"), "1 folders without images are no classes: bird"),
        ((*SPLIT, "train/bird/1.jpg", "test/bird/.keep"), ""),
        (("cat/images/1.jpg", "dog/images/1.jpg"), ""),
    ],
)
def test_warnings_name_folders_that_may_be_meant_otherwise(
    tmp_path: Path, files: tuple[str, ...], warning: str
) -> None:
    empty(tmp_path, *files)
    shown = warnings(open_dataset(f"folder:{tmp_path}", "train"))
    assert warning.format(tmp_path) in shown and bool(warning) == bool(shown)


@pytest.mark.parametrize("files", [("only/1.png", "only/2.png", "none/.keep"), ("images/a/1.png", "images/b/2.png")])
def test_one_class_cannot_be_trained(tmp_path: Path, files: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    empty(tmp_path, *(name for name in files if name.endswith(".keep")))
    folder(tmp_path, *(name for name in files if name.endswith(".png")))
    with pytest.raises(WildcatError, match=rf"all 2 images are of one class, {files[0].split('/')[0]}: a model needs"):
        open_training_data(tiny(data=f"folder:{tmp_path}", train_split="all"))
    assert str(tmp_path) in caplog.text  # the warning that names the folders


def test_no_image_is_held_out_of_classes_with_one(tmp_path: Path) -> None:
    empty(tmp_path, "cat/1.jpg", "dog/1.jpg")
    assert len(open_dataset(f"folder:{tmp_path}", "train")) == 2
    with pytest.raises(WildcatError, match="no image is held out: each class has one; a class needs two images"):
        open_dataset(f"folder:{tmp_path}", "test")


@pytest.mark.parametrize(
    "pair",
    [
        ("caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")),
        ("red car", "red\u00a0car"),
        ("red car", "red car\u200b"),
        ("red car", "red  car"),
        ("cat", "cat "),
        ("caf\u00e9", os.fsdecode("caf\u00e9".encode("cp1252"))),
    ],
)
def test_folders_whose_names_look_the_same_are_one_class(tmp_path: Path, pair: tuple[str, str]) -> None:
    folder(tmp_path, "dog/1.jpg", *(f"{name}/{i}.jpg" for i, name in enumerate(pair)))
    data = open_dataset(f"folder:{tmp_path}", "all")
    assert data.classes == tuple(sorted([pair[0], "dog"])) and len(data) == 3
    assert "are one class" in data.notes[0]
    assert all(data.image(i).size == (40, 30) for i in range(3))


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    """Such names of files and folders have a place in the random order, and the class has a readable name."""
    latin = os.fsdecode(b"Caf\xe9")
    folder(tmp_path, f"{latin}/1.png", f"{latin}/{latin}.png", "dog/1.png", f"dog/{latin}.png")
    spec = f"folder:{tmp_path}"
    train, test = open_dataset(spec, "train"), open_dataset(spec, "test")
    assert train.classes == test.classes == ("Caf\u00e9", "dog") and len(train) == len(test) == 2
    assert sorted(names(spec, "train") + names(spec, "test")) == names(spec, "all")
    dataset, _ = open_training_data(tiny(data=spec))
    assert dataset.image(0).size == (40, 30)


# Links, and files that are no images by name


def link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("../../source", ["cat/1.jpg", "cat/2.jpg", "cat/link/deep/8.jpg", "cat/link/9.jpg"]),
        ("../../source/deep", ["cat/1.jpg", "cat/2.jpg", "cat/link/8.jpg"]),
        ("..", ["cat/1.jpg", "cat/2.jpg"]),
        (".", ["cat/1.jpg", "cat/2.jpg"]),
        ("../..", ["cat/1.jpg", "cat/2.jpg"]),
        ("nowhere", ["cat/1.jpg", "cat/2.jpg"]),
        ("link", ["cat/1.jpg", "cat/2.jpg"]),
    ],
)
def test_links_to_folders_are_followed_unless_they_lead_back(tmp_path: Path, target: str, found: list[str]) -> None:
    data = empty(tmp_path / "data", *USUAL)
    empty(tmp_path / "source", "9.jpg", "deep/8.jpg")
    (tmp_path / "source" / "back").symlink_to("..")
    link(target)(data / "cat" / "link")
    assert [name for name in names(f"folder:{data}", "all") if name.startswith("cat/")] == sorted(found)
    assert [f"cat/{name}" for name in image_files_below(data / "cat")] == sorted(found)


def test_a_folder_is_read_once(tmp_path: Path) -> None:
    """An image that two paths lead to would be in both parts of a random split."""
    empty(tmp_path, *USUAL, "cat/deep/3.jpg")
    (tmp_path / "cat" / "again").symlink_to("deep")
    (tmp_path / "kitten").symlink_to("cat")
    data = open_dataset(f"folder:{tmp_path}", "all")
    assert data.classes == ("cat", "dog", "kitten")
    assert sum(sample.name.startswith("cat/") for sample in data.samples) == 3
    assert "links to folders that are read already (cat/again" in data.notes[0]


@pytest.mark.parametrize("name", ["photo", "photo.1", "photo.image", "photo.jpg_", "photo.jpg~", "photo.jpg.part"])
def test_images_without_a_suffix_of_one_are_named(tmp_path: Path, name: str) -> None:
    empty(tmp_path, *USUAL, "dog/notes.txt", "dog/Thumbs.db", "dog/.DS_Store")
    trees.image(tmp_path / "x.png").rename(tmp_path / "cat" / name)
    data = open_dataset(f"folder:{tmp_path}", "all")
    assert len(data) == 4
    assert data.warnings == (
        f"{tmp_path}: images without a suffix of an image are not read: 1 (cat/{name}); rename them to .jpg, .png or"
        " what they are",
    )
    assert "files without a suffix of an image (" in data.notes[0] and ".txt 1" in data.notes[0]
    assert ".db" not in data.notes[0]


@pytest.mark.parametrize(
    ("head", "is_image"),
    [
        *((b"\xff\xd8\xff\xe0", True), (b"II*\0", True), (b"RIFF\1\0\0\0WEBP", True), (b"RIFF\1\0\0\0WAVE", False)),
        *((b"\0\0\0\x18ftyp" + brand, True) for brand in (b"heic", b"heix", b"mif1", b"avif", b"avis")),
        *((b"\0\0\0\x18ftypmp42", False), (b"%PDF-1.7", False), (b"", False)),
    ],
)
def test_images_are_recognized_by_their_first_bytes(tmp_path: Path, head: bytes, is_image: bool) -> None:
    (tmp_path / "photo").write_bytes(head + b"\0\0\0\0" * bool(head))
    assert unnamed_images(tmp_path, ["photo"]) == ["photo"] * is_image


@pytest.mark.parametrize(
    ("files", "spec", "message"),
    [
        ([], "folder:{}", "holds no folder; each class needs a folder"),
        (["a/1.png", "stray.png"], "folder:{}", "1 images lie outside the class folders, the first one is stray.png"),
        (["a/1.png"], "folder:{}x", "abx: not found; give a folder that holds a folder per class.*did you mean"),
        (["a/1.png"], "folder:{},test=0", "test must be a fraction between 0 and 1; got 0"),
        (["a/1.png"], "folder:{},test=half", "option test=half is not allowed; it must be a number"),
        (["a/1.png"], "folder:{},splits=some", "option splits=some is not allowed; it must be one of yes, no"),
        (["train/a/1.png", "val/a/.keep.png"], "folder:{}", "val: holds no images"),
        (["a/1.png"], "folder:{}/a/1.png", "1.png: cannot be read as a folder: Not a directory"),
        (["a/1.dcm", "b/2.dcm"], "folder:{}", "holds no images below its class folders; other files: .dcm 2"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, files: list[str], spec: str, message: str) -> None:
    base = tmp_path / "ab"
    base.mkdir()
    empty(base, *files)
    with pytest.raises(WildcatError, match=message):
        open_dataset(spec.format(base), "val" if any(name.startswith("val") for name in files) else "train")
