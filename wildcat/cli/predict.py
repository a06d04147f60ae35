"""``wildcat predict``: parses arguments, calls :func:`wildcat.load` and writes the predictions of its stream."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from wildcat.cli.parser import (
    ANY_MODEL,
    add_device,
    add_on_bad_image,
    add_precision,
    add_prediction,
    add_runtime,
    command_parser,
)
from wildcat.cli.terminal import printable_line
from wildcat.errors import WildcatError
from wildcat.system.files import is_standard_output
from wildcat.system.output_folder import OutputFolder


def _root(paths: Sequence[str]) -> Path | None:
    """The deepest directory that contains all inputs: names of results are relative to it."""
    folders = [os.path.abspath(path if Path(path).is_dir() else Path(path).parent) for path in paths]  # noqa: PTH100
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # on several drives
        return None


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = command_parser(
        "predict",
        "Classify, localize and segment images. Without --out, the predictions are only printed.",
        """
wildcat predict imagenet cat.jpg
wildcat predict imagenet images/ --out predictions
wildcat predict runs/mine images/ --out predictions --formats json,mask --crf
wildcat predict runs/mine images/ --out predictions --formats coco,label-studio,cvat
wildcat predict runs/mine images/ --out predictions --threshold cat=0.3,dog=0.6
wildcat predict runs/mine images/ --threshold '{"a name, with = and commas": 0.3}'
wildcat predict runs/mine images/ --json - | jq -c '[.file, .predicted[].class]'
""",
    )
    parser.add_argument("run", metavar="RUN", help=ANY_MODEL)
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="image files, or folders of images (what wildcat has written there is left out)",
    )
    parser.add_argument("--out", metavar="DIR", help="directory for the results")
    known = "json, csv, overlay, mask, coco, yolo, voc, label-studio, cvat"  # formats.FORMATS, which needs PyTorch
    parser.add_argument("--formats", metavar="NAME,...", help=f"formats to write: {known} (default: json,overlay)")
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="file for JSON lines, one per image; - prints them, and nothing else, to standard output",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files in --out that wildcat has not written, and predictions of other images",
    )
    add_prediction(parser)
    add_on_bad_image(parser)
    parser.add_argument("--crf", action="store_true", help="refine masks with the dense CRF")
    parser.add_argument(
        "--image-prefix",
        metavar="URL-OR-PATH",
        help="address where Label Studio finds the images, put before their names (default: /data/local-files/?d=)",
    )
    add_runtime(parser)
    add_device(parser)
    add_precision(parser)
    arguments = parser.parse_args(argv)
    if arguments.json and is_standard_output(Path(arguments.json)):
        arguments.json = "-"
    if arguments.out is None and (arguments.formats or arguments.crf or arguments.overwrite):
        raise WildcatError("--formats, --crf and --overwrite need a directory to write to: --out DIR")
    formats = (arguments.formats or "json,overlay").split(",") if arguments.out else []
    if arguments.image_prefix is not None and "label-studio" not in formats:
        raise WildcatError("--image-prefix is only for --formats label-studio")

    from wildcat.data.files import image_files_at
    from wildcat.formats import ConsoleWriter, JsonFile, JsonLines, Writer
    from wildcat.formats.folder import check_files, check_json_file, check_same_prediction
    from wildcat.formats.label_studio import LOCAL_FILES
    from wildcat.formats.write import check_formats, write_predictions
    from wildcat.prediction.items import image_items
    from wildcat.prediction.loading import load
    from wildcat.prediction.result import check_threshold

    check_formats(formats)
    from tqdm import tqdm

    folder = OutputFolder(Path(arguments.out), overwrite=arguments.overwrite) if arguments.out else None
    root = _root(arguments.images)
    images = image_files_at(arguments.images)
    if folder is not None:
        images = check_files(folder, formats, images, root)
    json_file = None if arguments.json in (None, "-") else Path(arguments.json)
    if json_file is not None:
        check_json_file(json_file, folder, formats, images)
    predictor = load(arguments.run, device=arguments.device, precision=arguments.precision, runtime=arguments.runtime)
    check_threshold(arguments.threshold, predictor.settings.classes)
    if folder is not None:
        about = {
            "inputs": sorted({os.path.realpath(path) for path in arguments.images}),
            "root": None if root is None else os.path.realpath(root),
            "formats": formats,
            "model": predictor.fingerprint,
            "threshold": arguments.threshold,
            "crf": arguments.crf,
            "precision": predictor.precision,
            "runtime": predictor.runtime,
        }
        folder.begin(check_same_prediction(folder, about))
    items = image_items(images, partial=arguments.on_bad_image == "partial")
    stream = predictor.stream(items, batch_size=arguments.batch_size, on_error="yield", multi_maps=False)
    shown = tqdm(stream, "predicting", len(images), unit=" images", disable=None)
    most = 10 if arguments.out or arguments.json else len(images)
    more: list[Writer] = [JsonLines(sys.stdout) if arguments.json == "-" else ConsoleWriter(sys.stdout, most)]
    if json_file is not None:
        more.append(JsonFile(json_file))
    failures = write_predictions(
        shown,
        folder or Path(),
        formats,
        predictor.settings.classes,
        root=root,
        threshold=arguments.threshold,
        crf=arguments.crf,
        image_prefix=arguments.image_prefix or LOCAL_FILES,
        more=more,
    )
    print(f"computed in {predictor.computation}", file=sys.stderr)
    for failure in failures:
        is_cut = "truncated" in failure.message and failure.name.lower().endswith((".jpg", ".jpeg"))
        is_hinted = is_cut and arguments.on_bad_image == "skip"
        hint = "; --on-bad-image partial reads it as far as it goes" if is_hinted else ""
        print(printable_line(f"skipped: {failure.message}{hint}"), file=sys.stderr)
    where = ", ".join(place for place in (arguments.out, arguments.json) if place and place != "-")
    if where:
        summary_file = sys.stderr if arguments.json == "-" else sys.stdout
        print(f"{len(images) - len(failures)} of {len(images)} images: {where}", file=summary_file)
    return 1 if failures else 0
