"""``wildcat quickstart``: parses arguments and calls :func:`wildcat.apps.quickstart.quickstart`."""

from collections.abc import Sequence
from pathlib import Path

from wildcat.cli.parser import command_parser
from wildcat.config import read_recipe


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = command_parser(
        "quickstart",
        "Train on synthetic images, score the model, and run the embedded ImageNet classifier on two photographs. It "
        "needs no files and no network.",
        "wildcat quickstart --out runs/quickstart",
    )
    parser.add_argument(
        "--out", default="runs/quickstart", metavar="DIR", help="directory for all results (default: runs/quickstart)"
    )
    parser.add_argument(
        "--recipe", default="quickstart", metavar="NAME|FILE", help="settings of the training (default: quickstart)"
    )
    arguments = parser.parse_args(argv)

    from wildcat.apps.quickstart import quickstart
    from wildcat.evaluation.summary import summary

    outcome = quickstart(Path(arguments.out), read_recipe(arguments.recipe))
    print(summary(outcome.results))
    for name, prediction in outcome.photographs.items():
        best, probability = next(iter(prediction.scores.items()))
        x, y = prediction.points[best]
        print(f"imagenet, no training: {name} is a {best} ({100 * probability:.0f} %), at ({x:.0f}, {y:.0f})")
    print(f"look at: {', '.join(map(str, outcome.files))}")
    return 0
