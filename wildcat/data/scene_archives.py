"""Where MIT Indoor 67 and 15-Scene are fetched from. torchvision has neither."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import URLError

from wildcat.data.sample import check_choice

SPLITS = ("train", "test")
MIT67_HOSTS = ("http://groups.csail.mit.edu/vision/LabelMe/NewImages", "http://web.mit.edu/torralba/www")
MIT67_ARCHIVE = "indoorCVPR_09.tar"
MIT67_SHA1 = "0b252516e746ba428b96af408d2e8162d9b08ac5"  # as visym/vipy has it
MIT67_LISTS = {"TrainImages.txt": 67 * 80, "TestImages.txt": 67 * 20}  # pictures; no checksums are published
SCENE15_URLS = (
    "http://slazebni.cs.illinois.edu/research/scene_categories.zip",
    "http://www-cvr.ai.uiuc.edu/ponce_grp/data/scene_categories/scene_categories.zip",
)
SCENE15_MD5 = "58828019197b2ad0a7efb472e7a85c2a"


def download_mit67(path: Path, split: str) -> None:
    """Fetch all pictures (2.4 GB) and both lists; the lists last, so that a folder that has them is complete.

    Raises:
        OSError: without network, or if a checksum or a list's length is not the known one.
    """
    check_choice(split, SPLITS, "MIT67: a split for download")
    from torchvision.datasets.utils import download_url, extract_archive

    path.mkdir(parents=True, exist_ok=True)
    archive = path / MIT67_ARCHIVE
    if not (path / "Images").is_dir() or archive.exists():  # it stays until it is unpacked
        download_url(f"{MIT67_HOSTS[0]}/{MIT67_ARCHIVE}", str(path))
        found = _sha1(archive)
        if found != MIT67_SHA1:
            archive.unlink()
            raise OSError(f"{MIT67_ARCHIVE} has the SHA-1 {found}, not {MIT67_SHA1}")
        extract_archive(str(archive), str(path), remove_finished=True)
    for name, count in MIT67_LISTS.items():
        part = path / f"{name}.part"
        download_url(f"{MIT67_HOSTS[1]}/{name}", str(path), part.name)
        lines = len(part.read_text(encoding="utf-8-sig").split())
        if lines != count:
            part.unlink()
            raise OSError(f"{name} lists {lines} pictures, not {count}")
        part.replace(path / name)


def _sha1(file: Path) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def download_scene15(path: Path, split: str) -> None:
    """Fetch all pictures (90 MB), MD5 sum checked; the folder gets its name when it is whole.

    Raises:
        OSError: without network, from either host.
        RuntimeError: if the checksum is not the known one.
    """
    check_choice(split, SPLITS, "15-Scene: a split for download")
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
        _fetch_first(SCENE15_URLS, Path(scratch), SCENE15_MD5)
        (Path(scratch) / "pictures").rename(path)


def _fetch_first(urls: Sequence[str], folder: Path, md5: str) -> None:
    """Unpack the archive of the first host that answers into ``folder/pictures``."""
    from torchvision.datasets.utils import download_and_extract_archive

    for url in urls:
        try:
            download_and_extract_archive(url, str(folder), str(folder / "pictures"), md5=md5)
        except URLError:
            if url == urls[-1]:
                raise
        else:
            return
