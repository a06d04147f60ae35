# ruff: noqa: E501 - each message is on one line
"""Folders of images, a class each."""

from pathlib import Path

from tests.data import trees
from tests.robustness.bad_input.case import Case, Make

SPLITS = ("train/cat/1.png", "train/dog/1.png", "test/cat/2.png", "test/dog/2.png")


def images(*names: str) -> Make:
    """Write images, and empty files where a name has no suffix of one."""

    def make(folder: Path) -> None:
        for name in names:
            if name.endswith(".png"):
                trees.image(folder / "data" / name)
            else:
                trees.write(folder / "data" / name, "")

    return make


def folder(name: str, what: str, names: tuple[str, ...], message: str, options: str = "") -> Case:
    """A folder to train on."""
    return Case(name, what, images(*names), f"train --data folder:data{options} --out new", message)


FOLDERS = [
    folder(
        "beside-splits",
        "a folder with images beside train and test",
        (*SPLITS, "extra/1.png"),
        "data: holds images in extra beside the split folders test, train; move or delete what is not data. To leave other folders out: folder:data,splits=yes; if each of all these folders is a class: folder:data,splits=no",
    ),
    folder(
        "two-vals",
        "two folders of one split",
        (*SPLITS, "val/cat/1.png", "Validation/cat/1.png"),
        "data: the folders Validation and val are both the split val",
    ),
    folder(
        "train-alone",
        "a folder train without a test",
        ("train/cat/1.png", "train/dog/1.png"),
        "data 'folder:data' has one split, train: --train-split train trains on all of it; a share is held out if its folder alone is given",
    ),
    folder(
        "no-splits",
        "split folders that are not there",
        ("cat/1.png", "dog/1.png"),
        "data: splits=yes needs a folder train; it holds cat, dog",
        ",splits=yes",
    ),
    folder(
        "one-class",
        "a single class",
        ("cat/1.png", "cat/2.png", "cat/3.png", "dog/.keep"),
        "folder:data train: all 2 images are of one class, cat: a model needs a second class, such as a folder with images that do not show it",
    ),
    folder(
        "deeper-classes",
        "classes one folder deeper",
        ("images/cat/1.png", "images/dog/1.png", "images/dog/2.png"),
        "folder:data train: all 2 images are of one class, images: a model needs a second class, such as a folder with images that do not show it",
    ),
    folder(
        "beside-classes",
        "images beside the class folders",
        ("cat/1.png", "dog/1.png", "1.png", "2.png"),
        "data: 2 images lie outside the class folders, the first one is 1.png; each class needs a folder with its images",
    ),
    folder(
        "no-images-in-folders",
        "class folders without images",
        ("cat/1.dcm", "dog/2.dcm"),
        "data: holds no images below its class folders; other files: .dcm 2",
    ),
]
