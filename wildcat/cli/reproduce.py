"""``wildcat reproduce``: parses settings and calls :func:`wildcat.apps.reproduce.run.reproduce`."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from wildcat.cli.parser import add_recipe, add_settings, command_parser, config_of, parse_early, sizes
from wildcat.config import read_recipe
from wildcat.errors import WildcatError, guess

Number = TypeVar("Number", int, float)


def numbers(kind: Callable[[str], Number], option: str, text: str) -> list[Number]:
    """The numbers of an option, separated by commas; repeated ones are dropped.

    >>> numbers(int, "--seeds", "0,1,0")
    [0, 1]
    """
    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError:
        raise WildcatError(f"{option} must be numbers separated by commas, such as 0,1; got {text!r}") from None
    return list(dict.fromkeys(values))


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    from wildcat.apps.reproduce.plan import ALPHAS, MAPS, as_in_the_paper, experiments, plan
    from wildcat.apps.reproduce.tables import finished

    known = experiments()
    recipe_name = parse_early("reproduce", argv, ["--recipe"]).recipe
    defaults: dict[str, Any] = read_recipe(recipe_name) if recipe_name else {}
    parser = command_parser(
        "reproduce",
        "Repeat tables and figures of the paper on a dataset: train the runs that are missing, score them, and write "
        "the paper's values and the measured ones side by side. Experiments in one directory share their runs. The "
        "same command again resumes where it stopped.",
        """
wildcat reproduce table6 --data voc07:data --recipe voc07 --out runs/paper
wildcat reproduce table5 table6 table7 figure4 --data voc07:data --recipe voc07-mini-tables --out runs/tables
wildcat reproduce table7 --data voc07:data --recipe voc07 --out runs/paper --dry-run
wildcat reproduce table5 table6 table7 figure4 --data voc07:data --recipe frozen-tables --out runs/frozen
""",
        usage="wildcat reproduce NAME ... --data SPEC --out DIR [options]",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"experiments: {', '.join(known)}")
    groups = add_settings(parser, defaults, without=("seed",))
    groups["most used"].add_argument("--out", required=True, metavar="DIR", help="directory for runs, tables, figures")
    add_recipe(groups["most used"])
    group = parser.add_argument_group("experiments")
    group.add_argument(
        "--seeds", help="each row is trained once for each seed (default: 0,1; with --frozen 0,1,2,3,4,5,6,7,8,9)"
    )
    shown = ",".join(map(str, MAPS))
    group.add_argument("--maps", default=shown, help=f"values of M in table6 (default: {shown})")
    shown = ",".join(f"{alpha:g}" for alpha in ALPHAS)
    group.add_argument("--alphas", default=shown, help=f"values of alpha in figure4 and figure5 (default: {shown})")
    group.add_argument(
        "--scales", type=sizes, default=[], metavar="N,N,...", help="image sizes for the row that combines scales"
    )
    group.add_argument(
        "--rates",
        metavar="X,X,...",
        help="with --frozen: learning rates to choose from (default: the recipe's times 0.5, 1, 2, 4, 8, 16, 32, 64)",
    )
    group.add_argument(
        "--held-out",
        type=float,
        metavar="X",
        help="with --frozen: share of the training images on which the rates are chosen (default: 0.25)",
    )
    group.add_argument("--dry-run", action="store_true", help="list the runs, and train nothing")
    arguments = parser.parse_args(argv)
    recipe = as_in_the_paper(config_of(arguments, without=("seed",)))
    seeds = numbers(int, "--seeds", arguments.seeds or ("0,1,2,3,4,5,6,7,8,9" if recipe.frozen else "0,1"))
    known = experiments(numbers(int, "--maps", arguments.maps), numbers(float, "--alphas", arguments.alphas))
    for name in arguments.names:
        if name not in known:
            raise WildcatError(f"no experiment {name!r}{guess(name, known)} (known: {', '.join(known)})")
    chosen = [known[name] for name in dict.fromkeys(arguments.names)]
    command = shlex.join(["wildcat", "reproduce", *argv])

    if recipe.frozen:
        if arguments.scales:
            raise WildcatError("--frozen trains heads at one image size; leave out --scales")
        from wildcat.apps.reproduce import frozen

        choice = frozen.RateChoice(
            tuple(numbers(float, "--rates", arguments.rates) if arguments.rates else frozen.default_rates(recipe)),
            frozen.HELD_OUT if arguments.held_out is None else arguments.held_out,
        )
        if arguments.dry_run:
            print(frozen.describe_work(chosen, recipe, seeds, choice))
            return 0
        for page in frozen.reproduce_frozen(chosen, recipe, Path(arguments.out), seeds, command, choice):
            print(f"written: {page}")
        return 0
    for option in ("rates", "held_out"):
        if arguments[option] is not None:
            raise WildcatError(f"--{option.replace('_', '-')} is for --frozen, which chooses a learning rate by row")

    if arguments.dry_run:
        runs = plan(chosen, recipe, seeds, arguments.scales)
        folder = Path(arguments.out) / "runs"
        scored = {run.name for run in runs if finished(folder / run.name, run.measures) is not None}
        for run in runs:
            print(f"{run.name}  {', '.join(run.serves)}" + ("  (finished)" if run.name in scored else ""))
        print(f"{len(runs)} runs of {recipe.epochs} epochs, {len(scored)} of them finished")
        return 0

    from wildcat.apps.reproduce.run import reproduce

    for page in reproduce(chosen, recipe, Path(arguments.out), seeds, command, arguments.scales):
        print(f"written: {page}")
    return 0
