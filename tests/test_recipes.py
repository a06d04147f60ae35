"""The learning rates of the recipes against the arithmetic of the authors' code."""

from importlib import resources

import pytest
import torch
from torch import nn

from wildcat.config import TrainConfig, read_recipe, recipe_names
from wildcat.losses import multi_label_loss
from wildcat.pooling import class_wise_pool, spatial_pool

CLASSES, MAPS, CHANNELS, STEPS = 5, 8, 12, 40


class _MeanWithoutItsGradient(torch.autograd.Function):
    """Class-wise mean over M whose backward pass forgets the 1 / M, as in the authors' code."""

    @staticmethod
    def forward(ctx, maps):
        return maps.unflatten(1, (CLASSES, MAPS)).mean(dim=2)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.repeat_interleave(MAPS, dim=1)


def official_scores(maps):
    return spatial_pool(_MeanWithoutItsGradient.apply(maps), 0.2, 0.2, 0.7) / 2


def our_scores(maps):
    return spatial_pool(class_wise_pool(maps, MAPS), 0.2, 0.2, 0.7)


def loss_curve(scores, head_rate, trunk_rate, head_scale):
    torch.manual_seed(0)
    trunk = nn.Conv2d(3, CHANNELS, 3, padding=1).double()
    head = nn.Conv2d(CHANNELS, CLASSES * MAPS, 1).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(head_scale)
    groups = [{"params": trunk.parameters(), "lr": trunk_rate}, {"params": head.parameters(), "lr": head_rate}]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    images = torch.randn(8, 3, 7, 7, dtype=torch.float64)
    labels = torch.where(torch.rand(8, CLASSES) < 0.3, 1, -1)
    losses = []
    for _ in range(STEPS):
        loss = multi_label_loss(scores(head(trunk(images).relu())), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_voc07_trains_as_the_authors_code_does():
    recipe = TrainConfig(**read_recipe("voc07"))
    assert recipe.num_maps == MAPS
    official = loss_curve(official_scores, 0.01, 0.001, head_scale=1.0)
    # Their score is half of Equation 3's, so the same function has a head of half the size.
    ours = loss_curve(our_scores, recipe.lr, recipe.lr * recipe.backbone_lr_factor, head_scale=0.5)
    assert ours == pytest.approx(official, rel=1e-9)
    assert official[-1] < 0.97 * official[0]
    uncorrected = loss_curve(our_scores, 0.01, 0.001, head_scale=0.5)
    assert uncorrected[-1] > 1.01 * official[-1]


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_are_valid_and_say_how_to_run_them(name):
    TrainConfig(**{"data": "synthetic", **read_recipe(name)})
    header = (resources.files("wildcat") / "recipes" / f"{name}.yaml").read_text().split("\n\n")[0]
    command = {"quickstart": "quickstart", "voc07-mini-tables": "reproduce"}.get(name, "train")
    assert header.startswith("#") and f"wildcat {command}" in header
