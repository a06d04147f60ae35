"""``wildcat runs``: parses arguments and prints the list of :func:`wildcat.runs.listing.list_runs`."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wildcat.cli.parser import command_parser
from wildcat.cli.terminal import aligned

logger = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = command_parser(
        "runs",
        "List the runs in and below a folder: their data, the settings in which they differ, and their scores.",
        """
wildcat runs runs
wildcat runs runs --sort mAP
wildcat runs runs --sort epochs --json
""",
    )
    parser.add_argument("folder", metavar="DIR", help="folder of run directories")
    parser.add_argument(
        "--sort", metavar="KEY", default="name", help='"name", a metric such as mAP (the best first), or a setting'
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with all settings and results")
    arguments = parser.parse_args(argv)

    from wildcat.runs.listing import differing_settings, list_runs, sorted_runs

    runs, problems = list_runs(Path(arguments.folder))
    for problem in problems:
        logger.warning("%s", problem)
    runs = sorted_runs(runs, arguments.sort)
    if arguments.json:
        values = [
            {
                "run": run.name,
                "settings": run.settings,
                "results": None if run.results is None else run.results.to_dict(),
            }
            for run in runs
        ]
        print(json.dumps(values, indent=1))
        return 0
    settings = differing_settings(runs) if runs else []
    metrics = list(dict.fromkeys(name for run in runs for name in run.scores))
    head = ["run", "data", *settings, "scored", *metrics]
    rows = [
        [
            run.name,
            run.data,
            *(_shown(run.settings.get(name)) for name in settings),
            run.scored or "not scored",
            *(f"{run.scores[name]:.1f}" if name in run.scores else "" for name in metrics),
        ]
        for run in runs
    ]
    for line in aligned([head, *rows], right=len(metrics)):
        print(line)
    return 0


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value)
