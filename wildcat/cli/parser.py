"""What the parsers of all commands share."""

import argparse
import dataclasses
import re
import typing
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn

import jsonargparse
from jsonargparse import ActionYesNo

from wildcat import config as settings
from wildcat.config import TrainConfig
from wildcat.errors import WildcatError, guess

_wanted = ContextVar("_wanted", default=False)


class _Made(Exception):
    """Carries a parser out of the command that made it."""


class CommandParser(jsonargparse.ArgumentParser):
    """A parser whose errors are the one line that `main` prints."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse, or hand the parser itself to :func:`parser_of`."""
        if _wanted.get():
            raise _Made(self)
        return super().parse_args(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what ``main`` prints."""
        message = " ".join(str(message).split())
        kinds = typing.get_type_hints(TrainConfig)
        # jsonargparse names Python's types; say it as the settings do.
        if (wrong := re.match(r'Parser key "(\w+)": .*(?:Got value|Given value): (.*)', message)) and wrong[1] in kinds:
            message = f"{flag(wrong[1])} must be {settings.describe_type(kinds[wrong[1]])}; got {wrong[2]!r}"
        elif wrong := re.match(r"Parser key \"(\w+)\": Expected a <class '(int|float)'>. Got value: (.*)", message):
            kind = {"int": int, "float": float}[wrong[2]]
            message = f"{flag(wrong[1])} must be {settings.describe_type(kind)}; got {wrong[3]!r}"
        if unknown := re.match(r"unrecognized arguments: (--[\w-]+)", message):
            names = [option.lstrip("-") for option in self._option_string_actions]  # dashes are no likeness
            message += guess(unknown[1].lstrip("-"), names, before="--")
        raise WildcatError(f"{message} (see {self.prog} --help)") from ex


def sizes(value: Any) -> list[int]:
    """Sides in pixels: "320,448", or a list from a recipe."""
    try:
        return [int(v) for v in (value.split(",") if isinstance(value, str) else value)]
    except (TypeError, ValueError):
        message = f"sizes are whole numbers separated by commas, such as 320,448; got {value!r}"
        raise argparse.ArgumentTypeError(message) from None


def threshold(value: Any) -> Any:
    """A probability, or those of some classes: 0.4, or cat=0.3,dog=0.6."""
    if not isinstance(value, str):  # a default, or what this has returned before
        return value
    try:
        if "=" not in value:
            return _probability(value)
        return {name: _probability(number) for name, _, number in (part.rpartition("=") for part in value.split(","))}
    except ValueError:
        message = f"a threshold is a probability, from 0 to 1, or CLASS=P,CLASS=P; got {value}"
        raise argparse.ArgumentTypeError(message) from None


def _probability(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError
    return number


def flag(name: str) -> str:
    """The option of a setting."""
    return "--" + name.replace("_", "-")


def asked_first(
    name: str, argv: Sequence[str], options: Sequence[str], flags: Sequence[str] = ()
) -> argparse.Namespace:
    """The options that decide on the defaults of the others, read before the rest is parsed."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in options:
        parser.add_argument(option, nargs="?")
    for option in flags:
        parser.add_argument(option, action="store_true")
    try:
        known, _ = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise WildcatError(f"{error} (see wildcat {name} --help)") from error
    return known


def add_settings(parser: CommandParser, defaults: dict[str, Any], without: Sequence[str] = ()) -> None:
    """One option for each setting of training; ``defaults`` stand before those of the settings."""
    hints = typing.get_type_hints(TrainConfig)
    for field in [field for field in dataclasses.fields(TrainConfig) if field.name not in without]:
        default = defaults.get(field.name)
        if default is None:
            default = field.default if field.default is not dataclasses.MISSING else None
        help_text = field.metadata["help"]
        if hints[field.name] is bool:
            help_text += f" (default: {'yes' if default else 'no'})"
            parser.add_argument(
                flag(field.name), action=ActionYesNo(yes_prefix="", no_prefix="no-"), default=default, help=help_text
            )
        else:
            kind = sizes if hints[field.name] == list[int] else hints[field.name]
            choices = [v for v in typing.get_args(hints[field.name]) if isinstance(v, str)]
            shown = "|".join(choices) if choices else "V"
            if default is not None:
                help_text += f" (default: {default})"
            parser.add_argument(flag(field.name), type=kind, default=default, help=help_text, metavar=shown)


def command_parser(name: str, about: str, examples: str) -> CommandParser:
    """A parser with a command's name, examples in its help, and ``--debug``."""
    parser = CommandParser(
        prog=f"wildcat {name}",
        description=about,
        epilog="examples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def parser_of(command: Callable[[list[str]], int]) -> CommandParser:
    """The parser of a command's ``main``, which is not run any further."""
    token = _wanted.set(True)
    try:
        command([])
    except _Made as made:
        parser: CommandParser = made.args[0]
        return parser
    finally:
        _wanted.reset(token)
    raise TypeError(f"{command} parses no arguments")


def add_device(parser: CommandParser) -> None:
    """The option of where the network computes."""
    parser.add_argument(
        "--device", default="auto", help="where the network computes: cpu, cuda:1, ...; auto: the first GPU, if any"
    )


def add_runtime(parser: CommandParser) -> None:
    """The option of what the network runs in."""
    parser.add_argument(
        "--runtime",
        choices=["torch", "onnx", "openvino", "auto"],
        default="torch",
        help="what the network runs in; auto: the fastest that is installed",
    )


def add_reading(parser: CommandParser) -> None:
    """The options of how images are read and which classes count as predicted."""
    parser.add_argument(
        "--threshold",
        type=threshold,
        default=0.5,
        metavar="P|CLASS=P,...",
        help="probability from which a class is predicted, for all classes or by class (default: 0.5)",
    )
    parser.add_argument("--batch-size", type=int, default=8, help="images per pass (default: 8)")
    parser.add_argument(
        "--precision", choices=["auto", "fp32", "bf16"], default="auto", help="auto: bf16 where it is faster"
    )
