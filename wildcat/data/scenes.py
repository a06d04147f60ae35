"""Scene datasets of the paper: MIT Indoor 67 and 15-Scene. One folder per class, one class per image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import URLError

from wildcat.data.files import image_files_below, subfolders
from wildcat.data.sample import Dataset, Sample, one_label, require_path, shuffled
from wildcat.errors import WildcatError, check_choice

SPLITS = ("train", "test")
_MIT67_LISTS = {"train": "TrainImages.txt", "test": "TestImages.txt"}
_MIT67_LAYOUT = "the folder must hold Images, TrainImages.txt and TestImages.txt"
_SCENE15_LAYOUT = "give the folder with a folder per class"
_PER_CLASS = 100  # training images per class of 15-Scene (Lazebnik et al. 2006)


def _read_list(path: Path, needed: str) -> list[str]:
    require_path(path, needed)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise WildcatError(f"{path}: cannot be read as text in UTF-8: {error}") from None
    names = [line.strip() for line in text.splitlines() if line.strip()]
    for name in names:
        if "/" not in name:
            raise WildcatError(f"{path}: {name!r} is not of the form class/image.jpg")
    return names


def _dataset(spec: str, split: str, folder: Path, names: Iterable[str], classes: list[str]) -> Dataset:
    columns = {name: index for index, name in enumerate(classes)}
    samples = [Sample(name, folder / name, one_label(columns[name.split("/")[0]], len(columns))) for name in names]
    return Dataset(spec, split, classes, samples, multi_label=False)


def _classes_of(names: Iterable[str]) -> list[str]:
    return sorted({name.split("/")[0] for name in names})


def mit67_splits(path: Path) -> tuple[str, ...]:
    """Train and test, if the folder is complete."""
    for name in ("Images", *_MIT67_LISTS.values()):
        require_path(path / name, _MIT67_LAYOUT)
    return SPLITS


def open_mit67(spec: str, path: Path, split: str) -> Dataset:
    """MIT Indoor 67 (Quattoni and Torralba 2009): Images/<class>/ and the fixed TrainImages.txt, TestImages.txt."""
    require_path(path / "Images", _MIT67_LAYOUT)
    check_choice(split, SPLITS, f"{spec}: split")
    lists = {part: _read_list(path / file, _MIT67_LAYOUT) for part, file in _MIT67_LISTS.items()}
    classes = _classes_of(lists["train"] + lists["test"])
    return _dataset(spec, split, path / "Images", lists[split], classes)


def scene15_splits(path: Path) -> tuple[str, ...]:
    """Train and test, if the folder contains class folders."""
    require_path(path, _SCENE15_LAYOUT)
    if not subfolders(path):
        raise WildcatError(f"{path}: holds no folders; {_SCENE15_LAYOUT}")
    return SPLITS


def open_scene15(spec: str, path: Path, split: str, *, seed: int | None = None) -> Dataset:
    """15-Scene: a folder per class, 100 training images of each, the others for testing.

    Without `seed`, train.txt and test.txt are the lists where both exist; with it, or without lists, the training
    images are chosen at random, by name, from all images (seed 0 if none is given).
    """
    require_path(path, _SCENE15_LAYOUT)
    check_choice(split, SPLITS, f"{spec}: split")
    files = {part: path / f"{part}.txt" for part in SPLITS}
    if seed is None and all(file.is_file() for file in files.values()):
        lists = {part: _read_list(file, "") for part, file in files.items()}
        return _dataset(spec, split, path, lists[split], _classes_of(lists["train"] + lists["test"]))
    classes = [folder.name for folder in subfolders(path)]
    names = []
    for name in classes:
        images = [f"{name}/{image}" for image in image_files_below(path / name)]
        if len(images) <= _PER_CLASS:
            raise WildcatError(
                f"{path / name}: holds {len(images)} images; a random split needs more than {_PER_CLASS}"
            )
        order = shuffled(images, seed or 0)
        names += sorted(order[:_PER_CLASS] if split == "train" else order[_PER_CLASS:])
    return _dataset(spec, split, path, names, classes)


MIT67_HOSTS = ("http://groups.csail.mit.edu/vision/LabelMe/NewImages", "http://web.mit.edu/torralba/www")


MIT67_ARCHIVE = "indoorCVPR_09.tar"


MIT67_SHA1 = "0b252516e746ba428b96af408d2e8162d9b08ac5"  # the value that visym/vipy checks


MIT67_LISTS = {"TrainImages.txt": 67 * 80, "TestImages.txt": 67 * 20}  # images; no checksums are published


SCENE15_URLS = (
    "http://slazebni.cs.illinois.edu/research/scene_categories.zip",
    "http://www-cvr.ai.uiuc.edu/ponce_grp/data/scene_categories/scene_categories.zip",
)


SCENE15_MD5 = "58828019197b2ad0a7efb472e7a85c2a"


def download_mit67(path: Path, split: str) -> None:
    """Download all images (2.4 GB), then both lists, so that a folder that has the lists is complete.

    Raises:
        OSError: without network, or if a checksum or a list's length is not the known one.
    """
    check_choice(split, SPLITS, "MIT67: a split for download")
    from torchvision.datasets.utils import download_url, extract_archive

    path.mkdir(parents=True, exist_ok=True)
    archive = path / MIT67_ARCHIVE
    if not (path / "Images").is_dir() or archive.exists():  # the archive stays until it is unpacked
        download_url(f"{MIT67_HOSTS[0]}/{MIT67_ARCHIVE}", str(path))
        digest = _sha1(archive)
        if digest != MIT67_SHA1:
            archive.unlink()
            raise OSError(f"{MIT67_ARCHIVE} has the SHA-1 {digest}, not {MIT67_SHA1}")
        extract_archive(str(archive), str(path), remove_finished=True)
    for name, count in MIT67_LISTS.items():
        part = path / f"{name}.part"
        download_url(f"{MIT67_HOSTS[1]}/{name}", str(path), part.name)
        lines = len(part.read_text(encoding="utf-8-sig").split())
        if lines != count:
            part.unlink()
            raise OSError(f"{name} lists {lines} images, not {count}")
        part.replace(path / name)


def _sha1(file: Path) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def download_scene15(path: Path, split: str) -> None:
    """Download all images (90 MB) and check the MD5 sum; the folder gets its name when it is complete.

    Raises:
        OSError: without network, from either host.
        RuntimeError: if the checksum is not the known one.
    """
    check_choice(split, SPLITS, "15-Scene: a split for download")
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
        _download_first(SCENE15_URLS, Path(scratch), SCENE15_MD5)
        (Path(scratch) / "images").rename(path)


def _download_first(urls: Sequence[str], folder: Path, md5: str) -> None:
    """Download the archive from the first host that answers, and unpack it into ``folder/images``."""
    from torchvision.datasets.utils import download_and_extract_archive

    for url in urls:
        try:
            download_and_extract_archive(url, str(folder), str(folder / "images"), md5=md5)
        except URLError:
            if url == urls[-1]:
                raise
        else:
            return
