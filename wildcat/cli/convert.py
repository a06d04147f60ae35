"""``wildcat convert``: parses arguments and calls :func:`wildcat.runs.convert.convert`."""

from collections.abc import Sequence
from pathlib import Path

from wildcat.cli.parser import command_parser
from wildcat.config import Regions


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = command_parser(
        "convert",
        "Convert a checkpoint of the authors' code (durandtibo/wildcat.pytorch) to a run with the same scores. Only "
        "tensors and plain values are read from the file: nothing in it is executed.",
        """
wildcat convert model_best.pth.tar --classes voc --kmax 0.2 --alpha 0.7 --out runs/official
wildcat convert mit67.pth.tar --classes names.txt --kmax 0.4 --alpha 1 --single-label --out runs/mit67
""",
    )
    parser.add_argument("file", metavar="FILE", help="the checkpoint (.pth, .pth.tar)")
    parser.add_argument("--out", required=True, metavar="RUN", help="run directory, new or empty")
    parser.add_argument(
        "--classes",
        required=True,
        metavar="NAMES",
        help="voc, a file with one name per line, or names separated by commas",
    )
    parser.add_argument("--kmax", type=Regions, required=True, metavar="K", help="k+ of its training")
    parser.add_argument("--kmin", type=Regions | None, metavar="K", help="k- of its training (default: the same as k+)")
    parser.add_argument("--alpha", type=float, required=True, metavar="A", help="alpha of its training")
    parser.add_argument(
        "--image-size", type=int, default=448, metavar="N", help="side of its training images (default: 448)"
    )
    parser.add_argument("--single-label", action="store_true", help="each image has exactly one class, as in MIT67")
    arguments = parser.parse_args(argv)

    from wildcat.runs.convert import convert, read_classes

    run = convert(
        Path(arguments.file),
        Path(arguments.out),
        read_classes(arguments.classes),
        kmax=arguments.kmax,
        kmin=arguments.kmin,
        alpha=arguments.alpha,
        image_size=arguments.image_size,
        multi_label=not arguments.single_label,
    )
    message = f"{run.config.backbone}, {len(run.classes)} classes, {run.config.num_maps} maps per class"
    print(f"converted: {arguments.out} ({message})")
    return 0
