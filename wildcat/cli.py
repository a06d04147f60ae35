"""The command line: parsing only. Each command imports what it needs when it runs."""

import argparse
import dataclasses
import difflib
import os
import re
import sys
import traceback
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
from jsonargparse import ActionYesNo

from wildcat import config as settings
from wildcat._version import __version__
from wildcat.config import TrainConfig
from wildcat.errors import WildcatError


class _Parser(jsonargparse.ArgumentParser):
    """A parser whose errors are the one line that `main` prints."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        told = " ".join(str(message).split())
        kinds = typing.get_type_hints(TrainConfig)
        # jsonargparse names Python's types; say it as the settings do.
        if (wrong := re.match(r'Parser key "(\w+)": .*(?:Got value|Given value): (.*)', told)) and wrong[1] in kinds:
            told = f"{_flag(wrong[1])} must be {settings.told(kinds[wrong[1]])}; got {wrong[2]!r}"
        if unknown := re.match(r"unrecognized arguments: (--[\w-]+)", told):
            close = difflib.get_close_matches(unknown[1], self._option_string_actions, n=1)
            told += f"; did you mean {close[0]}?" if close else ""
        raise WildcatError(f"{told} (see {self.prog} --help)") from ex


def _sizes(value: Any) -> list[int]:
    """Sides in pixels: "320,448", or a list from a recipe."""
    try:
        return [int(v) for v in (value.split(",") if isinstance(value, str) else value)]
    except (TypeError, ValueError):
        told = f"sizes are whole numbers separated by commas, such as 320,448; got {value!r}"
        raise argparse.ArgumentTypeError(told) from None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _add_settings(parser: _Parser, defaults: dict[str, Any]) -> None:
    """One option for each setting of training."""
    hints = typing.get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        default = defaults.get(field.name)
        if default is None:
            default = field.default if field.default is not dataclasses.MISSING else None
        help_text = field.metadata["help"]
        if hints[field.name] is bool:
            parser.add_argument(
                _flag(field.name), action=ActionYesNo(yes_prefix="", no_prefix="no-"), default=default, help=help_text
            )
        else:
            kind = _sizes if hints[field.name] == list[int] else hints[field.name]
            choices = [v for v in typing.get_args(hints[field.name]) if isinstance(v, str)]
            shown = "|".join(choices) if choices else "V"
            if default is not None:
                help_text += f" (default: {default})"
            parser.add_argument(_flag(field.name), type=kind, default=default, help=help_text, metavar=shown)


def _parser(name: str, about: str, examples: str) -> _Parser:
    return _Parser(
        prog=f"wildcat {name}",
        description=about,
        epilog="examples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _add_debug(parser: _Parser) -> None:
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _train(argv: Sequence[str]) -> int:
    # Defaults come from the recipe, or from the run to continue, so these are looked at before the rest is parsed.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--recipe", nargs="?")
    first.add_argument("--out", nargs="?")
    first.add_argument("--resume", action="store_true")
    try:
        known, _ = first.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise WildcatError(f"{error} (see wildcat train --help)") from error
    defaults: dict[str, Any] = {}
    if known.resume and known.out and (Path(known.out) / "config.json").is_file():
        file = Path(known.out) / "config.json"
        defaults = settings.config_from_dict(settings.read_json(file).get("config"), str(file)).to_dict()
    elif known.recipe:
        defaults = settings.read_recipe(known.recipe)

    parser = _parser(
        "train",
        "Train a model from image labels alone, and write its run's folder.",
        """
wildcat train --data folder:my_pictures --out runs/mine
wildcat train --data tags:pictures.csv --out runs/tags --epochs 15
wildcat train --data voc07:data --recipe voc07 --out runs/voc07
wildcat train --out runs/voc07 --resume
""",
    )
    parser.add_argument("--out", required=True, metavar="RUN", help="the run's folder")
    parser.add_argument(
        "--recipe", metavar="NAME|FILE", help=f"settings: {', '.join(settings.recipe_names())}, or YAML"
    )
    parser.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    parser.add_argument("--download", action="store_true", help="fetch VOC or COCO first; wants --train-split")
    _add_settings(parser, defaults)
    _add_debug(parser)
    arguments = parser.parse_args(argv)
    values = {f.name: arguments[f.name] for f in dataclasses.fields(TrainConfig)}
    values = {name: value for name, value in values.items() if value is not None}

    from wildcat.train import train

    folder = train(TrainConfig(**values), arguments.out, resume=arguments.resume, download=arguments.download)
    print(f"trained: {folder}")
    return 0


def _evaluate(argv: Sequence[str]) -> int:
    parser = _parser(
        "evaluate",
        "Score a run on a data set. Scores are written to RUN/results.json, or where --json says.",
        """
