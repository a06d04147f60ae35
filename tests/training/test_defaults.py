"""The automatic settings: what they are by the data, that given settings win, and that they are said and saved."""

import dataclasses

import pytest

from wildcat.config import AUTOMATIC_SETTINGS, FORMER_DEFAULTS, TrainConfig, read_recipe, recipe_names, saved_settings
from wildcat.training.defaults import describe_defaults, resolve_defaults, steps_per_epoch

GIVEN = {
    "epochs": 3,
    "lr": 0.7,
    "backbone_lr_factor": 0.3,
    "kmax": 2,
    "alpha": 0.5,
    "freeze_stages": 1,
    "freeze_batch_norm": False,
    "freeze_depthwise": False,
    "fit_head": False,
    "drop_last": True,
}


def resolved(images: int = 24, multi_label: bool = False, stages: int = 8, **settings) -> dict:
    config = resolve_defaults(TrainConfig("synthetic", **settings), images, multi_label, stages)
    return {name: getattr(config, name) for name in AUTOMATIC_SETTINGS}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"images": 24}, {"lr": 0.00024, "kmax": 0.4, "alpha": 1.0, "fit_head": True, "freeze_batch_norm": True}),
        ({"images": 24, "multi_label": True}, {"lr": 0.05, "kmax": 0.2, "alpha": 0.7, "fit_head": True}),
        ({"images": 24, "pooling": "max"}, {"kmax": 0.2, "alpha": 0.7}),
        ({"images": 5000}, {"freeze_stages": 5, "freeze_depthwise": True, "freeze_batch_norm": True}),
        ({"images": 5001}, {"freeze_stages": 0, "freeze_depthwise": False, "freeze_batch_norm": True}),
        ({"stages": 5}, {"freeze_stages": 3}),
        ({"stages": 1}, {"freeze_stages": 0}),
        # What has learned nothing is not frozen, and gives no features.
        ({"pretrained": False}, {"fit_head": False, "freeze_batch_norm": False, "freeze_stages": 0}),
        ({"backbone": "my-net"}, {"fit_head": False, "freeze_batch_norm": False, "freeze_depthwise": False}),
        ({"backbone": "my-net", "weights": "mine.pth"}, {"fit_head": True, "freeze_batch_norm": True}),
        ({"pretrained": False, "weights": "mine.pth"}, {"fit_head": True}),
        ({"solver": "svm", "pooling": "average", "num_maps": 1}, {"fit_head": False}),
        # Features that are computed once: nothing of the backbone is trained, and a step of the head is cheap.
        ({"images": 2000, "frozen": True, "multi_label": True}, {"lr": 0.4, "epochs": 6, "fit_head": False}),
        ({"images": 100, "frozen": True, "multi_label": True}, {"epochs": 43, "freeze_stages": -1}),
        ({"images": 2000, "frozen": True}, {"lr": 0.01, "fit_head": True, "freeze_stages": -1}),
        ({"frozen": True, "stages": None, "freeze_stages": 3}, {"freeze_stages": -1, "freeze_batch_norm": True}),
    ],
)
def test_choices(data: dict, expected: dict) -> None:
    found = resolved(**data)
    assert {name: found[name] for name in expected} == expected
    assert None not in found.values()


@pytest.mark.parametrize("images", [2, 17, 24, 300, 100_000])
@pytest.mark.parametrize("fit_head", [True, False])
def test_few_images_get_more_epochs(images: int, fit_head: bool) -> None:
    config = resolve_defaults(TrainConfig("synthetic", fit_head=fit_head), images, False, 8)
    steps = config.epochs * steps_per_epoch(config, images)
    assert config.epochs >= (4 if fit_head else 10) and steps >= (40 if fit_head else 150)
    assert config.epochs in (4, 10) or steps - steps_per_epoch(config, images) < (40 if fit_head else 150)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("name", AUTOMATIC_SETTINGS)
def test_a_given_setting_is_kept(name: str, multi_label: bool) -> None:
    assert set(GIVEN) == set(AUTOMATIC_SETTINGS)
    assert resolved(multi_label=multi_label, **{name: GIVEN[name]})[name] == GIVEN[name]


def test_resolving_twice_changes_nothing() -> None:
    once = resolve_defaults(TrainConfig("synthetic"), 24, False)
    assert once.freeze_stages is None
    whole = resolve_defaults(once, 24, False, 8)
    assert whole == resolve_defaults(whole, 99_999, True, 4) == dataclasses.replace(once, freeze_stages=5)


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_leave_nothing_to_be_chosen(name: str) -> None:
    recipe = TrainConfig(**{"data": "synthetic", **read_recipe(name)})
    assert resolve_defaults(recipe, 24, False, 8) == recipe and recipe.drop_last and not recipe.fit_head


def test_saved_settings_of_earlier_versions_are_as_they_were() -> None:
    """A config.json of before this version has no fit_head and no drop_last."""
    values = {name: value for name, value in FORMER_DEFAULTS.items() if name not in ("fit_head", "drop_last")}
    config = saved_settings({"data": "synthetic", **values}, "config.json")
    assert (config.fit_head, config.drop_last) == (False, True)
    assert resolve_defaults(config, 24, False, 8) == config


@pytest.mark.parametrize(
    ("settings", "words", "missing"),
    [
        ({}, ["24 images, one label each: BatchNorm", "40 steps", "head fitted", "learning rate 0.00024"], ["random"]),
        ({"lr": 0.3, "epochs": 2}, ["BatchNorm"], ["rate", "steps"]),
        ({"pretrained": False}, ["random head"], ["frozen", "fitted on"]),
        (GIVEN, ["every setting was given"], ["rate"]),
    ],
)
def test_the_choices_are_said_in_one_line(settings: dict, words: list[str], missing: list[str]) -> None:
    requested = TrainConfig("synthetic", **settings)
    line = describe_defaults(requested, resolve_defaults(requested, 24, False, 8), 24, False, 8)
    assert "\n" not in line and all(word in line for word in words) and not any(word in line for word in missing)
