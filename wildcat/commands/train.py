"""``wildcat train``."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wildcat import config as settings
from wildcat.commands.parser import add_settings, asked_first, command_parser
from wildcat.config import TrainConfig


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    # Defaults come from the recipe, or from the run to continue, so these are looked at before the rest is parsed.
    known = asked_first("train", argv, ["--recipe", "--out"], ["--resume"])
    defaults: dict[str, Any] = {}
    if known.resume and known.out and (Path(known.out) / "config.json").is_file():
        file = Path(known.out) / "config.json"
        defaults = settings.config_from_dict(settings.read_json(file).get("config"), str(file)).to_dict()
    elif known.recipe:
        defaults = settings.read_recipe(known.recipe)

    parser = command_parser(
        "train",
        "Train a model from image labels alone, and write its run's folder.",
        """
wildcat train --data folder:my_pictures --out runs/mine
wildcat train --data tags:pictures.csv --out runs/tags --epochs 15
wildcat train --data voc07:data --recipe voc07 --out runs/voc07
wildcat train --out runs/voc07 --resume
""",
    )
    parser.add_argument("--out", required=True, metavar="RUN", help="the run's folder")
    parser.add_argument(
        "--recipe", metavar="NAME|FILE", help=f"settings: {', '.join(settings.recipe_names())}, or YAML"
    )
    parser.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    parser.add_argument("--download", action="store_true", help="fetch VOC or COCO first; wants --train-split")
    add_settings(parser, defaults)
    arguments = parser.parse_args(argv)
    values = {f.name: arguments[f.name] for f in dataclasses.fields(TrainConfig)}
    values = {name: value for name, value in values.items() if value is not None}

    from wildcat.train import train

    folder = train(TrainConfig(**values), arguments.out, resume=arguments.resume, download=arguments.download)
    print(f"trained: {folder}")
    return 0
