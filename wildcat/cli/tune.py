"""``wildcat tune``: parses settings and calls :func:`wildcat.apps.tune.tune`."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from wildcat.cli.parser import add_settings, command_parser, config_of
from wildcat.config import FROZEN_IMAGE_SIZE, TrainConfig
from wildcat.errors import WildcatError

OPTIONS = ("data", "train_split", "backbone", "weights", "image_size", "on_bad_image", "cache_dir")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = command_parser(
        "tune",
        "Find the pooling, the number of maps and the learning rate for your images: many heads are trained on "
        "features of the frozen backbone and judged by held-out training images. The best settings become a recipe.",
        """
wildcat tune --data folder:my_images --out mine.yaml
wildcat train --data folder:my_images --recipe mine.yaml --out runs/mine
wildcat tune --data tags:images.csv --backbone lite2 --image-size 448 --out tags.yaml
""",
        usage="wildcat tune --data SPEC --out FILE [options]",
    )
    names = [name for name in TrainConfig.__dataclass_fields__ if name not in OPTIONS]
    groups = add_settings(parser, {"image_size": FROZEN_IMAGE_SIZE}, without=names)
    groups["most used"].add_argument("--out", required=True, metavar="FILE", help="recipe to write, a new YAML file")
    arguments = parser.parse_args(argv)
    file = Path(arguments.out)
    if file.exists():  # before the work
        raise WildcatError(f"{file} exists; give the name of a new file")
    from wildcat.apps.tune import tune, write_recipe

    tuned = tune(config_of(arguments, without=names))
    write_recipe(file, tuned, arguments.data)
    print(tuned)
    command = shlex.join(["wildcat", "train", "--data", arguments.data, "--recipe", str(file), "--out", "RUN"])
    print(f"written: {file}; next: {command}")
    return 0
