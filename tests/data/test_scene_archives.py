"""Fetching MIT67 and 15-Scene: archives of the true layout, served on this machine."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from shutil import make_archive

import pytest

from tests.data import trees
from tests.data.test_scenes import mit67
from wildcat.data import scenes
from wildcat.data.registry import available_splits, download_dataset, open_dataset
from wildcat.errors import WildcatError


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has there
        pass


@pytest.fixture
def host(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which its files are served."""
    folder = tmp_path / "host"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def served_mit67(host: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder, address = host
    tree = mit67(tmp_path / "tree")
    for name in scenes.MIT67_LISTS:
        (tree / name).rename(folder / name)
    archive = Path(make_archive(str(folder / "indoorCVPR_09"), "tar", tree))
    monkeypatch.setattr(scenes, "MIT67_HOSTS", (address, address))
    monkeypatch.setattr(scenes, "MIT67_SHA1", hashlib.sha1(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(scenes, "MIT67_LISTS", {"TrainImages.txt": 2, "TestImages.txt": 2})
    return folder


def test_mit67(served_mit67: Path, tmp_path: Path) -> None:
    spec = f"mit67:{tmp_path / 'new' / 'mit67'}"
    download_dataset(spec)
    assert available_splits(spec) == ("train", "test")
    assert open_dataset(spec, "test").image(0).size == (40, 30)
    assert sorted(entry.name for entry in (tmp_path / "new" / "mit67").iterdir()) == [
        "Images",
        "TestImages.txt",
        "TrainImages.txt",
    ]
    for file in served_mit67.iterdir():
        file.unlink()
    download_dataset(spec)  # it is there: nothing is fetched


def test_mit67_of_another_archive_or_a_short_list_is_refused(
    served_mit67: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "new"
    right = scenes.MIT67_SHA1
    monkeypatch.setattr(scenes, "MIT67_SHA1", "0" * 40)
    with pytest.raises(WildcatError, match=f"download failed: indoorCVPR_09.tar has the SHA-1 {right}, not 0000"):
        download_dataset(f"mit67:{target}")
    assert not list(target.iterdir())
    monkeypatch.setattr(scenes, "MIT67_SHA1", right)
    trees.write(served_mit67 / "TestImages.txt", "zoo/d.jpg\n")
    with pytest.raises(WildcatError, match=r"TestImages\.txt lists 1 images, not 2"):
        download_dataset(f"mit67:{target}")
    with pytest.raises(WildcatError, match=r"TestImages\.txt: not found"):
        available_splits(f"mit67:{target}")
    trees.write(served_mit67 / "TestImages.txt", "zoo/d.jpg\nkitchen/c.jpg\n")
    (served_mit67 / "indoorCVPR_09.tar").unlink()  # it has been unpacked
    download_dataset(f"mit67:{target}")
    assert len(open_dataset(f"mit67:{target}", "test")) == 2


def test_scene15_from_the_first_host_that_answers(
    host: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = host
    for number in range(101):
        (tmp_path / "tree" / "coast").mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / "coast" / f"image_{number:04}.jpg").touch()
    archive = Path(make_archive(str(folder / "scenes"), "zip", tmp_path / "tree"))
    monkeypatch.setattr(scenes, "SCENE15_URLS", (f"{address}/gone.zip", f"{address}/scenes.zip"))
    spec = f"scene15:{tmp_path / 'new' / '15-Scene'}"
    with pytest.raises(WildcatError, match="the download failed: File not found or corrupted"):
        download_dataset(spec)
    assert not list((tmp_path / "new").iterdir())
    monkeypatch.setattr(scenes, "SCENE15_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    download_dataset(spec)
    assert len(open_dataset(spec, "test")) == 1
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["15-Scene"]
    monkeypatch.setattr(scenes, "SCENE15_URLS", (f"{address}/gone.zip",))
    with pytest.raises(WildcatError, match="the download failed: HTTP Error 404"):
        download_dataset(f"scene15:{tmp_path / 'other'}")
