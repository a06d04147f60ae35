"""``wildcat report``."""

from collections.abc import Sequence
from pathlib import Path

from wildcat.cli.parser import add_device, add_runtime, command_parser


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = command_parser(
        "report",
        "Write one HTML page about a run: figures, curves, and the images in which it fails. It needs no network.",
        """
wildcat report runs/mine
wildcat report runs/voc07 --data voc07:data --split test --out voc07.html
""",
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder")
    parser.add_argument(
        "--data", metavar="SPEC", help="dataset; that of results.json, or of the training, unless given"
    )
    parser.add_argument("--split", help="split to look at; the one of results.json, or the usual one, unless given")
    parser.add_argument("--out", metavar="FILE", help="the page; RUN/report.html unless given")
    parser.add_argument("--title", metavar="TEXT", help="heading of the page; the folder's name unless given")
    parser.add_argument("--images", type=int, default=1000, help="how many images are read at most (default: 1000)")
    add_runtime(parser)
    add_device(parser)
    arguments = parser.parse_args(argv)

    from wildcat.apps.report.build import write_report

    out = Path(arguments.out) if arguments.out else Path(arguments.run) / "report.html"
    write_report(
        Path(arguments.run),
        out,
        data=arguments.data,
        split=arguments.split,
        title=arguments.title,
        max_images=arguments.images,
        device=arguments.device,
        runtime=arguments.runtime,
    )
    print(f"written: {out}")
    return 0
