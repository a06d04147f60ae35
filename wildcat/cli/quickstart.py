"""``wildcat quickstart``."""

from collections.abc import Sequence
from pathlib import Path

from wildcat import config as settings
from wildcat.cli.parser import command_parser


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = command_parser(
        "quickstart",
        "Train on synthetic images, score, and show the embedded ImageNet classifier on photographs; needs no files.",
        "wildcat quickstart --out runs/quickstart",
    )
    parser.add_argument("--out", default="runs/quickstart", metavar="DIR", help="folder for everything it makes")
    parser.add_argument("--recipe", default="quickstart", metavar="NAME|FILE", help="settings of the training")
    arguments = parser.parse_args(argv)

    from wildcat.apps.quickstart import quickstart

    quickstart(Path(arguments.out), settings.read_recipe(arguments.recipe))
    return 0
