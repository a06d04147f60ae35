"""The synthetic images: the same anywhere, and labels, boxes and masks that agree with each other."""

import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from wildcat.data.registry import open_dataset
from wildcat.data.synthetic import CLASSES, COUNTS, DIFFICULT_BELOW, Synthetic, synthetic
from wildcat.errors import WildcatError

FINGERPRINT = """
import hashlib
from wildcat.data.synthetic import synthetic
data = synthetic("val", count=3, seed=5, size=64)
digest = hashlib.sha256()
for i in range(3):
    digest.update(data.image(i).tobytes() + data.mask(i).tobytes() + data.samples[i].boxes.tobytes())
print(digest.hexdigest())
"""


@pytest.fixture(scope="module")
def scenes() -> Synthetic:
    return synthetic("train", count=150, size=128)


def pixels(data: Synthetic, index: int) -> np.ndarray:
    return np.asarray(data.image(index))


def test_default_counts_and_shape_of_a_sample() -> None:
    data = synthetic("val", size=32)
    assert len(data) == COUNTS["val"] == 120
    assert data.spec == "synthetic:size=32"
    assert (data.split, data.multi_label, data.has_boxes, data.has_masks) == ("val", True, True, True)
    assert data.classes == CLASSES and len(set(CLASSES)) == 8
    image, mask, sample = data.image(0), data.mask(0), data.samples[0]
    assert isinstance(image, Image.Image) and (image.mode, image.size) == ("RGB", (32, 32))
    assert (mask.shape, mask.dtype) == ((32, 32), np.uint8)
    assert (sample.labels.shape, sample.labels.dtype) == ((8,), np.int8)
    assert sample.boxes is not None and sample.boxes.dtype == np.float32 and sample.boxes.shape[1] == 4
    assert sample.box_classes is not None and sample.box_classes.dtype == np.int64
    assert sample.box_difficult is not None and sample.box_difficult.dtype == np.bool_
    assert len({s.name for s in data.samples}) == 120


