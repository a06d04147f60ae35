"""The learning rates of the recipes against the arithmetic of the authors' code; each starts on data of its kind."""

from importlib import resources

import pytest
import torch
from torch import nn

from tests.data import trees
from wildcat.config import TrainConfig, read_recipe, recipe_names
from wildcat.losses import multi_class_loss, multi_label_loss
from wildcat.pooling import class_wise_pool, spatial_pool
from wildcat.runs.folder import read_run
from wildcat.training.launch import train

CLASSES, MAPS, CHANNELS, STEPS = 5, 8, 12, 40


class _MeanWithoutItsGradient(torch.autograd.Function):
    """Class-wise mean over M whose backward pass forgets the 1 / M, as in the authors' code."""

    @staticmethod
    def forward(ctx, maps):
        return maps.unflatten(1, (CLASSES, MAPS)).mean(dim=2)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.repeat_interleave(MAPS, dim=1)


def loss_curve(criterion, scores, head_rate, backbone_rate, head_scale):
    torch.manual_seed(0)
    backbone = nn.Conv2d(3, CHANNELS, 3, padding=1).double()
    head = nn.Conv2d(CHANNELS, CLASSES * MAPS, 1).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(head_scale)
    groups = [{"params": backbone.parameters(), "lr": backbone_rate}, {"params": head.parameters(), "lr": head_rate}]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    images = torch.randn(8, 3, 7, 7, dtype=torch.float64)
    labels = torch.where(torch.rand(8, CLASSES) < 0.3, 1, -1)
    if criterion is multi_class_loss:
        labels = 2 * nn.functional.one_hot(torch.randint(CLASSES, (8,)), CLASSES) - 1
    losses = []
    for _ in range(STEPS):
        loss = criterion(scores(head(backbone(images).relu())), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("name", "head", "backbone"), [("voc07", 0.01, 0.001), ("mit67", 0.001, 0.0001)])
def test_recipes_train_as_the_authors_code_does(name, head, backbone):
    """`head` and `backbone` are the learning rates of the authors' scripts for this dataset."""
    recipe = TrainConfig("synthetic", **read_recipe(name))
    assert recipe.num_maps == MAPS

    def official_scores(maps):
        return spatial_pool(_MeanWithoutItsGradient.apply(maps), recipe.kmax, recipe.kmax, recipe.alpha) / 2

    def our_scores(maps):
        return spatial_pool(class_wise_pool(maps, MAPS), recipe.kmax, recipe.kmin, recipe.alpha)

    criterion = multi_label_loss if name == "voc07" else multi_class_loss
    official = loss_curve(criterion, official_scores, head, backbone, head_scale=1.0)
    # Their score is half of Equation 3's, so the same function has a head of half the size.
    ours = loss_curve(criterion, our_scores, recipe.lr, recipe.lr * recipe.backbone_lr_factor, head_scale=0.5)
    assert ours == pytest.approx(official, rel=1e-9)
    gained = official[0] - official[-1]
    assert gained > 0.001 * official[0]
    uncorrected = loss_curve(criterion, our_scores, head, backbone, head_scale=0.5)
    assert uncorrected[0] - uncorrected[-1] < 0.9 * gained


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_are_valid_and_say_how_to_run_them(name):
    TrainConfig(**{"data": "synthetic", **read_recipe(name)})
    header = (resources.files("wildcat") / "recipes" / f"{name}.yaml").read_text().split("\n\n")[0]
    command = {"quickstart": "quickstart", "voc07-mini-tables": "reproduce", "frozen-tables": "reproduce"}.get(
        name, "train"
    )
    assert header.startswith("#") and f"wildcat {command}" in header


DATA_OF = {"voc07": "voc07", "voc12": "voc12", "action12": "action12", "coco": "coco", "mit67": "mit67"}
DATA_OF |= {"scene15": "scene15", "scene15-mini": "scene15", "coco-mini": "coco", "voc07-mini": "voc07"}


def tree(kind, path):
    """A minimal dataset of the kind; the specification."""
    if kind in ("voc07", "voc12"):
        trees.voc(path, 2007 if kind == "voc07" else 2012)
    elif kind == "action12":
        trees.action(path)
    elif kind == "coco":
        trees.coco(path)
    else:
        lists = [["bar/a.jpg", "zoo/b.jpg", "bar/c.jpg"], ["bar/d.jpg", "zoo/e.jpg"]]
        files = ("TrainImages.txt", "TestImages.txt") if kind == "mit67" else ("train.txt", "test.txt")
        for file, names in zip(files, lists, strict=True):
            trees.write(path / file, "\n".join(names) + "\n")
            for name in names:
                trees.image((path / "Images" if kind == "mit67" else path) / name)
    return f"{kind}:{path}"


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA_OF)
def test_recipes_start_on_their_data(name, tmp_path):
    """As they are, but for a small backbone, small images and one epoch."""
    data = tree(DATA_OF[name], tmp_path / "data")
    small = {"backbone": "timm:test_resnet", "pretrained": False, "freeze_stages": 0, "image_size": 64, "epochs": 1}
    small |= {"batch_size": 2, "workers": 0, "precision": "fp32", "score_sizes": [], "map_sizes": []}
    split = "trainval" if DATA_OF[name].startswith("voc") else "train"
    config = TrainConfig(**{**read_recipe(name), **small, "data": data, "train_split": split})
    found = read_run(train(config, tmp_path / "run"))
    assert found.multi_label == (DATA_OF[name] not in ("mit67", "scene15"))
    assert len(found.classes) == {"voc": 20, "act": 10, "coc": 3, "mit": 2, "sce": 2}[DATA_OF[name][:3]]


def test_every_recipe_of_a_data_set_is_started_above():
    assert set(recipe_names()) - set(DATA_OF) <= {"quickstart", "voc07-mini-tables", "frozen-tables"}
