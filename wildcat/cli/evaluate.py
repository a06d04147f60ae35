"""``wildcat evaluate``."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from wildcat.cli.parser import add_device, add_runtime, command_parser, sizes
from wildcat.errors import WildcatError


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = command_parser(
        "evaluate",
        "Score a run on a dataset. Scores are written to RUN/results.json, or where --json says.",
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
    parser.add_argument("run", metavar="RUN", help="a run's folder")
    parser.add_argument(
        "--data", metavar="SPEC", help="dataset; that of results.json, or of the training, unless given"
    )
    parser.add_argument("--split", help="split to score; the dataset's usual one unless given")
    parser.add_argument(
        "--tasks",
        metavar="TASK,...",
        help="classification, pointing, segmentation (default: the first, and the second where there are boxes)",
    )
    add_runtime(parser)
    add_device(parser)
    parser.add_argument(
        "--precision", choices=["fp32", "bf16"], default="fp32", help="of the backbone; bf16 is faster on many machines"
    )
    parser.add_argument("--on-bad-image", choices=["error", "skip"], default="error", help="what to do with bad files")
    parser.add_argument("--json", metavar="FILE", help="where to write the results; - prints them, and nothing else")
    parser.add_argument("--score-sizes", type=sizes, help="sides at which images are read for scores, not the run's")
    parser.add_argument("--map-sizes", type=sizes, help="sides at which they are read for points and masks")
    parser.add_argument("--mirror", action="store_true", default=None, help="read the mirrored image too and average")
    parser.add_argument(
        "--submission",
        metavar="DIR",
        help="write files for the VOC 2012 evaluation server there, and score nothing; wants --split",
    )
    parser.add_argument("--crf", action="store_true", help="score masks refined by the dense CRF as well")
    parser.add_argument(
        "--labels", choices=["predicted", "image"], default="predicted", help="which classes a mask may hold"
    )
    parser.add_argument(
        "--fit-background",
        choices=["threshold", "power", "class"],
        help="first choose where masks have their background, on the run's training split, and keep it with the run",
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
            raise WildcatError("--submission wants --split, for example test")
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
    doubts = seen_in_training(arguments.run, dataset)
    if doubts:
        results["warnings"] = doubts
    print(summary(results), file=stream)
    for doubt in doubts:
        print(f"warning: {doubt}", file=sys.stderr)
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
