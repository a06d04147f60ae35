"""Class-wise pooling in real trainings: what M maps learn under the mean, and runs with other kinds."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

import wildcat
from tests.tiny_runs import tiny
from tests.training.runs import stopped, tensors, weights
from wildcat.class_pooling import class_wise_pool
from wildcat.config import TrainConfig
from wildcat.runs.folder import build_model, read_run
from wildcat.training.launch import train

DROPPING = {"class_pooling": "lse", "map_dropout": 0.5, "num_maps": 4}


def initial_filters(config: TrainConfig, classes: int) -> Tensor:
    """The filters (C, M, D) with which a training with these settings starts."""
    torch.manual_seed(config.seed)
    return by_class(build_model(config, classes, pretrained=True).transfer.weight.detach(), config)


def by_class(weight: Tensor, config: TrainConfig) -> Tensor:
    return weight.flatten(1).unflatten(0, (-1, config.num_maps))


def change_of_deviations(folder: Path) -> tuple[Tensor, Tensor]:
    """Of each filter of a run, the cosine of its deviation from the mean filter with the initial one: (C, M).

    And of each mean filter, how far it moved, relative to the deviations: (C,).
    """
    run = read_run(folder)
    before = initial_filters(run.config, len(run.classes))
    after = by_class(tensors(folder)["transfer.weight"], run.config)
    deviations = [filters - filters.mean(dim=1, keepdim=True) for filters in (before, after)]
    moved = (after.mean(dim=1) - before.mean(dim=1)).norm(dim=1) / deviations[0].norm(dim=2).mean(dim=1)
    return cosine_similarity(*deviations, dim=2), moved


@pytest.fixture(scope="module")
def dropping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny(**DROPPING), tmp_path_factory.mktemp("dropping") / "run")


@pytest.mark.slow
def test_under_the_mean_the_maps_of_a_class_keep_their_initial_differences(plain: Path, dropping: Path) -> None:
    """Each receives 1 / M of the same gradient at every step: only the mean filter learns, whatever M is."""
    cosines, moved = change_of_deviations(plain)
    assert cosines.min() > 0.999
    assert moved.min() > 0.3
    cosines, moved = change_of_deviations(dropping)  # other kinds teach each map something else
    assert cosines.mean() < 0.99


@pytest.mark.slow
def test_a_run_keeps_its_class_pooling(dropping: Path) -> None:
    predictor = wildcat.load(dropping)
    assert (predictor.model.class_pooling, predictor.model.map_dropout) == ("lse", 0.5)
    image = torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    prediction = predictor(image)
    assert prediction.multi_maps is not None
    expected = class_wise_pool(torch.from_numpy(prediction.multi_maps)[None], 4, "lse")[0]
    torch.testing.assert_close(torch.from_numpy(prediction.class_maps), expected)


@pytest.mark.slow
def test_a_stopped_run_drops_the_same_maps(dropping: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**DROPPING, "save_minutes": 1e-9}
    broken = stopped(tmp_path / "broken", monkeypatch, **settings)
    assert weights(train(tiny(**settings), broken, resume=True)) == weights(dropping)
