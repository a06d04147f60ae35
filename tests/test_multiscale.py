"""Predictions at several sizes, mirrored, and of models of several scales, averaged."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.tiny_runs import ColourModel
from wildcat.losses import probabilities
from wildcat.model import WildcatOutput
from wildcat.multiscale import BatchOutput, ObjectBank, ensemble, fuse_maps, predict_batch
from wildcat.pooling import class_wise_pool


def images(*sizes: int, count: int = 2) -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {size: torch.rand(count, 3, size, size, generator=generator) for size in sizes}


def test_one_map_stays_as_it_is() -> None:
    maps = torch.rand(2, 3, 4, 5)
    assert fuse_maps([maps]) is maps


def test_maps_meet_on_the_finest_grid() -> None:
    coarse = torch.tensor([[[[0.0, 8.0]]]])
    fine = torch.tensor([[[[0.0, 0.0, 0.0, 4.0]]]])
    # Cell centres of the coarse map lie at 1 and 3 of 4: between them the value rises by 4 a cell.
    assert fuse_maps([fine, coarse]).tolist() == [[[[0.0, 1.0, 3.0, 6.0]]]]
    assert torch.equal(fuse_maps([coarse, fine]), fuse_maps([fine, coarse]))


def test_equal_grids_are_averaged() -> None:
    a, b = torch.rand(2, 1, 2, 3, 3)
    assert torch.allclose(fuse_maps([a, b]), (a + b) / 2)


def test_scores_and_maps_come_from_their_own_sizes() -> None:
    model, batches = ColourModel(), images(64, 96, 128)
    output = predict_batch(model, batches, [64, 96], [128])
    expected = (model(batches[64]).scores.sigmoid() + model(batches[96]).scores.sigmoid()) / 2
    assert torch.allclose(output.probabilities, expected)
    assert torch.equal(output.class_maps, model(batches[128]).class_maps)
    assert torch.equal(output.multi_maps, model(batches[128]).multi_maps)


def test_each_size_is_predicted_once() -> None:
    model = ColourModel()
    predict_batch(model, images(64, 96), [64, 96, 64], [96])
    assert sorted(shape[2] for shape in model.batches) == [64, 96]
    model.batches.clear()
    predict_batch(model, images(64), [64], [64], mirror=True)
    assert len(model.batches) == 2


@pytest.mark.parametrize("sizes", [[64], [64, 96]])
def test_a_mirrored_image_has_the_mirrored_prediction(sizes: list[int]) -> None:
    model, batches = ColourModel(), images(64, 96)
    output = predict_batch(model, batches, sizes, sizes, mirror=True)
    once = predict_batch(model, batches, sizes, sizes)  # this model is equivariant to mirroring
    assert torch.allclose(output.class_maps, once.class_maps, atol=1e-6)
    assert torch.allclose(output.multi_maps, once.multi_maps, atol=1e-6)
    mirrored = predict_batch(model, {size: image.flip(3) for size, image in batches.items()}, sizes, sizes, mirror=True)
    assert torch.allclose(mirrored.probabilities, output.probabilities, atol=1e-6)
    assert torch.allclose(mirrored.class_maps.flip(3), output.class_maps, atol=1e-6)
    assert torch.allclose(mirrored.multi_maps.flip(3), output.multi_maps, atol=1e-6)


def test_mirroring_averages_both() -> None:
    class LeftHalf(nn.Module):
        """Its map marks the left cell for any image; its score is the mean of the left half."""

        def forward(self, images: torch.Tensor) -> WildcatOutput:
            maps = torch.tensor([1.0, 0.0]).expand(len(images), 1, 1, 2)
            return WildcatOutput(images[..., : images.shape[3] // 2].mean(dim=(1, 2, 3))[:, None], maps, maps)

    image = torch.zeros(1, 3, 8, 8)
    image[..., :4] = 2
    output = predict_batch(LeftHalf(), {8: image}, [8], [8], mirror=True)
    expected = (1 / (1 + np.exp(-2.0)) + 0.5) / 2
    assert output.probabilities.item() == pytest.approx(expected)
    assert output.class_maps.flatten().tolist() == [0.5, 0.5]


def test_one_class_per_image_is_a_softmax() -> None:
    model, batches = ColourModel(), images(64, 96)
    output = predict_batch(model, batches, [64, 96], [64], multi_label=False)
    expected = (torch.softmax(model(batches[64]).scores, 1) + torch.softmax(model(batches[96]).scores, 1)) / 2
    assert torch.allclose(output.probabilities, expected)
    assert torch.allclose(output.probabilities.sum(dim=1), torch.ones(2))


def output(seed: int, side: int, maps: int = 2, count: int = 3, classes: int = 4) -> BatchOutput:
    generator = torch.Generator().manual_seed(seed)
    multi = torch.rand(count, classes * maps, side, side, generator=generator)
    return BatchOutput(torch.rand(count, classes, generator=generator), class_wise_pool(multi, maps), multi)


def test_models_of_several_scales_are_averaged_on_the_finest_grid() -> None:
    outputs = [output(0, 4), output(1, 6)]
    combined = ensemble(outputs)
    assert torch.allclose(combined.probabilities, (outputs[0].probabilities + outputs[1].probabilities) / 2)
    assert torch.equal(combined.class_maps, fuse_maps([r.class_maps for r in outputs]))
    # The maps of a class of all models stand side by side: their mean is the class map.
    assert combined.multi_maps.shape == (3, 4 * 4, 6, 6)
    assert torch.allclose(class_wise_pool(combined.multi_maps, 4), combined.class_maps, atol=1e-6)
    assert torch.equal(combined.multi_maps[:, 2:4], outputs[1].multi_maps[:, :2])


@pytest.mark.parametrize("multi_label", [True, False])
def test_a_bank_changes_the_probabilities_alone(multi_label: bool) -> None:
    outputs = [output(0, 4), output(1, 6)]
    weights = torch.rand(4, 8, generator=torch.Generator().manual_seed(2)).double()
    bank = ObjectBank(weights, torch.zeros(4).double())
    combined, plain = ensemble(outputs, multi_label=multi_label, bank=bank), ensemble(outputs)
    expected = probabilities(bank.scores([r.probabilities for r in outputs], multi_label), multi_label)
    assert torch.allclose(combined.probabilities, expected.float()) and combined.probabilities.dtype == torch.float32
    assert torch.equal(combined.class_maps, plain.class_maps) and torch.equal(combined.multi_maps, plain.multi_maps)
