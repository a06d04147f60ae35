"""Settings: rejected values and their messages, recipes, conversion to JSON and back."""

import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wildcat import config as module
from wildcat.config import (
    RESUMABLE_SETTINGS,
    SECTIONS,
    Limits,
    TrainConfig,
    config_from_dict,
    default_settings,
    read_recipe,
    recipe_names,
)
from wildcat.errors import WildcatError
from wildcat.system.files import read_json


def one_line(error: pytest.ExceptionInfo[WildcatError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# Values


def test_every_setting_but_the_data_has_a_default_a_help_text_and_a_section() -> None:
    assert TrainConfig("synthetic").to_dict() == {"data": "synthetic", **default_settings()}
    with pytest.raises(TypeError, match="data"):
        TrainConfig()  # type: ignore[call-arg]
    for field in dataclasses.fields(TrainConfig):
        about = field.metadata["about"]
        assert about.help and about.section in SECTIONS, field.name


def test_settings_that_may_change_when_a_run_is_resumed() -> None:
    machine = {"workers", "cache_gb", "accumulate", "shard", "save_minutes", "stall_minutes", "held_out_images"}
    assert set(RESUMABLE_SETTINGS) == machine | {"cache_dir", "cache_dir_gb"}


@pytest.mark.parametrize(
    ("limits", "allowed", "rejected", "words"),
    [
        (Limits(), [-1e9, 0, 7], [], ""),
        (Limits(above=0), [1e-9, 1], [0, -1], "above 0"),
        (Limits(at_least=0, below=1), [0, 0.999], [-1e-9, 1], "at least 0 and below 1"),
        (Limits(at_most=2), [2, -5], [2.1], "at most 2"),
    ],
)
def test_limits(limits: Limits, allowed: list[float], rejected: list[float], words: str) -> None:
    assert all(map(limits.allow, allowed)) and not any(map(limits.allow, rejected)) and str(limits) == words


def test_sizes_follow_the_training_size_unless_given() -> None:
    config = TrainConfig("synthetic", image_size=96)
    assert (config.score_sizes, config.map_sizes) == ([96], [96])
    chosen = TrainConfig("synthetic", score_sizes=[224, 320])
    assert chosen.map_sizes == [224, 320] and chosen.map_sizes is not chosen.score_sizes
    assert TrainConfig("synthetic", map_sizes=[448]).score_sizes == [320]


def test_lists_are_not_shared_between_settings() -> None:
    TrainConfig("synthetic").score_sizes.append(7)
    assert TrainConfig("synthetic").score_sizes == [320]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0, "epochs must be above 0; got 0"),
        ("image_size", -3, "image_size must be above 0; got -3"),
        ("batch_size", 0, "batch_size must be above 0; got 0"),
        ("num_maps", 0, "num_maps must be above 0; got 0"),
        ("lr", 0.0, "lr must be above 0; got 0.0"),
        ("lr", math.nan, "lr must be a finite number; got nan"),
        ("momentum", -0.1, "momentum must be at least 0; got -0.1"),
        ("weight_decay", -1e-4, "weight_decay must be at least 0; got -0.0001"),
        ("backbone_lr_factor", -1, "backbone_lr_factor must be at least 0; got -1"),
        ("seed", -1, "seed must be at least 0 and below 9223372036854775808; got -1"),
        ("workers", -1, "workers must be at least 0; got -1"),
        ("val_fraction", 1.0, "val_fraction must be at least 0 and below 1; got 1.0"),
        ("crop_area", 0.0, "crop_area must be above 0 and at most 1; got 0.0"),
        ("crop_area", 1.5, "crop_area must be above 0 and at most 1; got 1.5"),
        ("score_sizes", [224, 0], "score_sizes must be above 0; got [224, 0]"),
        # of another type
        ("epochs", "ten", "epochs must be a whole number; got 'ten'"),
        ("epochs", 2.5, "epochs must be a whole number; got 2.5"),
        ("epochs", True, "epochs must be a whole number; got True"),
        ("momentum", None, "momentum must be a number, e.g. 0.01; got None"),
        ("lr", "1e-2", "lr must be a number, e.g. 0.01; got '1e-2'"),  # how YAML reads 1e-2
        ("pretrained", 1, "pretrained must be true or false; got 1"),
        ("pretrained", "yes", "pretrained must be true or false; got 'yes'"),
        ("data", 3, "data must be text; got 3"),
        ("val_split", 3, "val_split must be text or null; got 3"),
        ("schedule", "cosin", "schedule must be 'constant', 'step', 'cosine'; got 'cosin'"),
        ("output_stride", 4, "output_stride must be 8, 16, 32 or null; got 4"),
        ("kmax", "20%", "kmax must be a whole number or a number, e.g. 0.01 or 'all'; got '20%'"),
        ("kmin", [1], "kmin must be a whole number or a number, e.g. 0.01 or 'all' or null; got [1]"),
        ("score_sizes", 224, "score_sizes must be a list of whole numbers; got 224"),
        ("score_sizes", ["224"], "score_sizes must be a list of whole numbers; got ['224']"),
    ],
)
def test_errors_name_the_setting_the_value_and_the_allowed_values(name: str, value: Any, message: str) -> None:
    with pytest.raises(WildcatError, match=f"^{re.escape(message)}") as error:
        TrainConfig(**{"data": "synthetic", name: value})
    one_line(error)
    with pytest.raises(WildcatError, match=f"^a/config.json: {re.escape(message)}"):
        config_from_dict({name: value}, "a/config.json")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 1),
        ("lr", None),
        ("epochs", None),
        ("kmax", "all"),
        ("kmax", 0.2),
        ("kmax", 3),
        ("kmin", None),
        ("kmin", 0),
        ("output_stride", 16),
        ("workers", 0),
        ("warmup_epochs", 0),
        ("pretrained", False),
        ("weights", "backbone.pth"),
    ],
)
def test_values_at_the_limits_are_allowed(name: str, value: Any) -> None:
    assert getattr(TrainConfig(**{"data": "synthetic", name: value}), name) == value


