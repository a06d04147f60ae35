"""MIT Indoor 67 and 15-Scene."""

from pathlib import Path

import numpy as np
import pytest

from tests.data import trees
from wildcat.data.registry import default_splits, open_dataset
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
def scenes(tmp_path: Path) -> Path:
    for label, count in (("coast", 130), ("office", 104)):
        for number in range(count):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"image_{number:04}.jpg").touch()  # lists are made without reading images
    return tmp_path


def names(spec: str, split: str) -> list[str]:
    return [sample.name for sample in open_dataset(spec, split).samples]


def test_random_splits_of_scene15(scenes: Path) -> None:
    spec = f"scene15:{scenes}"
    train, test = names(spec, "train"), names(spec, "test")
    assert len(train) == len(set(train)) == 200 and len(test) == 34
    assert not set(train) & set(test) and len(set(train) | set(test)) == 234
    assert sum(name.startswith("coast/") for name in train) == 100
    assert names(f"{spec},seed=0", "train") == train != names(f"{spec},seed=1", "train")
    assert open_dataset(spec, "train").classes == ("coast", "office")
    # About 100 / 130 of each split's training images are the same as in another: drawn at random.
    common = {n for n in train if n.startswith("coast")} & set(names(f"{spec},seed=1", "train"))
    assert 66 <= len(common) <= 90


def test_lists_of_scene15_are_used_unless_a_seed_is_given(scenes: Path) -> None:
    (scenes / "train.txt").write_text("office/image_0003.jpg\ncoast/image_0001.jpg\n")
    (scenes / "test.txt").write_text("coast/image_0002.jpg\n")
    assert names(f"scene15:{scenes}", "train") == ["office/image_0003.jpg", "coast/image_0001.jpg"]
    assert open_dataset(f"scene15:{scenes}", "test").classes == ("coast", "office")
    assert len(names(f"scene15:{scenes},seed=0", "train")) == 200


def test_too_few_images_for_a_random_split(scenes: Path) -> None:
    for number in range(10):
        (scenes / "office" / f"image_{number:04}.jpg").unlink()
    with pytest.raises(WildcatError, match="office: holds 94 images; a random split needs more than 100"):
        open_dataset(f"scene15:{scenes}", "train")


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
