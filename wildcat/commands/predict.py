"""``wildcat predict``."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from wildcat.commands.parser import add_reading, command_parser
from wildcat.errors import WildcatError


def _pictures(paths: Sequence[str]) -> list[Path]:
    """Files as given, and the pictures below folders."""
    from wildcat.data.sample import PICTURE_SUFFIXES, pictures_below

    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = pictures_below(path)
            if not inside:
                raise WildcatError(f"{path} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
            found += [path / name for name in inside]
        elif path.exists():
            found.append(path)
        else:
            raise WildcatError(f"{path} does not exist")
    return found


def _root(paths: Sequence[str]) -> Path | None:
    """The deepest folder that holds all that was given: results are named from there."""
    folders = [os.path.abspath(path if Path(path).is_dir() else Path(path).parent) for path in paths]  # noqa: PTH100
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # on several drives
        return None


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = command_parser(
        "predict",
        "Classify pictures, point at what is in them, and segment them.",
        """
wildcat predict imagenet cat.jpg --out found
wildcat predict runs/mine pictures/ --out found --formats json,mask --crf
wildcat predict runs/mine pictures/ --out found --formats coco,label-studio,cvat
wildcat predict runs/mine pictures/ --out found --threshold cat=0.3,dog=0.6
""",
    )
    parser.add_argument("run", metavar="RUN", help='a run\'s folder, a hub name, "imagenet", or an exported file')
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="picture files, or folders of them")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    known = "json, csv, overlay, mask, coco, yolo, voc, label-studio, cvat"  # formats.FORMATS, which needs PyTorch
    parser.add_argument("--formats", default="json,overlay", help=f"separated by commas: {known}")
    add_reading(parser)
    parser.add_argument("--crf", action="store_true", help="refine masks with the dense CRF")
    parser.add_argument(
        "--runtime",
        choices=["torch", "onnx", "openvino", "auto"],
        default="torch",
        help="what the network runs in; auto: the fastest that is installed",
    )
    arguments = parser.parse_args(argv)
    formats = arguments.formats.split(",")

    from wildcat.formats import check_formats, write_predictions
    from wildcat.predict import items_of
    from wildcat.runtimes import load

    check_formats(formats)
    from tqdm import tqdm

    pictures = _pictures(arguments.pictures)
    predictor = load(arguments.run, arguments.runtime, arguments.precision)
    stream = predictor.stream(items_of(pictures), batch_size=arguments.batch_size, on_error="yield", multi_maps=False)
    shown = tqdm(stream, "predicting", len(pictures), unit=" images", disable=None)
    failures = write_predictions(
        shown,
        Path(arguments.out),
        formats,
        predictor.settings.classes,
        root=_root(arguments.pictures),
        threshold=arguments.threshold,
        crf=arguments.crf,
    )
    for failure in failures:
        print(f"skipped: {failure.message}", file=sys.stderr)
    print(f"{len(pictures) - len(failures)} of {len(pictures)} pictures: {arguments.out}")
    return 1 if failures else 0