def test_two_ways_to_validate_exclude_each_other() -> None:
    with pytest.raises(WildcatError, match="val_split and val_fraction exclude each other; give one"):
        TrainConfig("synthetic", val_split="val", val_fraction=0.1)


# To a dictionary and back


def test_round_trip_through_json() -> None:
    config = TrainConfig(
        "synthetic",
        kmax="all",
        kmin=3,
        alpha=1,
        val_split="val",
        output_stride=16,
        score_sizes=[224, 320],
        pretrained=False,
    )
    values = json.loads(json.dumps(config.to_dict()))
    assert config_from_dict(values, "x") == config
    assert set(values) == {field.name for field in dataclasses.fields(TrainConfig)}


def test_settings_of_a_file_name_the_data() -> None:
    with pytest.raises(WildcatError, match=r"^a/config\.json: the setting data is missing$"):
        config_from_dict({"epochs": 3}, "a/config.json")


def test_settings_that_an_older_file_lacks_have_their_defaults() -> None:
    assert config_from_dict({"data": "x:y", "lr": 1}, "x") == TrainConfig("x:y", lr=1)


def test_to_dict_is_a_copy() -> None:
    config = TrainConfig("synthetic")
    config.to_dict()["score_sizes"].append(1)
    assert config.score_sizes == [320]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("num_map", "; did you mean num_maps?"),
        ("learning_rate", ""),
        ("Alpha", "; did you mean alpha?"),
        (3, ""),
        (None, ""),
    ],
)
def test_unknown_settings_are_named_with_the_nearest_known(key: Any, hint: str) -> None:
    with pytest.raises(WildcatError, match=re.escape(f"here: unknown setting {key!r}{hint}") + "$"):
        config_from_dict({"epochs": 3, key: 1}, "here")


# Recipes


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_valid_and_its_header_has_a_command(name: str) -> None:
    assert config_from_dict({"data": "synthetic", **read_recipe(name)}, name) != TrainConfig("synthetic")
    text = (Path(module.__file__).parent / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    header = re.match(r"(#.*\n)+", text)
    assert header and "wildcat " in header[0]


def test_a_file_is_a_recipe_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("# mine\nlr: 0.02\nkmax: all\nscore_sizes: [224, 320]\nval_split: null\n")
    assert read_recipe(str(file)) == {"lr": 0.02, "kmax": "all", "score_sizes": [224, 320], "val_split": None}
    file.write_text("# nothing but the defaults\n")
    assert read_recipe(str(file)) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"num_map: 4\n", "unknown setting 'num_map'; did you mean num_maps?"),
        (b"epochs: ten\n", "epochs must be a whole number; got 'ten'"),
        (b"- lr\n- 0.1\n", "must be a mapping of settings; got list"),
        (b"0.1\n", "must be a mapping of settings; got float"),
        (b"lr: [0.1\nepochs: 3\n", "cannot be read as YAML: "),
        (b"lr: !!python/object/apply:os.system ['true']\n", "cannot be read as YAML: "),
        (b"\xff\xfe\x00\x81\n", "cannot be read as YAML: "),
    ],
)
def test_files_that_are_not_recipes(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(WildcatError, match=re.escape(f"recipe {file}") + ":? " + re.escape(message)) as error:
        read_recipe(str(file))
    one_line(error)


def test_an_unknown_recipe_names_the_known_ones(tmp_path: Path) -> None:
    for name in ("voc-07", str(tmp_path / "absent.yaml"), str(tmp_path)):
        with pytest.raises(WildcatError, match=re.escape(f"no recipe or file {name!r}")) as error:
            read_recipe(name)
        assert all(known in one_line(error) for known in recipe_names())
    with pytest.raises(WildcatError, match=r"did you mean voc07\?"):
        read_recipe("voc-07")


# JSON files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"{", "is not valid JSON: "),
        (b"\xff\xfe", "is not valid JSON: "),
        (b"[1]", "must hold a JSON object; got list"),
    ],
)
def test_json_files_without_an_object(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "config.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(WildcatError, match=re.escape(f"{file} {message}")) as error:
        read_json(file)
    one_line(error)


def test_a_json_object_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}


@pytest.mark.slow
def test_settings_are_read_without_pytorch() -> None:
    code = "import sys, wildcat.config as c; c.read_recipe(c.recipe_names()[0]); print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert answer.strip() == "False"
