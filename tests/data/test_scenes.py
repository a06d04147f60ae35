"""MIT Indoor 67 and 15-Scene: the layout on disk, and archives of the true layout, served on this machine."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from shutil import make_archive

import numpy as np
import pytest

from tests.data import trees
from wildcat.data import scenes
from wildcat.data.registry import available_splits, default_splits, download_dataset, open_dataset
from wildcat.errors import WildcatError


def mit67(path: Path) -> Path:
    lists = {"TrainImages.txt": ["kitchen/a.jpg", "bar/b.jpg"], "TestImages.txt": ["kitchen/c.jpg", "zoo/d.jpg"]}
    for file, names in lists.items():
        trees.write(path / file, "\r\n".join(names) + "\r\n")
        for name in names:
            trees.image(path / "Images" / name)
    trees.image(path / "Images" / "kitchen" / "unlisted.jpg")
    return path


def test_mit67_by_its_fixed_lists(tmp_path: Path) -> None:
    spec = f"mit67:{mit67(tmp_path)}"
    assert default_splits(spec) == ("train", "test")
    train, test = (open_dataset(spec, split) for split in ("train", "test"))
    assert train.classes == test.classes == ("bar", "kitchen", "zoo") and not train.multi_label
    assert [sample.name for sample in test.samples] == ["kitchen/c.jpg", "zoo/d.jpg"]
    assert train.labels.tolist() == [[-1, 1, -1], [1, -1, -1]]
    assert train.image(0).size == (40, 30)
    assert not train.has_boxes and not train.has_masks and train.mask(0) is None


def test_mit67_errors(tmp_path: Path) -> None:
    with pytest.raises(WildcatError, match=r"Images: not found; the folder must hold Images, TrainImages.txt"):
        open_dataset(f"mit67:{tmp_path}", "train")
    mit67(tmp_path)
    with pytest.raises(WildcatError, match="split 'val' is unknown; allowed: train, test"):
        open_dataset(f"mit67:{tmp_path}", "val")
    (tmp_path / "TestImages.txt").write_text("nothing.jpg\n")
    with pytest.raises(WildcatError, match=r"'nothing.jpg' is not of the form class/image.jpg"):
        open_dataset(f"mit67:{tmp_path}", "train")
    (tmp_path / "TestImages.txt").unlink()
    with pytest.raises(WildcatError, match=r"TestImages.txt: not found.*did you mean .*TrainImages.txt"):
        open_dataset(f"mit67:{tmp_path}", "train")


@pytest.fixture
def scene15(tmp_path: Path) -> Path:
    for label, count in (("coast", 130), ("office", 104)):
        for number in range(count):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"image_{number:04}.jpg").touch()  # lists are made without reading images
    return tmp_path


def names(spec: str, split: str) -> list[str]:
    return [sample.name for sample in open_dataset(spec, split).samples]


def test_random_splits_of_scene15(scene15: Path) -> None:
    spec = f"scene15:{scene15}"
    train, test = names(spec, "train"), names(spec, "test")
    assert len(train) == len(set(train)) == 200 and len(test) == 34
    assert not set(train) & set(test) and len(set(train) | set(test)) == 234
    assert sum(name.startswith("coast/") for name in train) == 100
    assert names(f"{spec},seed=0", "train") == train != names(f"{spec},seed=1", "train")
    assert open_dataset(spec, "train").classes == ("coast", "office")
    # About 100 / 130 of each split's training images are the same as in another: random.
    common = {n for n in train if n.startswith("coast")} & set(names(f"{spec},seed=1", "train"))
    assert 66 <= len(common) <= 90


def test_lists_of_scene15_are_used_unless_a_seed_is_given(scene15: Path) -> None:
    (scene15 / "train.txt").write_text("office/image_0003.jpg\ncoast/image_0001.jpg\n")
    (scene15 / "test.txt").write_text("coast/image_0002.jpg\n")
    assert names(f"scene15:{scene15}", "train") == ["office/image_0003.jpg", "coast/image_0001.jpg"]
    assert open_dataset(f"scene15:{scene15}", "test").classes == ("coast", "office")
    assert len(names(f"scene15:{scene15},seed=0", "train")) == 200


def test_too_few_images_for_a_random_split(scene15: Path) -> None:
    for number in range(10):
        (scene15 / "office" / f"image_{number:04}.jpg").unlink()
    with pytest.raises(WildcatError, match="office: holds 94 images; a random split needs more than 100"):
        open_dataset(f"scene15:{scene15}", "train")


def test_real_scene15(real_data: Path) -> None:
    spec = f"scene15:{real_data / '15-Scene'}"
    for split in ("train", "test"):
        data = open_dataset(spec, split)
        assert len(data) == 1500 and len(data.classes) == 15
        assert ((data.labels == 1).sum(axis=0) == 100).all() and ((data.labels == 1).sum(axis=1) == 1).all()
        assert all(sample.path.is_file() for sample in data.samples)
        grey = np.asarray(data.image(0))
        assert (grey[:, :, 0] == grey[:, :, 1]).all()
    assert len(open_dataset(f"{spec},seed=7", "test")) == 1500


# Fetching


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


def test_mit67_of_another_archive_or_a_short_list_is_rejected(
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
