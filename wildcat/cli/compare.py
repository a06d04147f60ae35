"""``wildcat compare``: parses arguments, calls :func:`wildcat.apps.compare.compare_runs` and prints a table."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from wildcat.cli.parser import ANY_MODEL, add_device, add_on_bad_image, add_precision, add_runtime, command_parser
from wildcat.cli.terminal import aligned, printable
from wildcat.system.files import check_output, is_standard_output, write_atomically


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = command_parser(
        "compare",
        "Compare runs on the same images: scores with intervals, paired differences, classes, and the images on which "
        "the runs disagree most.",
        """
wildcat compare runs/a runs/b
wildcat compare runs/a runs/b runs/c --data folder:new_images --out comparison.html
wildcat compare runs/a runs/b --json - | jq .metrics
""",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help=ANY_MODEL)
    parser.add_argument("--data", metavar="SPEC", help="dataset (default: the one on which the first run is scored)")
    parser.add_argument("--split", help="split to compare on (default: the one that evaluate scores)")
    parser.add_argument("--most", type=int, default=20, help="number of images of most disagreement (default: 20)")
    parser.add_argument("--out", metavar="FILE", help="write an HTML page, which needs no network")
    parser.add_argument("--json", metavar="FILE", help="write JSON; - prints it, and nothing else, to standard output")
    add_runtime(parser)
    add_device(parser)
    add_precision(parser)
    add_on_bad_image(parser, "error")
    arguments = parser.parse_args(argv)
    for file in filter(None, (arguments.out, arguments.json if arguments.json != "-" else None)):
        check_output(Path(file))

    from wildcat.apps.compare import compare_runs, comparison_page

    comparison, images = compare_runs(
        arguments.runs,
        arguments.data,
        split=arguments.split,
        most=arguments.most,
        device=arguments.device,
        precision=arguments.precision,
        runtime=arguments.runtime,
        on_bad_image=arguments.on_bad_image,
    )
    if arguments.json is not None:
        text = json.dumps(comparison.to_dict(), indent=1) + "\n"
        if arguments.json == "-":
            print(text, end="")
        else:
            write_atomically(Path(arguments.json), text.encode())
    if arguments.out is not None:
        write_atomically(Path(arguments.out), comparison_page(comparison, images).encode("utf-8", "backslashreplace"))
    if arguments.json == "-":
        return 0
    print(f"{comparison.images} images of {comparison.data}")
    for note in comparison.notes:
        print(printable(note))
    rows = [["metric", "run", "%", "95 % interval", f"difference to {comparison.runs[0]}"]]
    for metric in comparison.metrics:
        for index, run in enumerate(comparison.runs):
            difference = _interval(metric.difference_intervals[index], "+.1f")
            rows.append(
                [
                    metric.name,
                    run,
                    _number(metric.values[index]),
                    _interval(metric.intervals[index], ".1f"),
                    "" if index == 0 else f"{metric.differences[index]:+.1f} ({difference})",
                ]
            )
    print("\n".join(aligned(rows, right=0)))
    classes = [[f"class ({comparison.class_metric})", *comparison.runs]]
    classes += [[name, *map(_number, values)] for name, values in comparison.per_class.items()]
    print()
    print("\n".join(aligned(classes, right=len(comparison.runs))))
    if arguments.out is not None:
        where = sys.stderr if is_standard_output(Path(arguments.out)) else sys.stdout
        print(f"written: {arguments.out}", file=where)
    return 0


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1f}"


def _interval(bounds: tuple[float, float], form: str) -> str:
    return " to ".join("?" if math.isnan(bound) else format(bound, form) for bound in bounds)
