"""``wildcat evaluate``: parses arguments and calls :func:`wildcat.evaluate`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from wildcat.cli.parser import ANY_MODEL, add_device, add_runtime, command_parser, sizes
from wildcat.errors import WildcatError


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = command_parser(
        "evaluate",
        "Score a run on a dataset, and write the results to RUN/results.json or to the file of --json.",
        """
wildcat evaluate runs/mine
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
    parser.add_argument("--split", help="split to score (default: test, or val if there is none)")
    parser.add_argument(
        "--tasks",
        metavar="TASK,...",
        help="classification, pointing, segmentation (default: classification, and pointing if the dataset has boxes)",
    )
    add_runtime(parser)
    add_device(parser)
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="precision of the backbone; bf16 is faster on many machines (default: fp32)",
    )
    parser.add_argument(
        "--on-bad-image",
        choices=["error", "skip"],
        default="error",
        help="what to do when an image cannot be read (default: error)",
    )
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
        help="first fit how masks get their background on the run's training split, and save it in the run",
    )
    arguments = parser.parse_args(argv)

    from wildcat.data.registry import default_splits
    from wildcat.evaluation.background import fit_masks
    from wildcat.evaluation.results import data_of, results_file, seen_in_training, summary, with_earlier
    from wildcat.evaluation.scoring import check_tasks, evaluate, open_scored
    from wildcat.prediction.loading import load
    from wildcat.prediction.predictor import Predictor
    from wildcat.runs.folder import read_settings, save_background
    from wildcat.system.files import write_json

    stream = sys.stderr if arguments.json == "-" else sys.stdout

    def opened() -> Predictor:
        predictor = load(
            arguments.run, device=arguments.device, precision=arguments.precision, runtime=arguments.runtime
        )
        return predictor.at_sizes(arguments.score_sizes, arguments.map_sizes, arguments.mirror)

    tasks = arguments.tasks.split(",") if arguments.tasks else None
    check_tasks(tasks or ())
    predictor = opened()
    data, split = arguments.data, arguments.split
    if data is None:
        data, split = data_of(arguments.run, split=split)
        print(f"data: {data} {split}, as --data was not given", file=sys.stderr)
    if arguments.submission:
        from wildcat.evaluation.submission import write_submission

        if arguments.split is None:
            raise WildcatError("--submission needs --split, for example --split test")
        how = {"split": arguments.split, "tasks": tasks or ["classification"], "crf": arguments.crf}
        for folder in write_submission(predictor, data, Path(arguments.submission), **how):
            print(f"written: {folder}")
        return 0
    if arguments.fit_background:
        config = read_settings(Path(arguments.run))
        trained_on = config.train_split or default_splits(config.data)[0]
        on_bad_image = config.on_bad_image
        background, miou = fit_masks(predictor, config.data, trained_on, arguments.fit_background, on_bad_image)
        save_background(Path(arguments.run), background, f"{config.data} {trained_on}", miou)
        predictor = opened()
        print(f"background: {background}, mIoU {miou:.1f} on the masks of {trained_on}", file=stream)
    split = split or default_splits(data)[1]
    dataset = open_scored(data, split, predictor.settings.classes, arguments.on_bad_image)
    results = evaluate(predictor, dataset, tasks=tasks, labels=arguments.labels, crf=arguments.crf)
    warnings = seen_in_training(arguments.run, dataset)
    if warnings:
        results["warnings"] = warnings
    print(summary(results), file=stream)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if arguments.json == "-":
        print(json.dumps(results, indent=2))
        return 0
    file = results_file(arguments.run)
    if arguments.json:
        file = Path(arguments.json)
    elif file is not None:  # what another file holds may be of another model
        results = with_earlier(results, file)
    if file is not None:
        write_json(file, results)
        print(f"written: {file}")
    return 0