@pytest.mark.slow
def test_another_process_draws_the_same() -> None:
    digest = hashlib.sha256()
    data = synthetic("val", count=3, seed=5, size=64)
    for i in reversed(range(3)):  # the order in which images are asked for does not matter
        data.image(i)
    for i in range(3):
        assert data.samples[i].boxes is not None
        digest.update(data.image(i).tobytes() + data.mask(i).tobytes() + data.samples[i].boxes.tobytes())
    other = subprocess.run([sys.executable, "-c", FINGERPRINT], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest.hexdigest()


def test_count_adds_images_and_changes_none() -> None:
    few, many = synthetic("test", count=2, size=48), synthetic("test", count=5, size=48)
    for i in range(2):
        np.testing.assert_array_equal(pixels(few, i), pixels(many, i))
        np.testing.assert_array_equal(few.samples[i].boxes, many.samples[i].boxes)


def test_splits_and_seeds_differ() -> None:
    sources = [synthetic(split, count=1, seed=seed, size=48) for split in COUNTS for seed in (0, 1)]
    assert len({pixels(data, 0).tobytes() for data in sources}) == 6


def test_each_object_has_two_parts_that_make_up_its_box(scenes: Synthetic) -> None:
    checked = 0
    for index, sample in enumerate(scenes.samples):
        assert sample.boxes is not None and sample.parts is not None and sample.box_difficult is not None
        mask = scenes.mask(index)
        for number, box in enumerate(sample.boxes):
            own = sample.parts.objects == number
            kinds = [kind for kind, is_own in zip(sample.parts.kinds, own, strict=True) if is_own]
            parts = sample.parts.boxes[own]
            assert set(kinds) == {"main", "accent"} and kinds.count("main") == 1
            assert (parts[:, :2] >= 0).all() and (parts[:, 2:] <= 128).all() and (parts[:, :2] <= parts[:, 2:]).all()
            whole = np.concatenate([parts[:, :2].min(axis=0), parts[:, 2:].max(axis=0)])
            if len(sample.boxes) == 1 and (mask > 0).any():  # nothing hides a part of it
                assert np.abs(whole - box).max() < 0.06 * 128  # a chimney or a nozzle is of neither part
                checked += 1
    assert checked > 20


def test_subset_and_pickle_keep_their_images(scenes: Synthetic) -> None:
    part = pickle.loads(pickle.dumps(scenes.subset([7, 3])))
    np.testing.assert_array_equal(pixels(part, 0), pixels(scenes, 7))
    np.testing.assert_array_equal(part.mask(1), scenes.mask(3))
    np.testing.assert_array_equal(part.labels, scenes.labels[[7, 3]])
    assert len(scenes) == 150


def test_a_scene_is_the_same_at_every_size() -> None:
    small, large = synthetic("train", count=20, size=96), synthetic("train", count=20, size=384)
    for a, b in zip(small.samples, large.samples, strict=True):
        assert a.boxes is not None and b.boxes is not None
        np.testing.assert_array_equal(a.box_classes, b.box_classes)
        np.testing.assert_allclose(a.boxes * 4, b.boxes, atol=8)  # two small pixels: thin ends come and go


def test_boxes_are_tight_around_the_mask(scenes: Synthetic) -> None:
    """The box of a class seen once, and the boxes of one seen several times together, end where its mask ends."""
    for i, sample in enumerate(scenes.samples):
        assert sample.boxes is not None and sample.box_classes is not None
        mask = scenes.mask(i)
        assert set(np.unique(mask)) - {0} == set(sample.box_classes + 1)
        for label in set(sample.box_classes):
            boxes = sample.boxes[sample.box_classes == label]
            rows, columns = np.nonzero(mask == label + 1)
            extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_array_equal([*boxes[:, :2].min(0), *boxes[:, 2:].max(0)], extent)


def test_labels_follow_from_boxes(scenes: Synthetic) -> None:
    for sample in scenes.samples:
        assert sample.box_classes is not None and sample.box_difficult is not None
        for label in range(len(CLASSES)):
            hard = sample.box_difficult[sample.box_classes == label]
            expected = -1 if len(hard) == 0 else (0 if hard.all() else 1)
            assert sample.labels[label] == expected


@pytest.mark.slow
def test_difficult_are_the_hidden_ones() -> None:
    data = synthetic("train", count=300, size=32)
    difficult = np.concatenate([s.box_difficult for s in data.samples if s.box_difficult is not None])
    assert 0 < difficult.sum() < 0.05 * len(difficult)
    assert DIFFICULT_BELOW == 0.25
    for i in (i for i, s in enumerate(data.samples) if s.box_difficult is not None and s.box_difficult.any()):
        sample = data.samples[i]
        assert sample.boxes is not None and sample.box_classes is not None and sample.box_difficult is not None
        assert len(sample.boxes) > 1  # something in front hides it


def test_distribution(scenes: Synthetic) -> None:
    counts = np.array([len(s.boxes) for s in scenes.samples if s.boxes is not None])
    assert set(counts) == {1, 2, 3, 4}
    assert (np.bincount(counts)[1:] / len(scenes) > 0.06).all()
    present = (scenes.labels == 1).sum(0)
    assert (present > 0.12 * len(scenes)).all()  # eight classes, about 2.2 objects: each is in about a quarter
    sides = np.concatenate(
        [np.ptp(s.boxes.reshape(-1, 2, 2), axis=1).max(1) for s in scenes.samples if s.boxes is not None]
    )
    assert sides.min() < 0.3 * 128 and sides.max() > 0.5 * 128
    assert np.median(sides) > 0.25 * 128


def test_colour_alone_does_not_decide(scenes: Synthetic) -> None:
    """The mean colours of a class are spread as widely as those of all objects together."""
    colours: dict[int, list[np.ndarray]] = {}
    for i in range(60):
        image, mask = pixels(scenes, i).astype(float), scenes.mask(i)
        for label in set(np.unique(mask)) - {0}:
            colours.setdefault(int(label), []).append(image[mask == label].mean(0))
    overall = np.concatenate([np.array(v) for v in colours.values()]).std(0)
    for values in colours.values():
        assert (np.array(values).std(0) > 0.5 * overall).all()


def test_mask_marks_what_is_painted() -> None:
    """Objects stand out from the ground by contrast: pixels just inside and outside of a mask differ."""
    data = synthetic("train", count=20)
    contrast = []
    for i in range(20):
        image, mask = pixels(data, i).astype(float), data.mask(i) > 0
        edge = mask[:, 4:] & ~mask[:, :-4]  # left rims: 4 pixels apart
        contrast.append(np.abs(image[:, 4:][edge] - image[:, :-4][edge]).sum(1).mean())
    assert min(contrast) > 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "trainval"}, "'trainval'; allowed are train, val, test"),
        ({"split": "train", "count": 0}, "count=0"),
        ({"split": "train", "seed": -1}, "seed=-1"),
        ({"split": "train", "size": 31}, "size=31 is not allowed; it must be 32 to 2048"),
        ({"split": "train", "size": 2049}, "size=2049"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(WildcatError, match=message):
        synthetic(**arguments)


def test_the_spec_opens_the_same_data_set() -> None:
    assert synthetic("val").spec == "synthetic"
    data = synthetic("test", count=4, seed=3, size=48)
    again = open_dataset(data.spec, "test")
    assert again.spec == data.spec == "synthetic:count=4,seed=3,size=48"
    np.testing.assert_array_equal(pixels(data, 3), np.asarray(again.image(3)))
