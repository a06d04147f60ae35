"""The images of training and validation: random numbers, held-out images, and files that cannot be read."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import unusual
from tests.data import trees
from tests.tiny_runs import flags, tiny
from tests.training.runs import rows
from wildcat.cli import main
from wildcat.data import CheckReport, Dataset, Sample
from wildcat.errors import WildcatError
from wildcat.runs.folder import read_run
from wildcat.training import data as loading
from wildcat.training import launch as training
from wildcat.training.data import EpochSampler, ShardedBatchSampler, TrainBatches, TrainDataset
from wildcat.training.launch import train


def test_images_depend_on_seed_epoch_and_index_alone() -> None:
    config = tiny(crop_area=0.3)
    dataset, _ = loading.open_training_data(config)
    images = TrainDataset(dataset, config)
    pixels, labels = images[0, 5]
    assert pixels.shape == (64, 64, 3) and pixels.dtype == torch.uint8
    assert torch.equal(labels, torch.from_numpy(dataset.labels[5]))
    images[3, 1]
    assert torch.equal(images[0, 5][0], pixels)
    assert torch.equal(TrainDataset(dataset, config)[0, 5][0], pixels)
    assert not torch.equal(images[1, 5][0], pixels)


def test_an_epoch_is_a_permutation_and_can_start_at_any_step() -> None:
    sampler = EpochSampler(total=10, used=8, seed=3)
    whole = list(sampler)
    assert len(whole) == len(sampler) == 8 and len({index for _, index in whole}) == 8
    sampler.start = 5
    assert list(sampler) == whole[5:] and len(sampler) == 3
    sampler.epoch, sampler.start = 1, 0
    other = list(sampler)
    assert {epoch for epoch, _ in other} == {1} and [i for _, i in other] != [i for _, i in whole]


@pytest.mark.parametrize(("batch_size", "processes", "accumulate"), [(12, 1, 1), (12, 4, 1), (10, 3, 2), (7, 7, 1)])
def test_the_parts_of_all_processes_are_the_batches_of_one(batch_size: int, processes: int, accumulate: int) -> None:
    steps = 50 // batch_size
    sampler = EpochSampler(total=50, used=steps * batch_size, seed=4)
    sampler.start = batch_size
    whole = list(sampler)
    shares = [list(ShardedBatchSampler(sampler, steps, rank, processes, accumulate)) for rank in range(processes)]
    assert all(len(share) == len(shares[0]) == len(whole) // batch_size * accumulate for share in shares)
    for step in range(len(whole) // batch_size):
        parts = [share[step * accumulate : (step + 1) * accumulate] for share in shares]
        assert [key for rank in parts for part in rank for key in part] == whole[step * batch_size :][:batch_size]
        sizes = [len(part) for rank in parts for part in rank]
        assert max(sizes) - min(sizes) <= 1


def test_a_batch_that_cannot_be_split() -> None:
    with pytest.raises(WildcatError, match=r"a batch of 4 images cannot be split over 3 processes x 2 parts"):
        ShardedBatchSampler(EpochSampler(8, 8, 0), 2, 0, 3, 2)


@pytest.mark.parametrize("images", [2, 15, 16, 17, 31, 33, 100])
@pytest.mark.parametrize("drop_last", [False, True])
def test_an_epoch_has_every_image_once_or_whole_batches(images: int, drop_last: bool) -> None:
    samples = [Sample(str(i), Path(f"{i}.png"), np.array([1, -1], np.int8)) for i in range(images)]
    dataset = Dataset("none", "train", ["a", "b"], samples)
    batches = TrainBatches(dataset, tiny(batch_size=16, drop_last=drop_last), 0, 1, pin_memory=False)
    names = [batches.names(0, step) for step in range(batches.steps)]
    sizes = [len(batch) for batch in names]
    assert sizes == [batches.batch_size(step) for step in range(batches.steps)] and max(sizes) <= 16
    flat = [name for batch in names for name in batch]
    assert len(set(flat)) == len(flat) == sum(sizes) == batches.images
    if drop_last:
        assert set(sizes) == {min(16, images)} and len(flat) == images // min(16, images) * min(16, images)
    else:
        assert len(flat) == images and max(sizes) - min(sizes) <= 1
    assert images == 2 or batches.names(1, 0) != names[0]


@pytest.mark.slow
def test_a_held_out_fraction_is_not_trained_on(tmp_path: Path) -> None:
    config = tiny(val_fraction=0.25)
    dataset, validation = loading.open_training_data(config)
    assert validation is not None
    names = [sample.name for sample in dataset.samples], [sample.name for sample in validation.samples]
    assert len(names[0]) == 18 and len(names[1]) == 6 and not set(names[0]) & set(names[1])
    again, _ = loading.open_training_data(config)
    assert [sample.name for sample in again.samples] == names[0]
    folder = train(config, tmp_path / "run")
    assert read_run(folder).images == 18
    assert all(float(row["val_loss"]) > 0 for row in rows(folder))


def test_bad_images_of_the_validation_split_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="wildcat")
    for split in ("train", "val"):
        for label in "ab":
            for number in range(2):
                trees.image(tmp_path / split / label / f"{number}.png", colour=(40 * number, 90, 30))
    (tmp_path / "val" / "a" / "broken.png").write_text("x")
    config = tiny(data=f"folder:{tmp_path}", train_split="train", val_split="val")
    with pytest.raises(WildcatError, match=r"a/broken\.png"):
        training.open_training_data(config)
    _, validation = training.open_training_data(replace(config, on_bad_image="skip"))
    assert validation is not None and len(validation) == 4
    assert "a/broken.png" in caplog.text


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_image_that_vanishes_during_training_is_named(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in "ab":
        trees.image(tmp_path / "images" / label / "0.png")

    def check_then_remove(dataset, **_: object):
        (tmp_path / "images" / "a" / "0.png").unlink()
        return dataset, CheckReport("checked", len(dataset))

    monkeypatch.setattr(loading, "check_dataset", check_then_remove)
    config = tiny(data=f"folder:{tmp_path / 'images'}", train_split="all", batch_size=2, workers=workers)
    with pytest.raises(WildcatError) as caught:
        train(config, tmp_path / "run")
    assert str(caught.value) == f"{tmp_path / 'images' / 'a' / '0.png'}: no such file"


# Awkward images, through the command line


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class of good images, one of awkward ones, and a CSV of both."""
    folder = tmp_path_factory.mktemp("mixed") / "images"
    unusual.write_all(folder / "awkward")
    for number in range(4):
        trees.image(folder / "plain" / f"{number}.jpg", colour=(50 * number, 80, 160))
    lines = [f"awkward/{name},odd" for name in (*unusual.GOOD, *unusual.BAD)]
    lines += [f"plain/{number}.jpg,plain;calm" for number in range(4)]
    trees.write(folder / "tags.csv", "\n".join(["image,tags", *lines]))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "tags"])
