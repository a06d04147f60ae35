"""``wildcat report``: parses arguments and calls :func:`wildcat.apps.report.build.write_report`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from wildcat.cli.parser import add_device, add_precision, add_runtime, command_parser
from wildcat.system.files import check_output, is_standard_output


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = command_parser(
        "report",
        "Write one HTML page about a run: scores, curves, images with wrong predictions. The page needs no network.",
        """
wildcat report runs/mine
wildcat report runs/voc07 --data voc07:data --split test --out voc07.html
""",
    )
    parser.add_argument("run", metavar="RUN", help="run directory")
    parser.add_argument("--data", metavar="SPEC", help="dataset (default: the one of results.json, or of the training)")
    parser.add_argument("--split", help="split to predict (default: the one of results.json, or test, or val)")
    parser.add_argument("--out", metavar="FILE", help="file of the page (default: RUN/report.html)")
    parser.add_argument("--title", metavar="TEXT", help="heading of the page (default: name of the run directory)")
    parser.add_argument(
        "--images", type=int, default=1000, help="largest number of images that are predicted (default: 1000)"
    )
    add_runtime(parser)
    add_device(parser)
    add_precision(parser)
    arguments = parser.parse_args(argv)

    from wildcat.apps.report.build import write_report

    out = Path(arguments.out) if arguments.out else Path(arguments.run) / "report.html"
    if arguments.out:
        check_output(out)
    write_report(
        Path(arguments.run),
        out,
        data=arguments.data,
        split=arguments.split,
        title=arguments.title,
        max_images=arguments.images,
        device=arguments.device,
        precision=arguments.precision,
        runtime=arguments.runtime,
    )
    print(f"written: {out}", file=sys.stderr if is_standard_output(out) else sys.stdout)
    return 0
