"""``wildcat train``."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wildcat import config as settings
from wildcat.cli.parser import add_settings, asked_first, command_parser, sizes
from wildcat.config import METHODS, TrainConfig, method_settings
from wildcat.system.files import read_json


def _started(folder: Path) -> list[Path]:
    """Where a run, or runs at several scales, keep their settings."""
    return [folder / "config.json", folder / "scales.json"]


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    # Defaults come from the recipe, or from the run to continue, so these are looked at before the rest is parsed.
    known = asked_first("train", argv, ["--recipe", "--out", "--method"], ["--resume"])
    defaults: dict[str, Any] = {}
    scales: list[int] | None = None
    if known.resume and known.out and (files := [f for f in _started(Path(known.out)) if f.is_file()]):
        values = read_json(files[0])
        defaults = settings.config_from_dict(values.get("config"), str(files[0])).to_dict()
        scales = values.get("scales")
    elif known.recipe:
        defaults = settings.read_recipe(known.recipe)
    if known.method:
        defaults |= method_settings(known.method)

    parser = command_parser(
        "train",
        "Train a model from image labels alone, and write its run's folder.",
        """
wildcat train --data folder:my_images --out runs/mine
wildcat train --data tags:images.csv --out runs/tags --epochs 15
wildcat train --data voc07:data --recipe voc07 --out runs/voc07
wildcat train --data voc07:data --recipe voc07 --scales 320,448,576 --val-fraction 0.1 --out runs/voc07-scales
wildcat train --data mit67:data --recipe mit67 --method features --out runs/mit67-features
wildcat train --out runs/voc07 --resume
""",
    )
    parser.add_argument("--out", required=True, metavar="RUN", help="the run's folder")
    parser.add_argument(
        "--recipe", metavar="NAME|FILE", help=f"settings: {', '.join(settings.recipe_names())}, or YAML"
    )
    parser.add_argument(
        "--method", metavar="NAME", help=f"a method that the paper compares, before the recipe: {', '.join(METHODS)}"
    )
    parser.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    parser.add_argument(
        "--scales", type=sizes, default=scales, metavar="N,N,...", help="train a model per image size, and combine them"
    )
    parser.add_argument("--download", action="store_true", help="fetch VOC, COCO, MIT67 or 15-Scene first")
    add_settings(parser, defaults)
    arguments = parser.parse_args(argv)
    values = {f.name: arguments[f.name] for f in dataclasses.fields(TrainConfig)}
    values = {name: value for name, value in values.items() if value is not None}

    config, how = TrainConfig(**values), {"resume": arguments.resume, "download": arguments.download}
    if arguments.scales:
        from wildcat.training.multiscale import train_scales

        folder = train_scales(config, arguments.scales, arguments.out, **how)
    else:
        from wildcat.training.launch import train

        folder = train(config, arguments.out, **how)
    looks = ["serve"] if arguments.scales else ["report", "serve"]  # a report is about one model
    message = ", or ".join(f"wildcat {look} {shlex.quote(str(folder))}" for look in looks)
    print(f"trained: {folder}; look at it with: {message}")
    return 0