def test_awkward_images(mixed: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = f"folder:{mixed}" if kind == "folder" else f"tags:{mixed / 'tags.csv'}"
    arguments = ["train", "--out", str(tmp_path / "run"), *flags(data=data, train_split="all", epochs=1, workers=1)]

    assert main([*arguments, "--on-bad-image", "error"]) == 2
    message = capsys.readouterr()
    assert "4 images cannot be read" in message.err and "on-bad-image skip" in message.err
    assert all(name in message.err for name in unusual.BAD) and "Traceback" not in message.err
    assert len(message.err.strip().splitlines()) <= 3
    assert not (tmp_path / "run").exists()

    assert main([*arguments, "--on-bad-image", "skip"]) == 0
    message = capsys.readouterr()
    assert all(name in message.err for name in unusual.BAD)
    assert not any(name in message.err for name in unusual.GOOD)
    saved = read_run(tmp_path / "run")
    assert saved.images == len(unusual.GOOD) + 4
    assert saved.classes == (("awkward", "plain") if kind == "folder" else ("calm", "odd", "plain"))

    evaluate = ["evaluate", str(tmp_path / "run"), "--data", data, "--split", "all"]
    assert main(evaluate) == 2
    assert "on-bad-image skip" in capsys.readouterr().err
    assert main([*evaluate, "--on-bad-image", "skip"]) == 0
    message = capsys.readouterr()
    assert all(name in message.err for name in unusual.BAD)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["images"] == saved.images

    images = str(mixed / "awkward")
    assert main(["predict", str(tmp_path / "run"), images, "--out", str(tmp_path / "out")]) == 1
    message = capsys.readouterr()
    assert all(name in message.err for name in unusual.BAD)
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert [Path(json.loads(line)["file"]).name for line in lines] == sorted(unusual.GOOD)
    assert len(list((tmp_path / "out" / "overlay").iterdir())) == len(unusual.GOOD)
