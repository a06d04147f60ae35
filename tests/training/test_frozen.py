"""The setting frozen: a head that is trained on features in files is the one that images give."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data import trees
from tests.tiny_runs import tiny
from tests.training.runs import rows, stopped, tensors, untimed
from wildcat.config import TrainConfig
from wildcat.data import open_dataset
from wildcat.errors import WildcatError
from wildcat.model import Wildcat, create_model
from wildcat.prediction.items import dataset_items
from wildcat.prediction.loading import load
from wildcat.runs.folder import read_run
from wildcat.runs.held_out import read_held_out
from wildcat.training import feature_store
from wildcat.training.feature_network import feature_network
from wildcat.training.feature_store import FeatureStore, open_feature_store
from wildcat.training.launch import train
from wildcat.training.multiscale import train_scales
from wildcat.training.setup import with_precision

HEAD_ALONE: dict[str, Any] = {"freeze_stages": -1, "freeze_batch_norm": True, "freeze_depthwise": True}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def frozen(cache: Path, **changes: Any) -> TrainConfig:
    return tiny(**{"frozen": True, "cache_dir": str(cache), **changes})


@pytest.fixture(scope="module")
def small() -> Wildcat:
    torch.manual_seed(0)
    return create_model("timm:test_resnet", num_classes=3, pretrained=False)


def values_file(cache: Path, name: str = "image") -> Path:
    (file,) = cache.rglob(f"{name}.values")
    return file


# Training


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"feature_views": 2, "val_fraction": 0.25},
        {
            "data": "folder",
            "drop_last": False,
            "accumulate": 2,
            "pooling": "max",
            "architecture": "b",
            "num_maps": 1,
        },
    ],
    ids=["several labels, mirrored, validation", "one label, parts of batches"],
)
def test_weights_are_those_of_a_training_on_images(settings: dict[str, Any], tmp_path: Path) -> None:
    if settings.get("data") == "folder":
        for label, colour in {"a": (250, 0, 0), "b": (0, 250, 0)}.items():
            for number in range(5):
                trees.image(tmp_path / "data" / label / f"{number}.png", colour=colour)
        settings = settings | {"data": f"folder:{tmp_path / 'data'}", "train_split": "all"}
        settings |= {"crop_area": 1.0, "feature_views": 2}
    on_images = train(tiny(**HEAD_ALONE, **settings), tmp_path / "images")
    on_features = train(frozen(tmp_path / "cache", **settings), tmp_path / "features")
    for name, value in tensors(on_images).items():
        torch.testing.assert_close(tensors(on_features)[name], value, rtol=1e-5, atol=1e-6, msg=name)
    for row, expected in zip(untimed(on_features), untimed(on_images), strict=True):
        assert {k: float(v) for k, v in row.items()} == pytest.approx(
            {k: float(v) for k, v in expected.items()}, abs=1e-4
        )


@pytest.mark.slow
def test_scores_from_features_in_bf16(cache: Path, tmp_path: Path) -> None:
    settings = {"held_out_images": 8, "mirror": True, "score_sizes": [64, 96], "epochs": 3}
    exact = train(frozen(cache, **settings), tmp_path / "fp32")
    rounded = train(frozen(cache, **settings, precision="auto"), tmp_path / "bf16")
    assert read_run(rounded).config.precision == "bf16"
    dataset = open_dataset(tiny().data, "test")
    scores = [
        np.stack([p.probabilities for p in load(run).stream(dataset_items(dataset), maps=False)])
        for run in (exact, rounded)
    ]
    np.testing.assert_allclose(*scores, atol=1e-3)
    assert scores[0].std(axis=0).min() > 1e-3  # not the same for all images
    # The score at the end of the training comes from features too.
    order = np.random.default_rng(0).permutation(len(dataset))[:8]
    labels = dataset.labels[np.sort(order)]
    expected = 100 * wildcat_map(scores[0][np.sort(order)], labels)
    scored = read_held_out(exact)
    assert scored is not None and scored.images == 8 and scored.score == pytest.approx(expected, abs=1e-6)


def wildcat_map(scores: np.ndarray, labels: np.ndarray) -> float:
    from wildcat.metrics import average_precision

    return float(np.nanmean(average_precision(scores, labels)))


@pytest.mark.slow
def test_a_run_that_was_killed_ends_as_an_uninterrupted_one(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"frozen": True, "cache_dir": str(cache), "feature_views": 2, "save_minutes": 1e-9}
    whole = train(tiny(**settings), tmp_path / "whole")
    broken = stopped(tmp_path / "broken", monkeypatch, **settings)
    train(tiny(**settings | {"cache_dir": str(tmp_path / "empty")}), broken, resume=True)
    assert all(torch.equal(value, tensors(whole)[name]) for name, value in tensors(broken).items())
    assert untimed(broken) == untimed(whole)


@pytest.mark.slow
def test_linear_svms_and_scales_take_the_features(cache: Path, tmp_path: Path) -> None:
    svm = {"solver": "svm", "pooling": "average", "num_maps": 1}
    train(frozen(cache, fit_head=True, epochs=1), tmp_path / "fitted")
    on_features = train(frozen(cache, **svm), tmp_path / "features")
    on_images = train(tiny(**svm), tmp_path / "images")
    for name, value in tensors(on_images).items():
        torch.testing.assert_close(tensors(on_features)[name], value, rtol=1e-4, atol=1e-5)
    assert "cv_map" in rows(on_features)[0]
    scales = train_scales(frozen(cache, epochs=1), [64, 96], tmp_path / "scales")
    assert len(load(scales)(np.zeros((64, 64, 3), np.uint8)).scores) == 8


def test_precision_means_that_of_the_features() -> None:
    config = TrainConfig("synthetic", frozen=True)
    assert with_precision(config, torch.device("cpu")).precision == "bf16"
    assert (config.freeze_stages, config.freeze_batch_norm, config.freeze_depthwise) == (-1, True, True)
    assert (config.image_size, config.score_sizes, TrainConfig("synthetic").image_size) == (448, [448], 320)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shard": True}, "frozen excludes shard"),
        ({"feature_views": 3}, "feature_views 3 includes random crops: it needs a crop_area below 1"),
    ],
)
def test_settings_that_frozen_excludes(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(WildcatError, match=message):
        TrainConfig("synthetic", frozen=True, **settings)


# The store


def test_features_are_those_of_the_backbone_in_each_view(tmp_path: Path, small: Wildcat) -> None:
    dataset = open_dataset("synthetic:count=5,size=64", "train")
    config = frozen(tmp_path, crop_area=0.5, feature_views=4)
    done: list[int] = []
    store = open_feature_store(dataset, small, config, progress=done.append)
    assert store.shape == (5, 4, *store.read([0]).shape[1:]) and sum(done) == 20 and store.missing == 0
    for view in range(4):
        expected = []
        for index in (4, 1):
            key = feature_store.image_keys(dataset)[index]
            pixels = feature_store.view_of(view, key, 0.5).image(dataset.image(index), 64)
            images = small.normalize(torch.from_numpy(pixels)[None].permute(0, 3, 1, 2))
            expected.append(small.backbone(images)[0].detach())
        torch.testing.assert_close(store.read([4, 1], view), torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert not torch.equal(store.read([0], 2), store.read([0], 3))
    torch.testing.assert_close(store.average()[3], store.read([3]).mean(dim=(2, 3))[0])


def test_runs_share_the_features_of_equal_images(tmp_path: Path, small: Wildcat) -> None:
    for number in range(4):
        trees.image(tmp_path / "one" / "a" / f"{number}.png", colour=(60 * number, 9, 9))
    for number in (3, 1, 1):  # in other folders, with other names, one of them twice
        shutil.copy(tmp_path / "one" / "a" / f"{number}.png", tmp_path / f"{number}.png")
        name = f"{len(list((tmp_path / 'two' / 'b').glob('*')))}.png"
        (tmp_path / "two" / "b").mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / f"{number}.png", tmp_path / "two" / "b" / name)
    first, second = (open_dataset(f"folder:{tmp_path / part}", "all") for part in ("one", "two"))
    config = frozen(tmp_path / "cache", precision="bf16")
    new = FeatureStore(second, small, config)
    assert new.missing == 2
    store = open_feature_store(first, small, config)
    shared = FeatureStore(second, small, config)
    assert shared.missing == 0 and torch.equal(shared.read([0, 1, 2]), store.read([3, 1, 1]))
    assert torch.equal(store.subset([3, 1]).read([1]), store.read([1]))
    other = create_model("timm:test_resnet", num_classes=3, pretrained=False)  # of other weights
    assert FeatureStore(first, other, config).missing == 4
    assert FeatureStore(first, small, config, size=96).missing == 4


def test_damaged_features_are_computed_again(tmp_path: Path, small: Wildcat, caplog: pytest.LogCaptureFixture) -> None:
    dataset = open_dataset("synthetic:count=4,size=64", "train")
    before = open_feature_store(dataset, small, frozen(tmp_path)).read(range(4))
    content = bytearray(values_file(tmp_path).read_bytes())
    content[len(content) // 2 + 3] ^= 64
    values_file(tmp_path).write_bytes(content)
    store = FeatureStore(dataset, small, frozen(tmp_path))
    with pytest.raises(WildcatError, match="1 of 4 images have no features in"):
        store.read(range(4))
    assert store.missing == 1 and "features of 1 images in" in caplog.text and "are damaged" in caplog.text
    store.compute()
    assert torch.equal(store.read(range(4)), before)


def test_features_that_were_computed_before_an_interruption_are_kept(
    tmp_path: Path, small: Wildcat, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset("synthetic:count=20,size=64", "train")
    monkeypatch.setattr(feature_store, "_BATCH", 4)

    def interrupt(views: int, done: list[int] = []) -> None:  # noqa: B006
        done.append(views)
        if sum(done) >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_feature_store(dataset, small, frozen(tmp_path), progress=interrupt)
    assert FeatureStore(dataset, small, frozen(tmp_path)).missing == 8


def test_limits_of_the_disk(tmp_path: Path, small: Wildcat, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset("synthetic:count=4,size=64", "train")
    with pytest.raises(WildcatError, match=r"features of 4 images need .* GB in .*: raise cache_dir_gb"):
        open_feature_store(dataset, small, frozen(tmp_path, cache_dir_gb=1e-6))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))
    with pytest.raises(WildcatError, match="where 0 GB are free"):
        open_feature_store(dataset, small, frozen(tmp_path))
    assert not list(tmp_path.rglob("*.values"))


def test_a_backbone_of_one_size(tmp_path: Path) -> None:
    class Picky(torch.nn.Conv2d):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert images.shape[2] in (96, 544), "I take other sizes"
            return super().forward(images)

    model = create_model(Picky(3, 4, 8, 8), num_classes=3)
    dataset = open_dataset("synthetic:count=2,size=64", "train")
    assert open_feature_store(dataset, model, frozen(tmp_path), size=96).shape == (2, 1, 4, 12, 12)
    with pytest.raises(WildcatError, match="custom fails for an image of 64 x 64 pixels: I take other sizes; image"):
        FeatureStore(dataset, model, frozen(tmp_path))


def test_a_damaged_description(tmp_path: Path, small: Wildcat) -> None:
    dataset = open_dataset("synthetic:count=2,size=64", "train")
    open_feature_store(dataset, small, frozen(tmp_path))
    (about,) = tmp_path.rglob("about.json")
    about.write_text('{"format": 1, "shape": [3]}')
    with pytest.raises(WildcatError, match=r"about\.json is damaged: delete the folder"):
        FeatureStore(dataset, small, frozen(tmp_path))


def test_a_second_process_waits(
    tmp_path: Path, small: Wildcat, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first computes the images that both want; the second finds them when it gets the lock."""
    caplog.set_level(logging.INFO)
    dataset = open_dataset("synthetic:count=4,size=64", "train")
    second, first = (FeatureStore(dataset, small, frozen(tmp_path)) for _ in range(2))
    fcntl = pytest.importorskip("fcntl")
    lockf, tries = fcntl.lockf, []

    def held_at_first(stream: Any, how: int) -> None:
        tries.append(how)
        if len(tries) <= 2:
            raise BlockingIOError(11, "held")
        if len(tries) == 3:
            with monkeypatch.context() as other:
                other.setattr(feature_store, "_computing", feature_store.threading.Lock())
                first.compute()
        lockf(stream, how)

    monkeypatch.setattr(fcntl, "lockf", held_at_first)
    monkeypatch.setattr(feature_store, "_WAIT_SECONDS", 0)
    monkeypatch.setattr(feature_store, "feature_network", lambda *a, **k: feature_network(small, 64))
    done: list[int] = []
    second.compute(done.append)
    size = values_file(tmp_path).stat().st_size
    assert done == [4] and size == 4 * np.prod(second.shape[2:]) * 4
    assert caplog.text.count("waiting for features") == 1


@pytest.mark.slow
def test_openvino_computes_the_same(small: Wildcat, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    from wildcat.training import feature_network as module

    monkeypatch.setattr(module, "_faster", lambda in_torch, in_openvino, size: in_openvino)
    network = feature_network(small, 64, images=10**6)
    assert network.__qualname__.startswith("_openvino_network")
    pixels = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    expected = feature_network(small, 64)(pixels)
    torch.testing.assert_close(network(pixels), expected, rtol=1e-3, atol=1e-4)
    monkeypatch.setattr(small.backbone, "name", "of-a-user")
    assert feature_network(small, 64, images=10**6).__qualname__.startswith("_torch_network")
