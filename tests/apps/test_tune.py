"""Settings found on held-out images with a frozen backbone."""

import math
from pathlib import Path
from typing import Any

import pytest

from tests.data import trees
from wildcat.apps import tune as tuning
from wildcat.cli import main
from wildcat.config import TrainConfig, read_recipe
from wildcat.data import open_dataset
from wildcat.errors import WildcatError
from wildcat.runs.folder import read_run
from wildcat.training import head_scores

IMAGES = {"data": "synthetic:count=16,size=64", "backbone": "timm:test_resnet", "image_size": 64}


def small(cache: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(
        **{
            **IMAGES,
            "pretrained": False,
            "epochs": 1,
            "workers": 0,
            "precision": "fp32",
            "cache_dir": str(cache),
            "frozen": True,
            **changes,
        }
    )


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuning.Tuned:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "KMAX", (1, 0.2))
        patch.setattr(tuning, "RATES", (1.0, 16.0))
        return tuning.tune(small(tmp_path_factory.mktemp("cache")))


@pytest.mark.slow
def test_the_best_of_all_candidates_becomes_a_recipe(tuned: tuning.Tuned, tmp_path: Path) -> None:
    means = [each.score for each in tuned.candidates]
    assert means == sorted(means, reverse=True)
    assert len(means) == 2 * 3 * 2 + 6  # k, alpha, rates; then finer rates, M = 1, log-sum-exp
    assert all(len(each.scores) == 3 for each in tuned.candidates) and tuned.images == 4
    assert {each.config.alpha for each in tuned.candidates} == {0.0, 0.7, 1.0}
    assert {each.config.num_maps for each in tuned.candidates} == {1, 4}
    tuning.write_recipe(tmp_path / "mine.yaml", tuned, "folder:a\nb")
    settings = read_recipe(str(tmp_path / "mine.yaml"))
    best = tuned.best.config
    assert (settings["lr"], settings["kmax"], settings["alpha"], settings["frozen"]) == (
        best.lr,
        best.kmax,
        best.alpha,
        True,
    )
    assert str(tuned).splitlines()[1].lstrip() == str(tuned.best).lstrip()
    with pytest.raises(WildcatError, match="exists"):
        tuning.write_recipe(tmp_path / "mine.yaml", tuned, "folder:a")


@pytest.mark.slow
def test_the_recipe_trains(tuned: tuning.Tuned, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    tuning.write_recipe(recipe, tuned, IMAGES["data"])
    options = [
        "--no-pretrained",
        "--workers",
        "0",
        "--precision",
        "fp32",
        "--epochs",
        "1",
        "--cache-dir",
        str(tmp_path / "cache"),
    ]
    assert (
        main(["train", "--data", IMAGES["data"], "--recipe", str(recipe), "--out", str(tmp_path / "run"), *options])
        == 0
    )
    config = read_run(tmp_path / "run").config
    assert (config.lr, config.alpha, config.frozen) == (tuned.best.config.lr, tuned.best.config.alpha, True)


def test_only_training_images_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The split of the images that judge never holds a test image, whatever the seed."""
    seen: list[str] = []
    real = head_scores.train_heads

    def spy(features: Any, dataset: Any, configs: Any, **options: Any) -> Any:
        seen.extend(sample.name for sample in dataset.samples)
        return real(features, dataset, configs, **options)

    monkeypatch.setattr(head_scores, "train_heads", spy)
    for name, value in {"KMAX": (1,), "ALPHA": (0.7,), "RATES": (1.0,), "FEW_IMAGES": 0}.items():
        monkeypatch.setattr(tuning, name, value)
    found = tuning.tune(small(tmp_path))
    train = {sample.name for sample in open_dataset(IMAGES["data"], "train").samples}
    assert set(seen) <= train and len(set(seen)) == 12
    assert len(found.best.scores) == 1 and "splits" not in str(found)  # one split above FEW_IMAGES


@pytest.mark.slow
def test_with_one_label_each_a_fitted_start_is_tried_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for label, colour in {"a": (250, 0, 0), "b": (0, 0, 250)}.items():
        for number in range(6):
            trees.image(tmp_path / "data" / label / f"{number}.png", colour=colour)
    for name, value in {
        "KMAX": (1,),
        "ALPHA": (0.7,),
        "RATES": (1.0,),
        "FITTED_RATES": (1.0,),
        "FEW_IMAGES": 0,
    }.items():
        monkeypatch.setattr(tuning, name, value)
    found = tuning.tune(small(tmp_path / "cache", data=f"folder:{tmp_path / 'data'}", train_split="all"))
    assert {each.config.fit_head for each in found.candidates} == {True, False} and found.metric == "accuracy"
    assert found.best.score == 100.0
    assert "starts from a fitted classifier" in " ".join(map(str, found.candidates))


def test_a_candidate_that_diverged_is_the_last() -> None:
    bad = tuning.Candidate(small(Path("x"), lr=1.0, kmax=1, alpha=0.0), (90.0, math.nan))
    assert bad.score == -math.inf and str(bad).startswith("diverged  k 1, alpha 0, M 4, learning rate 1, 1 epochs")


def test_a_file_that_exists_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("lr: 1\n")
    assert main(["tune", "--data", "synthetic", "--out", str(file)]) == 2
    assert "mine.yaml exists; give the name of a new file" in capsys.readouterr().err
    assert main(["tune", "--data", "synthetic:count=3,size=64", "--out", str(tmp_path / "new.yaml")]) == 2
    assert "tuning needs at least 4" in capsys.readouterr().err
