# ruff: noqa: E501 - each message is on one line
"""Runs and checkpoints."""

from pathlib import Path

import torch

from tests.robustness.bad_input.case import Case, Make, cut, encoded, entries, flipped, in_order, nothing, pickled, text

EVALUATE = "evaluate run --data synthetic:count=2,size=64"
CONFIG = "run/config.json"


def run_case(name: str, what: str, make: Make, message: str, typed: str = "predict run cat.png --out out") -> Case:
    """A mistake in a run's folder."""
    return Case(name, what, make, typed, message)


def unfinished(folder: Path) -> None:
    """Without weights, which are written last, and with one state alone."""
    for name in ("model.safetensors", "state.previous.pt"):
        (folder / "run" / name).unlink(missing_ok=True)


RUNS = [
    run_case(
        "no-run",
        "no such run",
        nothing,
        "no run in mine: give a run's folder, a hub name (owner/name), or imagenet",
        "predict mine cat.png --out out",
    ),
    run_case(
        "file-run",
        "a file for a run",
        nothing,
        "no run in cat.png: give a run's folder, a hub name (owner/name), or imagenet",
        "predict cat.png cat.png --out out",
    ),
    run_case(
        "cut-config",
        "settings that were cut",
        cut(CONFIG, 0.5),
        "run/config.json is not valid JSON: ...",
    ),
    run_case(
        "binary-config",
        "settings that are no text",
        text(CONFIG, encoded("PNG")),
        "run/config.json is not valid JSON: ...",
    ),
    run_case(
        "deep-config",
        "a list in a list in a list, 100,000 deep, for settings",
        text(CONFIG, "[" * 100_000),
        "run/config.json is not valid JSON: ...",
    ),
    run_case("no-classes", "no class names", entries(CONFIG, classes=None), "run/config.json has no entry 'classes'"),
    run_case(
        "empty-classes",
        "an empty list of class names",
        entries(CONFIG, classes=[]),
        "run/config.json: classes must be a list of names; got []",
    ),
    run_case(
        "text-classes",
        "a text for the class names",
        entries(CONFIG, classes="cat"),
        "run/config.json: classes must be a list of names; got 'cat'",
    ),
    run_case(
        "numbered-classes",
        "numbers for class names",
        entries(CONFIG, classes=[1, 2, 3]),
        "run/config.json: classes must be a list of names; got [1, 2, 3]",
    ),
    run_case(
        "short-mean",
        "a mean of two colours",
        entries(CONFIG, mean=[0.5, 0.5]),
        "run/config.json: mean must be three finite numbers; got [0.5, 0.5]",
    ),
    run_case(
        "zero-std",
        "a standard deviation of 0",
        entries(CONFIG, std=[0, 1, 1]),
        "run/config.json: std must be three finite numbers above 0; got [0, 1, 1]",
    ),
    run_case(
        "fewer-classes",
        "another number of classes than the weights",
        entries(CONFIG, classes=["a", "b"]),
        "run/model.safetensors is damaged or of another model: ...",
    ),
    run_case(
        "same-classes",
        "a class name twice",
        entries(CONFIG, classes=["cat", "cat"]),
        "run/config.json: classes must have different names; 'cat' occurs twice",
    ),
    run_case(
        "huge-size",
        "a size that no memory has room for",
        entries(CONFIG, config__score_sizes=[10**12]),
        "run/config.json: score_sizes must be at most 8192; got [1000000000000]",
    ),
    run_case(
        "later-config",
        "a format of a later version",
        entries(CONFIG, format=2),
        "run/config.json has format 2, of another version of wildcat; this one reads format 1",
    ),
    run_case(
        "binary-curves",
        "curves that are no text",
        text("run/metrics.csv", encoded("PNG")),
        "run/metrics.csv is damaged: it is not a CSV in UTF-8 (...",
        "report run --data synthetic:count=2,size=64",
    ),
    run_case(
        "worded-lr",
        "a setting of another type",
        entries(CONFIG, config__lr="fast"),
        "run/config.json: lr must be a number, e.g. 0.01; got 'fast'",
    ),
    run_case(
        "new-setting",
        "a setting that there is not",
        entries(CONFIG, config__learning_rate=1),
        "run/config.json: unknown setting 'learning_rate'",
    ),
    run_case(
        "list-config",
        "a list for the settings",
        entries(CONFIG, config=[1]),
        "run/config.json must be a mapping of settings; got list",
    ),
    run_case(
        "no-weights",
        "weights that are missing",
        lambda folder: (folder / "run/model.safetensors").unlink(),
        "run has no model.safetensors; training has not finished: continue it with --resume",
    ),
    run_case(
        "cut-weights",
        "weights that were cut",
        cut("run/model.safetensors", 0.5),
        "run/model.safetensors is damaged or of another model: ...",
    ),
    run_case(
        "empty-weights",
        "an empty file for weights",
        cut("run/model.safetensors", 0),
        "run/model.safetensors is damaged or of another model: ...",
    ),
    run_case(
        "flipped-weights",
        "a wrong bit in the weights",
        flipped("run/model.safetensors"),
        "run/model.safetensors is damaged or of another model: its checksum is wrong",
    ),
    run_case(
        "pickled-weights",
        "code for weights",
        pickled("run/model.safetensors"),
        "run/model.safetensors is damaged or of another model: ...",
    ),
    run_case(
        "odd-background",
        "a background that there is not",
        text("run/background.json", '{"mode": "sky", "constant": 1}'),
        "run/background.json is damaged: background mode must be one of threshold, power, class; got 'sky'",
    ),
    run_case(
        "nan-background",
        "a background's constant that is no number",
        text("run/background.json", '{"mode": "power", "constant": NaN}'),
        "run/background.json is damaged: the background's constant must be a finite number above 0; got nan",
    ),
    run_case(
        "worded-background",
        "a text for a background's constant",
        text("run/background.json", '{"mode": "power", "constant": "1"}'),
        "run/background.json is damaged: the background's constant must be a finite number above 0; got '1'",
    ),
    run_case(
        "odd-cue",
        "an exponent of the background cue that is too large",
        text("run/background.json", '{"mode": "power", "constant": 1, "cue_exponent": 1e9}'),
        "run/background.json is damaged: the cue's exponent must be 0 to 10; got 1000000000.0",
    ),
    run_case(
        "cut-state",
        "a truncated state to resume from, and no earlier one",
        in_order(cut("run/state.pt", 0.5), unfinished),
        "run/state.pt is damaged: ...; delete it to start the run again from its beginning",
        "train --out run --resume",
    ),
    run_case(
        "pickled-state",
        "code instead of a state to resume from",
        in_order(pickled("run/state.pt"), unfinished),
        "run/state.pt is damaged: it holds more than tensors and plain values; delete it to start the run again from its beginning",
        "train --out run --resume",
    ),
    run_case(
        "pickled-backbone",
        "code for a backbone's weights",
        pickled("net.pth"),
        "weights file net.pth cannot be read as a state dict (.pth, .safetensors)",
        "train --data synthetic --weights net.pth --out new",
    ),
    run_case(
        "pickled-checkpoint",
        "code for a checkpoint of the authors'",
        pickled("best.pth.tar"),
        "best.pth.tar cannot be read as a checkpoint of tensors and plain values alone",
        "convert best.pth.tar --classes voc --kmax 0.2 --alpha 0.7 --out new",
    ),
    run_case(
        "odd-checkpoint",
        "a checkpoint of something else",
        lambda folder: torch.save({"state_dict": {"fc.weight": torch.zeros(2)}}, folder / "best.pth.tar"),
        "best.pth.tar is no checkpoint of the authors' code: it holds fc.weight",
        "convert best.pth.tar --classes voc --kmax 0.2 --alpha 0.7 --out new",
    ),
    run_case(
        "cut-scales",
        "scales that were cut",
        in_order(lambda folder: (folder / CONFIG).unlink(), text("run/scales.json", '{"config": ')),
        "run/scales.json is not valid JSON: ...",
    ),
]
