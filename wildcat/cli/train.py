"""``wildcat train``: parses settings and calls :func:`wildcat.train` (``train_scales`` with ``--scales``)."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wildcat.cli.parser import add_recipe, add_settings, command_parser, config_of, parse_early, sizes
from wildcat.config import METHODS, method_settings, read_recipe, saved_settings
from wildcat.system.json_object import JsonObject


def _defaults(argv: Sequence[str]) -> tuple[dict[str, Any], list[int] | None]:
    """The settings, and the scales, of the run to resume, else of the recipe and the method."""
    early = parse_early("train", argv, ["--recipe", "--out", "--method"], ["--resume"])
    settings: dict[str, Any] = {}
    scales = None
    files = [Path(early.out, name) for name in ("config.json", "scales.json")] if early.resume and early.out else []
    file = next((file for file in files if file.is_file()), None)
    if file is not None:
        values = JsonObject.read(file)
        settings = saved_settings(values.any("config"), str(file)).to_dict()
        scales = list(values.sizes("scales")) if "scales" in values else None
    elif early.recipe:
        settings = read_recipe(early.recipe)
    if early.method:
        settings |= method_settings(early.method)
    return settings, scales


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    defaults, scales = _defaults(argv)
    parser = command_parser(
        "train",
        "Train a model from image labels, and write it to a run directory.",
        """
wildcat train --data folder:my_images --out runs/mine
wildcat train --data tags:images.csv --out runs/tags --epochs 15 --val-fraction 0.1
wildcat train --data folder:my_images --frozen --out runs/in-seconds
wildcat train --data voc07:data --recipe voc07 --out runs/voc07
wildcat train --data voc07:data --recipe voc07 --scales 320,448,576 --val-fraction 0.1 --out runs/voc07-scales
wildcat train --data mit67:data --recipe mit67 --method features --out runs/mit67-features
wildcat train --out runs/voc07 --resume
""",
        usage="wildcat train --data SPEC --out RUN [options]\n       wildcat train --out RUN --resume [options]",
    )
    groups = add_settings(parser, defaults)
    most_used = groups["most used"]
    most_used.add_argument("--out", required=True, metavar="RUN", help="run directory, new or empty")
    add_recipe(most_used)
    most_used.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    groups["data"].add_argument("--download", action="store_true", help="download VOC, COCO, MIT67 or 15-Scene first")
    groups["pooling"].add_argument(
        "--method",
        metavar="NAME",
        help=f"settings of a method that the paper compares; they replace the recipe's: {', '.join(METHODS)}",
    )
    groups["inference sizes"].add_argument(
        "--scales",
        type=sizes,
        default=scales,
        metavar="N,N,...",
        help="train one model per image size, and combine them",
    )
    arguments = parser.parse_args(argv)

    config, how = config_of(arguments), {"resume": arguments.resume, "download": arguments.download}
    from wildcat.runs.held_out import read_held_out

    if arguments.scales:
        from wildcat.training.multiscale import train_scales

        folder = train_scales(config, arguments.scales, arguments.out, **how)
    else:
        from wildcat.training.launch import train

        folder = train(config, arguments.out, **how)
    commands = ["serve"] if arguments.scales else ["report", "serve"]  # a report is about one model
    message = ", or ".join(f"wildcat {command} {shlex.quote(str(folder))}" for command in commands)
    score = read_held_out(folder)
    print(f"trained: {folder}" + (f": {score}" if score is not None else "") + f"; next: {message}")
    return 0
