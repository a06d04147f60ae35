"""The setting fit_maps: the maps of a class show kinds of places, and no score changes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import wildcat
from tests.tiny_runs import tiny
from tests.training.runs import tensors
from wildcat.class_pooling import class_wise_pool
from wildcat.config import TrainConfig
from wildcat.data import open_dataset
from wildcat.errors import WildcatError
from wildcat.model import create_model
from wildcat.training.feature_store import open_feature_store
from wildcat.training.launch import train
from wildcat.training.map_modes import CELLS, collect_places, set_map_modes, strongest_places
from wildcat.transfer import MultiMapTransfer, class_filters


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_strongest_places_are_those_of_images_that_hold_the_class() -> None:
    features, class_maps = random_tensor(4, 3, 4, 5), random_tensor(4, 2, 4, 5, seed=1)
    labels = torch.tensor([[1, -1], [1, 1], [-1, 0], [-1, -1]])
    found = strongest_places(features, class_maps, labels)
    assert [len(each) for each in found] == [4, 2] and round(CELLS * 20) == 2
    for c, images in ((0, [0, 1]), (1, [1])):
        expected = []
        for image in images:
            cells = sorted(np.ndindex(4, 5), key=lambda cell, of=class_maps[image, c]: -float(of[cell]))[:2]
            expected += [features[image, :, row, column].tolist() for row, column in cells]
        assert sorted(found[c].tolist()) == sorted(expected)


def test_each_map_is_highest_at_places_of_its_own_kind_and_the_mean_stays() -> None:
    torch.manual_seed(0)
    transfer = MultiMapTransfer(12, num_classes=3, num_maps=3)
    before = [value.clone() for value in class_filters(transfer)]
    untouched = transfer.weight[6:].clone()
    kinds = 4 * torch.eye(12)[:3] + 1  # (M, D)
    places = kinds.repeat_interleave(40, dim=0) + 0.2 * random_tensor(120, 12)
    set_map_modes(transfer, [places, places[:2]])  # two places are too few for three maps; the third has none
    for after, earlier in zip(class_filters(transfer), before, strict=True):
        torch.testing.assert_close(after, earlier)
    assert torch.equal(transfer.weight[6:], untouched)
    maps = transfer(places[:, :, None, None])[:, :3, 0, 0]  # (P, M) of the first class
    strongest = maps.argmax(dim=1).reshape(3, 40)
    assert (strongest == strongest[:, :1]).all() and len(set(strongest[:, 0].tolist())) == 3


def test_equal_places_leave_the_maps_as_they_are() -> None:
    torch.manual_seed(0)
    transfer = MultiMapTransfer(4, 1, 3)
    before = transfer.weight.clone()
    set_map_modes(transfer, [torch.ones(10, 4)])
    assert torch.equal(transfer.weight, before)


@pytest.mark.slow
def test_a_fitted_run_has_the_scores_of_a_run_without(plain: Path, tmp_path: Path) -> None:
    run = train(tiny(fit_maps=True), tmp_path / "run")
    fitted, without = tensors(run), tensors(plain)
    changed = {name for name, value in fitted.items() if not torch.equal(value, without[name])}
    assert changed <= {"transfer.weight", "transfer.bias"} and "transfer.weight" in changed
    image = (255 * torch.rand(80, 60, 3, generator=torch.Generator().manual_seed(0))).to(torch.uint8).numpy()
    one, other = wildcat.load(run)(image), wildcat.load(plain)(image)
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    np.testing.assert_allclose(one.class_maps, other.class_maps, atol=1e-4)
    assert one.multi_maps is not None and other.multi_maps is not None
    assert np.abs(one.multi_maps - other.multi_maps).max() > 0.05
    pooled = class_wise_pool(torch.from_numpy(one.multi_maps)[None], 2)[0].numpy()
    np.testing.assert_allclose(pooled, one.class_maps, atol=1e-4)


def test_places_from_files_and_from_images_are_the_same(tmp_path: Path) -> None:
    dataset = open_dataset("synthetic:count=10,size=64", "train")
    torch.manual_seed(0)
    model = create_model("timm:test_resnet", num_classes=9, num_maps=2, pretrained=False).eval()  # with a background
    config = TrainConfig("synthetic", image_size=64, cache_dir=str(tmp_path), precision="fp32")
    store = open_feature_store(dataset, model, config, views=1)
    direct, read = collect_places(model, dataset, config), collect_places(model, dataset, config, store)
    assert len(direct) == 8 and sum(map(len, direct)) >= 10
    for one, other in zip(direct, read, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_it_needs_the_mean() -> None:
    with pytest.raises(WildcatError, match=r"fit_maps needs class_pooling mean.*; got lse"):
        tiny(fit_maps=True, class_pooling="lse")
