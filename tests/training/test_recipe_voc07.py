"""The paper's recipe, on a few images of VOC 2007 and random weights of the true ResNet-101."""

from pathlib import Path

import pytest
import torch

from tests.data import trees
from tests.training.runs import killed, reached, rows, tensors
from wildcat.cli import main
from wildcat.config import TrainConfig, read_recipe
from wildcat.errors import WildcatError
from wildcat.runs.folder import read_run
from wildcat.training.launch import train

pytestmark = pytest.mark.slow


def real_images(real_data: Path, folder: Path, count: int) -> str:
    """Some real images in VOC's layout."""
    theirs = real_data / "voc07-mini" / "VOCdevkit" / "VOC2007"
    ours = folder / "VOCdevkit" / "VOC2007"
    (ours / "ImageSets" / "Main").mkdir(parents=True)
    for part in ("JPEGImages", "Annotations"):
        (ours / part).symlink_to(theirs / part)
    for lists in (theirs / "ImageSets" / "Main").glob("*_trainval.txt"):
        lines = lists.read_text().splitlines()[:count]
        trees.write(ours / "ImageSets" / "Main" / lists.name, "\n".join(lines) + "\n")
    return f"voc07:{folder}"


@pytest.fixture(scope="module")
def devkit(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return real_images(real_data, tmp_path_factory.mktemp("data"), 4)


@pytest.fixture(scope="module")
def torch_home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """Random weights of the true ResNet-101, under the name that torchvision looks for: no hub is needed."""
    from torchvision.models import ResNet101_Weights, resnet101

    home = tmp_path_factory.mktemp("torch")
    (home / "hub" / "checkpoints").mkdir(parents=True)
    torch.manual_seed(3)
    net = resnet101(weights=None)
    torch.save(net.state_dict(), home / "hub" / "checkpoints" / Path(ResNet101_Weights.IMAGENET1K_V1.url).name)
    return home, net


def test_recipe_voc07_trains_a_few_steps_and_resumes(
    devkit: str, torch_home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, net = torch_home
    folder = tmp_path / "run"
    changed = {"image-size": 96, "batch-size": 2, "epochs": 2, "workers": 0, "precision": "fp32"}
    options = [word for name, value in changed.items() for word in (f"--{name}", str(value))]
    arguments = ["--data", devkit, "--train-split", "trainval", "--recipe", "voc07", "--out", folder, *options]
    assert killed(folder, arguments, reached(1, 0), TORCH_HOME=str(home)) == (1, 0)
    config = read_run(folder).config
    assert (config.backbone, config.num_maps, config.kmax, config.alpha) == ("resnet101", 8, 0.2, 0.7)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # a resumed run has its weights
    assert main(["train", "--out", str(folder), "--resume"]) == 0
    assert [row["epoch"] for row in rows(folder)] == ["1", "2"]
    # It started from the file: random weights of another seed would not be similar to these.
    after = tensors(folder)
    layers = [name for name, value in net.named_parameters() if value.ndim == 4]
    similarities = [
        torch.cosine_similarity(after[f"backbone.net.{n}"].flatten(), net.get_parameter(n).flatten(), 0) for n in layers
    ]
    assert max(similarities) > 0.9 and not torch.equal(after["backbone.net.conv1.weight"], net.conv1.weight)


def test_recipe_voc07_takes_a_step_at_its_own_size(
    real_data: Path, torch_home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(torch_home[0]))
    # The recipe with two images per step, without the measurement of bf16 and without workers.
    short = ["--epochs", "1", "--batch-size", "2", "--precision", "fp32", "--workers", "0"]
    data = real_images(real_data, tmp_path, 2)
    arguments = ["--data", data, "--train-split", "trainval", "--recipe", "voc07", *short]
    assert main(["train", *arguments, "--out", str(tmp_path / "run")]) == 0
    assert read_run(tmp_path / "run").config.image_size == 448
    (row,) = rows(tmp_path / "run")
    assert 0.3 < float(row["train_loss"]) < 3 and float(row["learning_rate"]) == 0.02


def test_recipe_voc07_without_its_weights(devkit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network here")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    config = {"data": devkit, "train_split": "trainval", **read_recipe("voc07")}
    with pytest.raises(WildcatError, match=r"resnet101 could not be downloaded \(no network here\); give a local file"):
        train(TrainConfig(**config), tmp_path / "run")
