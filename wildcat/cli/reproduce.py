"""``wildcat reproduce``."""

import dataclasses
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from wildcat import config as settings
from wildcat.cli.parser import add_settings, asked_first, command_parser, sizes
from wildcat.config import TrainConfig
from wildcat.errors import WildcatError

Number = TypeVar("Number", int, float)


def numbers(kind: Callable[[str], Number], option: str, text: str) -> list[Number]:
    """The numbers of an option, separated by commas, each once."""
    try:
        found = [kind(part) for part in text.split(",")]
    except ValueError:
        raise WildcatError(f"{option} must be numbers separated by commas, such as 0,1; got {text!r}") from None
    return list(dict.fromkeys(found))


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    from wildcat.apps.reproduce.plan import ALPHAS, MAPS, experiments, plan
    from wildcat.apps.reproduce.tables import finished

    known = experiments()
    recipe_name = asked_first("reproduce", argv, ["--recipe"]).recipe
    defaults: dict[str, Any] = settings.read_recipe(recipe_name) if recipe_name else {}
    parser = command_parser(
        "reproduce",
        "Repeat tables and figures of the paper on the data given: train what is missing, score it, and write the "
        "paper's and the measured figures side by side. Experiments in one folder share their runs. Stopped, it goes "
        "on when called again.",
        """
wildcat reproduce table6 --data voc07:data --recipe voc07 --out runs/paper
wildcat reproduce table5 table6 table7 figure4 --data voc07:data --recipe voc07-mini-tables --out runs/tables
wildcat reproduce table7 --data voc07:data --recipe voc07 --out runs/paper --dry-run
""",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"out of {', '.join(known)}")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of runs, tables and figures")
    parser.add_argument(
        "--recipe", metavar="NAME|FILE", help=f"settings: {', '.join(settings.recipe_names())}, or YAML"
    )
    parser.add_argument("--seeds", default="0,1", help="each row is trained once for each seed (default: 0,1)")
    shown = ",".join(map(str, MAPS))
    parser.add_argument("--maps", default=shown, help=f"values of M in table6 (default: {shown})")
    shown = ",".join(f"{alpha:g}" for alpha in ALPHAS)
    parser.add_argument("--alphas", default=shown, help=f"values of alpha in figure4 and figure5 (default: {shown})")
    parser.add_argument(
        "--scales", type=sizes, default=[], metavar="N,N,...", help="image sizes for the row that combines scales"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the runs and do nothing")
    add_settings(parser, defaults, without=("seed",))
    arguments = parser.parse_args(argv)
    fields = [field.name for field in dataclasses.fields(TrainConfig) if field.name != "seed"]
    recipe = TrainConfig(**{name: arguments[name] for name in fields if arguments[name] is not None})
    seeds = numbers(int, "--seeds", arguments.seeds)
    known = experiments(numbers(int, "--maps", arguments.maps), numbers(float, "--alphas", arguments.alphas))
    for name in arguments.names:
        if name not in known:
            raise WildcatError(f"no experiment {name!r} (known: {', '.join(known)})")
    chosen = [known[name] for name in dict.fromkeys(arguments.names)]

    if arguments.dry_run:
        runs = plan(chosen, recipe, seeds, arguments.scales)
        folder = Path(arguments.out) / "runs"
        scored = {run.name for run in runs if finished(folder / run.name, run.measures) is not None}
        for run in runs:
            print(f"{run.name}  {', '.join(run.serves)}" + ("  (finished)" if run.name in scored else ""))
        print(f"{len(runs)} runs of {recipe.epochs} epochs, {len(scored)} of them finished")
        return 0

    from wildcat.apps.reproduce.run import reproduce

    command = shlex.join(["wildcat", "reproduce", *argv])
    for page in reproduce(chosen, recipe, Path(arguments.out), seeds, command, arguments.scales):
        print(f"written: {page}")
    return 0
