"""Many heads on frozen features: each as a training of its own, scored as a run of its own."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import wildcat
from tests.tiny_runs import tiny
from wildcat.config import TrainConfig
from wildcat.data import Dataset, open_dataset
from wildcat.pooling import register_pooling
from wildcat.runs.folder import build_model
from wildcat.training import many_heads
from wildcat.training.data import EvalDataset, open_training_data
from wildcat.training.head_scores import HeadPredictions, boxes_of, image_sizes, predict_heads
from wildcat.training.head_start import scale_initial_weights
from wildcat.training.launch import train
from wildcat.training.many_heads import create_head, train_heads

FROZEN: dict[str, Any] = {
    "freeze_stages": -1,
    "freeze_batch_norm": True,
    "data": "synthetic:count=10,size=64",
    "kmax": 1,
    "alpha": 1.0,
}
HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "zero": {"initial_scale": 0.0, "num_maps": 1, "lr": 1.0},
    "schedule": {"kmax": 2, "alpha": 0.5, "schedule": "step", "step_epochs": 1, "warmup_epochs": 1.0, "lr": 0.5},
    "decay": {"pooling": "lse", "initial_scale": 4.0, "weight_decay": 0.1, "momentum": 0.5},
    "b": {"architecture": "b", "num_maps": 1, "pooling": "average"},
    "own": {"pooling": "learned", "num_maps": 3},
    "background": {"background_class": True},
    "max": {"class_pooling": "max", "num_maps": 3, "kmax": 2},
    "lse": {"class_pooling": "lse", "num_maps": 4, "map_dropout": 0.5},
    "fitted": {"fit_head": True, "initial_scale": 2.0},
}


class LearnedPool(nn.Module):
    """A pooling with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))  # not random: the backbone here is

    def forward(self, class_maps: Tensor) -> Tensor:
        return self.weight * class_maps.mean(dim=(2, 3))


class InMemory:
    """The features of images, and of the mirrored ones."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.shape = values, tuple(values.shape)

    def read(self, images: Sequence[int], view: int = 0) -> Tensor:
        return self.values[list(images), view]

    def subset(self, images: Sequence[int]) -> "InMemory":
        return InMemory(self.values[list(images)])

    def average(self) -> Tensor:
        return self.values[:, 0].mean(dim=(2, 3))


def features_of(dataset: Dataset, config: TrainConfig) -> InMemory:
    torch.manual_seed(config.seed)
    model = build_model(config, len(dataset.classes), pretrained=True).eval()
    images = torch.stack([pixels for pixels, _ in EvalDataset(dataset, config.image_size)]).permute(0, 3, 1, 2)
    with torch.no_grad():
        views = [model.backbone(model.normalize(each)) for each in (images, images.flip(3))]
    return InMemory(torch.stack(views, dim=1))


@pytest.fixture(scope="module")
def configs() -> dict[str, TrainConfig]:
    register_pooling("learned", lambda kmax, kmin, alpha: LearnedPool())
    return {name: tiny(**{**FROZEN, **changes}) for name, changes in HEADS.items()}


@pytest.fixture(scope="module")
def found(configs: dict[str, TrainConfig]) -> dict[str, many_heads.Head]:
    """All heads of one call, in blocks of few filters."""
    dataset, _ = open_training_data(configs["plain"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many_heads, "MAX_FILTERS", 3 * len(dataset.classes))
        heads = train_heads(features_of(dataset, configs["plain"]), dataset, [*configs.values()])
    return dict(zip(configs, heads, strict=True))


@pytest.fixture(scope="module")
def run_of(configs: dict[str, TrainConfig], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The oracle: a training of its own on images, once for each head."""
    folder = tmp_path_factory.mktemp("runs")

    def run(name: str) -> Path:
        return train(configs[name], folder / name, resume=True)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADS)
def test_each_head_is_the_one_of_a_training_of_its_own(
    name: str, configs: dict[str, TrainConfig], found: dict[str, many_heads.Head], run_of: Callable[[str], Path]
) -> None:
    """Backbone, batches, mirrored images, loss, momentum, decay and schedule are those of the product."""
    weights = load_file(run_of(name) / "model.safetensors")
    head = found[name]
    torch.testing.assert_close(head.transfer.weight.data, weights["transfer.weight"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.transfer.bias.data, weights["transfer.bias"], rtol=1e-4, atol=1e-5)
    classes = head.transfer.num_classes - configs[name].background_class
    start = create_head(configs[name], head.transfer.in_channels, classes)
    assert not torch.allclose(start.transfer.weight, head.transfer.weight, rtol=1e-2)  # it has learned
    if name == "own":
        torch.testing.assert_close(head.pooling.weight.data, weights["pooling.weight"], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["b", "background", "lse"])
def test_scores_and_points_are_those_of_evaluate(
    name: str, configs: dict[str, TrainConfig], found: dict[str, many_heads.Head], run_of: Callable[[str], Path]
) -> None:
    predictor = wildcat.load(run_of(name))
    results = wildcat.evaluate(predictor, configs[name].data)
    test = open_dataset(configs[name].data, "test")
    features = features_of(test, configs[name])
    alone, _ = predict_heads(features, test, [found[name], found["zero"]], batch_size=3)
    scores = alone.scores(test, image_sizes(test))
    assert scores.classification is not None and scores.pointing is not None
    assert scores.classification.map_area == pytest.approx(results.classification.map_area, abs=1e-6)
    assert scores.pointing.map == pytest.approx(results.pointing.map, abs=1e-6)
    assert scores.pointing.accuracy == pytest.approx(results.pointing.accuracy, abs=1e-6)
    prediction = predictor(test.image(4))
    np.testing.assert_allclose(alone.probabilities[4], prediction.probabilities, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(alone.points(image_sizes(test))[4], prediction.point_array)


def test_a_head_that_diverges_leaves_the_others_as_they_are() -> None:
    config = tiny(**FROZEN, initial_scale=0.0)
    dataset = open_dataset(config.data, "train")
    features = InMemory(torch.rand(len(dataset), 1, 6, 2, 2))
    wild = tiny(**FROZEN, initial_scale=0.0, lr=1e38, weight_decay=1e4)
    (alone,) = train_heads(features, dataset, [config])
    bad, beside = train_heads(features, dataset, [wild, config])
    assert bad.diverged and not beside.diverged
    torch.testing.assert_close(beside.transfer.weight, alone.transfer.weight)


def test_points_are_cells_of_the_original_image() -> None:
    predictions = HeadPredictions(np.zeros((1, 2), np.float32), np.array([[[0, 1], [1, 0]]]), (2, 2))
    assert predictions.points([(40, 20)]).tolist() == [[[30.0, 5.0], [10.0, 15.0]]]


def test_images_without_boxes_have_none() -> None:
    dataset = open_dataset("synthetic:count=2,size=64", "train")
    boxes, classes, difficult = boxes_of(dataset)
    assert len(boxes) == len(classes) == len(difficult) == 2 and boxes[0].shape[1] == 4


def test_initial_weights_are_scaled() -> None:
    config = tiny(**FROZEN)
    torch.manual_seed(config.seed)
    random = build_model(config, 3, pretrained=False).transfer
    for scale in (0.0, 0.5, 8.0):
        head = create_head(tiny(**FROZEN, initial_scale=scale), random.in_channels, 3)
        assert torch.equal(head.transfer.weight, scale * random.weight)
        assert torch.equal(head.transfer.bias, scale * random.bias)
    scale_initial_weights(random, 0.0)
    assert not random.weight.any()