wildcat evaluate runs/voc07 --data voc07:data
wildcat evaluate runs/mine --data folder:my_pictures --split test --tasks classification
wildcat evaluate runs/voc12 --data voc12:data --tasks segmentation --fit-background threshold --crf
""",
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder")
    parser.add_argument("--data", required=True, metavar="SPEC", help="data set, kind:path")
    parser.add_argument("--split", help="split to score; the data set's usual one unless given")
    parser.add_argument("--tasks", default="classification,pointing", help="separated by commas")
    parser.add_argument("--on-bad-image", choices=["error", "skip"], default="error", help="what to do with bad files")
    parser.add_argument("--json", metavar="FILE", help="where to write the results")
    parser.add_argument("--crf", action="store_true", help="score masks refined by the dense CRF as well")
    parser.add_argument(
        "--labels", choices=["predicted", "image"], default="predicted", help="which classes a mask may hold"
    )
    parser.add_argument(
        "--fit-background",
        choices=["threshold", "power"],
        help="first choose where masks have their background, on the run's training split, and keep it with the run",
    )
    _add_debug(parser)
    arguments = parser.parse_args(argv)

    from wildcat.checkpoint import read_run, save_background, write_json
    from wildcat.data import default_splits
    from wildcat.evaluate import evaluate, fit_masks, results_file, summary
    from wildcat.predict import load

    predictor = load(arguments.run)
    if arguments.fit_background:
        config = read_run(Path(arguments.run)).config
        split = config.train_split or default_splits(config.data)[0]
        background, miou = fit_masks(predictor, config.data, split, arguments.fit_background)
        save_background(Path(arguments.run), background, f"{config.data} {split}", miou)
        predictor = load(arguments.run)
        print(f"background: {background}, mIoU {miou:.1f} on the masks of {split}")
    results = evaluate(
        predictor,
        arguments.data,
        split=arguments.split,
        tasks=arguments.tasks.split(","),
        on_bad_image=arguments.on_bad_image,
        labels=arguments.labels,
        crf=arguments.crf,
    )
    print(summary(results))
    file = Path(arguments.json) if arguments.json else results_file(arguments.run)
    if file is not None:
        write_json(file, results)
        print(f"written: {file}")
    return 0


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


def _predict(argv: Sequence[str]) -> int:
    parser = _parser(
        "predict",
        "Classify pictures, point at what is in them, and segment them.",
        """
wildcat predict imagenet cat.jpg --out found
wildcat predict runs/mine pictures/ --out found --formats json,mask --crf
""",
    )
    parser.add_argument("run", metavar="RUN", help='a run\'s folder, a hub name, or "imagenet"')
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="picture files, or folders of them")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--formats", default="json,overlay", help="separated by commas: json, overlay, mask")
    parser.add_argument("--threshold", type=float, default=0.5, help="probability from which a class is predicted")
    parser.add_argument("--crf", action="store_true", help="refine masks with the dense CRF")
    parser.add_argument("--batch-size", type=int, default=8, help="pictures per pass")
    _add_debug(parser)
    arguments = parser.parse_args(argv)
    formats = arguments.formats.split(",")
    if not 0 <= arguments.threshold <= 1:
        raise WildcatError(f"--threshold is a probability, from 0 to 1; got {arguments.threshold:g}")

    from wildcat.formats import FORMATS, write_predictions
    from wildcat.predict import items_of, load

    for name in formats:
        if name not in FORMATS:
            raise WildcatError(f"unknown format {name!r}; known: {', '.join(FORMATS)}")
    from tqdm import tqdm

    pictures = _pictures(arguments.pictures)
    predictor = load(arguments.run)
    stream = predictor.stream(items_of(pictures), batch_size=arguments.batch_size, on_error="yield", multi_maps=False)
    shown = tqdm(stream, "predicting", len(pictures), unit=" images", disable=None)
    failures = write_predictions(shown, Path(arguments.out), formats, arguments.threshold, arguments.crf)
    for failure in failures:
        print(f"skipped: {failure.message}", file=sys.stderr)
    print(f"{len(pictures) - len(failures)} of {len(pictures)} pictures: {arguments.out}")
    return 1 if failures else 0


def _quickstart(argv: Sequence[str]) -> int:
    parser = _parser(
        "quickstart",
        "Train on drawn pictures, score, and show the embedded ImageNet classifier on photographs; needs no files.",
        "wildcat quickstart --out runs/quickstart",
    )
    parser.add_argument("--out", default="runs/quickstart", metavar="DIR", help="folder for everything it makes")
    parser.add_argument("--recipe", default="quickstart", metavar="NAME|FILE", help="settings of the training")
    _add_debug(parser)
    arguments = parser.parse_args(argv)

    from wildcat.quickstart import quickstart

    quickstart(Path(arguments.out), settings.read_recipe(arguments.recipe))
    return 0


_COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "quickstart": (_quickstart, "try everything on drawn pictures; needs no files"),
    "train": (_train, "train a model from image labels"),
    "evaluate": (_evaluate, "score a run on a data set"),
    "predict": (_predict, "classify pictures and point at what is in them"),
}


def _overview() -> str:
    lines = [f"  {name:<12}{about}" for name, (_, about) in _COMMANDS.items()]
    return "\n".join(
        [
            "usage: wildcat COMMAND ...",
            "",
            "Classify pictures, point at what is in them and segment them, learning from image tags alone.",
            "",
            "commands:",
            *lines,
            "",
            "`wildcat COMMAND --help` tells more, with examples.",
        ]
    )


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if argv[0] == "--version":
        print(__version__)
        return 0
    if argv[0] not in _COMMANDS:
        close = difflib.get_close_matches(argv[0], _COMMANDS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise WildcatError(f"unknown command {argv[0]!r}{hint} (known: {', '.join(_COMMANDS)})")
    return _COMMANDS[argv[0]][0](argv[1:])


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 0, 1 if some pictures were skipped, 2 for a mistake of the user's."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            return _dispatch(argv)
        finally:
            sys.stdout.flush()  # a reader that has gone (`| head`) is met here, not when Python ends
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (WildcatError, OSError) as error:  # OSError: a folder or file that cannot be made, read or written
        if "--debug" in argv:
            traceback.print_exc()
        else:
            print(f"wildcat: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("wildcat: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
