"""``wildcat evaluate``: parses arguments and calls :func:`wildcat.evaluation.evaluate_run`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wildcat.cli.parser import (
    ANY_MODEL,
    CommandParser,
    add_device,
    add_on_bad_image,
    add_precision,
    add_runtime,
    command_parser,
    sizes,
)
from wildcat.cli.terminal import printable
from wildcat.errors import WildcatError
from wildcat.system.files import check_output, is_standard_output


def _parser() -> CommandParser:
    """The parser of the command."""
    parser = command_parser(
        "evaluate",
        "Score a run on a dataset, and write the results to RUN/results.json, beside those of other datasets, or to "
        "the file of --json.",
        """
wildcat evaluate runs/mine
wildcat evaluate runs/mine --data folder:new_images
wildcat evaluate runs/mine --data folder:my_images --split test --tasks classification
wildcat evaluate runs/voc07 --data voc07:data --score-sizes 320,448,576 --map-sizes 576 --mirror
wildcat evaluate runs/voc12 --data voc12:data --split test --tasks classification --submission upload
wildcat evaluate runs/mine --data folder:my_images --json - | jq .classification.map_area
wildcat evaluate runs/voc07 --precision bf16
wildcat evaluate runs/voc12 --data voc12:data --tasks segmentation --fit-background threshold --crf
""",
    )
    parser.add_argument("run", metavar="RUN", help=ANY_MODEL)
    parser.add_argument("--data", metavar="SPEC", help="dataset (default: the one of results.json, or of the training)")
    parser.add_argument(
        "--split",
        help="split to score (default: the one held out of the training data; all of other data, unless they have "
        "splits of their own)",
    )
    parser.add_argument(
        "--tasks",
        metavar="TASK,...",
        help="classification, pointing, segmentation (default: classification, and pointing if the dataset has boxes)",
    )
    add_runtime(parser)
    add_device(parser)
    add_precision(parser)
    add_on_bad_image(parser, "error")
    parser.add_argument(
        "--json", metavar="FILE", help="file for the results; - prints them, and nothing else, to standard output"
    )
    parser.add_argument("--score-sizes", type=sizes, help="image sides for scores (default: the run's)")
    parser.add_argument("--map-sizes", type=sizes, help="image sides for points and masks (default: the run's)")
    parser.add_argument(
        "--mirror", action="store_true", default=None, help="also run the mirrored image, and average the two outputs"
    )
    parser.add_argument(
        "--submission",
        metavar="DIR",
        help="write files for the VOC 2012 evaluation server to a directory, and score nothing; needs --split",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files in the directory of --submission that wildcat has not written, and another model's results",
    )
    parser.add_argument("--crf", action="store_true", help="also score masks that are refined with the dense CRF")
    parser.add_argument(
        "--labels",
        choices=["predicted", "image"],
        default="predicted",
        help="classes that a mask may contain: those predicted, or those of the image's labels (default: predicted)",
    )
    parser.add_argument(
        "--fit-background",
        choices=["threshold", "power", "class"],
        help="first fit how masks get their background, and how much the background cue of the image counts, on the "
        "masks of the run's training split, and save it in the run",
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    arguments = _parser().parse_args(argv)
    tasks = arguments.tasks.split(",") if arguments.tasks else None
    if arguments.overwrite and not arguments.submission:
        raise WildcatError("--overwrite is for --submission; results of --json, and of a run, are always replaced")
    model = {
        name: getattr(arguments, name)
        for name in ("score_sizes", "map_sizes", "mirror", "device", "precision", "runtime", "crf")
    }
    return _submit(arguments, tasks, model) if arguments.submission else _score(arguments, tasks, model)


def _score(arguments: argparse.Namespace, tasks: list[str] | None, model: dict[str, Any]) -> int:
    """Score, write the results and print the summary."""
    from wildcat.evaluation.run import evaluate_run
    from wildcat.evaluation.summary import summary

    to_stdout = arguments.json == "-" or bool(arguments.json and is_standard_output(Path(arguments.json)))
    if arguments.json and not to_stdout:
        check_output(Path(arguments.json))
    evaluation = evaluate_run(
        arguments.run,
        arguments.data,
        split=arguments.split,
        tasks=tasks,
        on_bad_image=arguments.on_bad_image,
        labels=arguments.labels,
        fit_background=arguments.fit_background,
        file=None if to_stdout else arguments.json,
        save=not to_stdout,
        **model,
    )
    stream = sys.stderr if to_stdout else sys.stdout
    if evaluation.fitted is not None:
        fitted = evaluation.fitted
        print(f"background: {fitted.background}, mIoU {fitted.miou:.1f} on the masks of {fitted.split}", file=stream)
    print(printable(summary(evaluation.results)), file=stream)
    if to_stdout:
        print(json.dumps(evaluation.results.to_dict(), indent=2))
    elif evaluation.file is not None:
        print(f"written: {evaluation.file}")
    return 0


def _submit(arguments: argparse.Namespace, tasks: list[str] | None, model: dict[str, Any]) -> int:
    """Write files for the evaluation server."""
    from wildcat.evaluation.run import submit_run

    if arguments.split is None:
        raise WildcatError("--submission needs --split, for example --split test")
    folders = submit_run(
        arguments.run,
        Path(arguments.submission),
        arguments.data,
        split=arguments.split,
        tasks=tasks or ["classification"],
        overwrite=arguments.overwrite,
        **model,
    )
    for folder in folders:
        print(f"written: {folder}")
    return 0
