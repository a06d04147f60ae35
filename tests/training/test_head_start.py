"""The fitted head: its scores are those of a linear classifier on averaged features, and a training starts from it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tests.tiny_runs import tiny
from tests.training.runs import weights
from wildcat.cli import main
from wildcat.model import create_model
from wildcat.runs.folder import build_model
from wildcat.runs.held_out import read_held_out
from wildcat.training import launch
from wildcat.training.data import open_training_data
from wildcat.training.distributed import ProcessGroup, create_accelerator
from wildcat.training.features import global_features
from wildcat.training.head_start import LinearHead, calibration, fit_linear_head, fitted_images, set_head
from wildcat.training.launch import train
from wildcat.transfer import class_filters

GROUP = ProcessGroup(create_accelerator())
POOLINGS = {
    "wildcat": 1.7,
    "average": 1.0,
    "max": 1.0,
    "lse": 1.0,
    "top": 1.0,
    "weldon": 2.0,
}


def some_head(classes: int = 3, features: int = 32) -> LinearHead:
    generator = np.random.default_rng(0)
    return LinearHead(generator.normal(size=(classes, features)), generator.normal(size=classes))


def blobs(count: int, classes: int, features: int = 6, seed: int = 0):
    generator = np.random.default_rng(seed)
    truth = np.arange(count) % classes
    x = generator.normal(size=(count, features)) + 2 * np.eye(classes, features)[truth]
    labels = np.where(truth[:, None] == np.arange(classes), 1, -1).astype(np.int8)
    return (x * [1, 5, 0.1, 1, 1, 100] + 3).astype(np.float32), labels


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("num_maps", [1, 3])
def test_scores_of_even_features_are_those_of_the_classifier(pooling: str, num_maps: int) -> None:
    model = create_model("timm:test_resnet", num_classes=3, num_maps=num_maps, pooling=pooling, pretrained=False)
    depth = model.backbone.channels
    head, features = some_head(features=depth), torch.rand(2, depth)
    before = model.transfer.weight.detach().clone()
    set_head(model, head)
    even = features[:, :, None, None].expand(-1, -1, 5, 5)
    maps = model.transfer(even).unflatten(1, (3, num_maps)).mean(dim=2)
    np.testing.assert_allclose(model.pooling(maps).detach(), head.scores(features.numpy()), atol=1e-4)
    filters, _ = class_filters(model.transfer)
    np.testing.assert_allclose(filters.detach(), head.weights / POOLINGS[pooling], atol=1e-5)
    if num_maps > 1:  # the maps of a class differ as they did
        now, old = (w.flatten(1).unflatten(0, (3, num_maps)) for w in (model.transfer.weight.detach(), before))
        np.testing.assert_allclose(now[:, 0] - now[:, 1], old[:, 0] - old[:, 1], atol=1e-6)


@pytest.mark.parametrize("architecture", ["a", "b"])
def test_with_average_pooling_images_have_the_scores_of_the_classifier(architecture) -> None:
    settings = {"pooling": "average", "num_maps": 1, "architecture": architecture}
    model = create_model("timm:test_resnet", num_classes=3, pretrained=False, **settings).eval()
    head, images = some_head(features=model.backbone.channels), torch.rand(2, 3, 64, 64)
    set_head(model, head)
    with torch.no_grad():
        features = model.backbone(images).mean(dim=(2, 3)).numpy()
        np.testing.assert_allclose(model(images).scores, head.scores(features), atol=1e-4)


def test_a_background_class_keeps_its_random_filters() -> None:
    model = create_model("timm:test_resnet", num_classes=4, num_maps=2, pretrained=False)
    before = model.transfer.weight[6:].detach().clone(), model.transfer.bias[6:].detach().clone()
    set_head(model, some_head(features=model.backbone.channels))
    assert torch.equal(model.transfer.weight[6:], before[0]) and torch.equal(model.transfer.bias[6:], before[1])


@pytest.mark.parametrize("classes", [2, 3])
def test_one_label_each_as_scikit_learn(classes: int) -> None:
    features, labels = blobs(40, classes)
    head = fit_linear_head(features, labels, multi_label=False)
    known = features.astype(np.float64), labels.argmax(axis=1)
    spread = known[0].std(axis=0)  # of all features together: few images say little about each
    model = LogisticRegression(C=100 / (spread**2).sum(), solver="newton-cg", max_iter=1000, tol=1e-8).fit(*known)
    scores = head.scores(features)
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, model.predict_proba(known[0]), atol=1e-4)


def test_a_class_that_no_image_has_is_not_predicted() -> None:
    features, labels = blobs(40, 3)
    labels = np.insert(labels, 1, -1, axis=1)
    for multi_label in (False, True):
        scores = fit_linear_head(features, labels, multi_label=multi_label).scores(features)
        assert np.isfinite(scores).all() and (scores.argmax(axis=1) != 1).mean() > 0.9


@pytest.mark.parametrize("labels", [[[1], [1]], [[-1], [-1]], [[1], [-1]], [[0], [1]]])
@pytest.mark.parametrize("multi_label", [False, True])
def test_as_few_images_as_there_can_be(labels: list, multi_label: bool) -> None:
    head = fit_linear_head(np.eye(2, dtype=np.float32), np.array(labels, np.int8), multi_label=multi_label)
    assert np.isfinite(head.weights).all() and np.isfinite(head.bias).all()


def test_calibrated_scores_are_logits() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(4000, 3)) * 2 + [-2, 0, 1]
    labels = np.where(generator.random(logits.shape) < 1 / (1 + np.exp(-logits)), 1, -1).astype(np.int8)
    scale, shift = calibration(logits / 7 + [1, 2, 3], labels)
    np.testing.assert_allclose(scale * (logits / 7 + [1, 2, 3]) + shift, logits, atol=0.5)
    labels[:, 0] = 0  # not counted
    other, _ = calibration(logits / 7 + [1, 2, 3], labels)
    assert other == pytest.approx(scale, rel=0.1)


def test_the_fitted_images_keep_those_of_rare_classes() -> None:
    labels = np.full((1000, 3), -1, np.int8)
    labels[:, 0] = 1
    labels[::200, 1] = 1  # 5 images
    chosen = fitted_images(labels, seed=0, limit=100)
    assert len(chosen) == len(set(chosen)) == 100 and chosen == sorted(chosen) and (labels[chosen, 1] == 1).sum() == 5
    assert fitted_images(labels, seed=1, limit=100) != chosen == fitted_images(labels, seed=0, limit=100)
    assert fitted_images(labels, seed=0, limit=1000) == list(range(1000))


# Runs

START = {"fit_head": True, "drop_last": False, "data": "synthetic:count=10,size=64", "epochs": 1}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny(**START, held_out_images=5), tmp_path_factory.mktemp("started") / "run")


@pytest.mark.slow
def test_a_training_starts_from_the_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(**START)
    seen = {}
    real = launch.create_strategy

    def spy(accelerator, group, model, config):
        seen.update({name: value.clone() for name, value in model.state_dict().items()})
        return real(accelerator, group, model, config)

    monkeypatch.setattr(launch, "create_strategy", spy)
    train(config, tmp_path / "run")
    dataset, _ = open_training_data(config)
    torch.manual_seed(config.seed)
    model = build_model(config, len(dataset.classes), pretrained=False)
    features = global_features(GROUP, model, dataset, config).numpy()
    labels = np.where(dataset.labels == 0, np.int8(1), dataset.labels)
    set_head(model, fit_linear_head(features, labels, multi_label=True))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(seen[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["while the head is fitted", "before the first state"])
def test_a_killed_start_ends_with_the_same_weights(tmp_path: Path, started: Path, killed: str) -> None:
    """A process that is killed leaves config.json, and nothing of the head."""
    folder = tmp_path / "run"
    shutil.copytree(started, folder)
    for file in ("model.safetensors", "state.pt", "state.previous.pt", "held_out.json"):
        (folder / file).unlink(missing_ok=True)
    if killed == "while the head is fitted":
        (folder / "metrics.csv").unlink()
    train(tiny(**START, held_out_images=5), folder, resume=True)
    assert weights(folder) == weights(started)


@pytest.mark.slow
def test_the_head_is_not_fitted_again_when_a_state_is_resumed(
    tmp_path: Path, started: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(started, folder)
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(launch, "start_head", None)
    train(tiny(**START), folder, resume=True)
    assert weights(folder) == weights(started)


@pytest.mark.slow
def test_held_out_images_are_scored_at_the_end(started: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score = read_held_out(started)
    assert score is not None and (score.images, score.available, score.metric) == (5, 10, "mAP")
    assert 0 <= score.low <= score.score <= score.high <= 100
    assert main(["train", "--out", str(started), "--resume"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith(f"trained: {started}: {score}; next: wildcat ")
