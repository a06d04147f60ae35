"""The parser class of all commands, and the options that several of them have.

The Python side of it is :class:`wildcat.TrainConfig`, whose fields become options of ``train`` and ``reproduce``.
"""

import argparse
import dataclasses
import json
import re
import typing
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn, Protocol

import jsonargparse
from jsonargparse import ActionYesNo

from wildcat.config import SECTIONS, TrainConfig, describe_type, recipe_names
from wildcat.errors import WildcatError, guess

ANY_MODEL = 'run directory, name on the Hugging Face hub, "imagenet" (needs no training), or exported file'

_parser_only = ContextVar("_parser_only", default=False)


class OptionGroup(Protocol):
    """A parser, or a group of options under a heading in its help."""

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """Add an option."""


class _ParserReady(Exception):
    """Carries a parser out of the ``main`` that made it, for :func:`parser_of`."""


class CommandParser(jsonargparse.ArgumentParser):
    """A parser that raises :class:`WildcatError` for wrong arguments, with one line as its message."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse, or hand the parser itself to :func:`parser_of`."""
        if _parser_only.get():
            raise _ParserReady(self)
        return super().parse_args(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what ``main`` prints."""
        message = " ".join(str(message).split())
        kinds = typing.get_type_hints(TrainConfig)
        # jsonargparse names Python's types; settings describe theirs in words.
        if (wrong := re.match(r'Parser key "(\w+)": .*(?:Got value|Given value): (.*)', message)) and wrong[1] in kinds:
            message = f"{flag(wrong[1])} must be {describe_type(kinds[wrong[1]])}; got {wrong[2]!r}"
        elif wrong := re.match(r"Parser key \"(\w+)\": Expected a <class '(int|float)'>. Got value: (.*)", message):
            kind = {"int": int, "float": float}[wrong[2]]
            message = f"{flag(wrong[1])} must be {describe_type(kind)}; got {wrong[3]!r}"
        elif missing := re.match(r"the following arguments are required: (.*)", message):
            names = [self._shown_name(name) for name in missing[1].split(", ")]
            message = f"required: {', '.join(names)}"
            if "--data" in names:
                message += ", for example --data folder:my_images"
        elif unknown := re.match(r"unrecognized arguments: (--[\w-]+)", message):
            known = [option.lstrip("-") for option in self._option_string_actions]  # equal dashes are no similarity
            message += guess(unknown[1].lstrip("-"), known, before="--")
        raise WildcatError(f"{message} (see {self.prog} --help)") from ex

    def _shown_name(self, name: str) -> str:
        """An argument as the help shows it: --out, or IMAGE."""
        action = next(action for action in self._actions if name in (action.dest, action.metavar))
        return action.option_strings[0] if action.option_strings else str(action.metavar)


def command_parser(name: str, about: str, examples: str, usage: str | None = None) -> CommandParser:
    """A parser with a command's name, examples in its help, and ``--debug``."""
    parser = CommandParser(
        prog=f"wildcat {name}",
        usage=usage,
        description=about,
        epilog="examples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error, and more messages")
    return parser


def parser_of(command: Callable[[list[str]], int]) -> CommandParser:
    """The parser that a command's ``main`` makes; the command itself is not run."""
    token = _parser_only.set(True)
    try:
        command([])
    except _ParserReady as ready:
        parser: CommandParser = ready.args[0]
        return parser
    finally:
        _parser_only.reset(token)
    raise TypeError(f"{command} parses no arguments")


def parse_early(
    name: str, argv: Sequence[str], options: Sequence[str], flags: Sequence[str] = ()
) -> argparse.Namespace:
    """Parse only the options that decide on the defaults of the others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in options:
        parser.add_argument(option, nargs="?")
    for option in flags:
        parser.add_argument(option, action="store_true")
    try:
        arguments, _ = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise WildcatError(f"{error} (see wildcat {name} --help)") from error
    return arguments


# Types of options


def sizes(value: Any) -> list[int]:
    """Image sides in pixels: "320,448", or a list from a recipe."""
    try:
        return [int(v) for v in (value.split(",") if isinstance(value, str) else value)]
    except (TypeError, ValueError):
        message = f"sizes are whole numbers separated by commas, such as 320,448; got {value!r}"
        raise argparse.ArgumentTypeError(message) from None


def threshold(value: Any) -> Any:
    """A probability for all classes, "0.4", or for some of them, "cat=0.3,dog=0.6" or a JSON object.

    A name may hold commas and equals signs: it ends at an equals sign with a number and a comma, or the end, behind it.

    >>> threshold("cat=0.3,no=yes, or no=0.6")
    {'cat': 0.3, 'no=yes, or no': 0.6}
    """
    if not isinstance(value, str):  # a default, or a value that has been converted before
        return value
    try:
        if "=" not in value:
            return _probability(value)
        if value.lstrip().startswith("{"):
            return {name: _probability(number) for name, number in json.loads(value).items()}
        by_class, start = {}, 0
        for found in re.finditer(r"=([^,=]+)(?:,|$)", value):
            try:
                number = float(found[1])
            except ValueError:  # a part of a name
                continue
            by_class[value[start : found.start()]] = _probability(number)
            start = found.end()
        if start < len(value):
            raise ValueError
        return by_class
    except (ValueError, TypeError, AttributeError):
        message = f"a threshold is a probability, 0..1 (0.5 for 50 %), or CLASS=P,CLASS=P; got {value}"
        raise argparse.ArgumentTypeError(message) from None


def _probability(value: str | float) -> float:
    number = float(value)
    if not 0 <= number <= 1:
        raise ValueError
    return number


def flag(name: str) -> str:
    """The option of a setting.

    >>> flag("batch_size")
    '--batch-size'
    """
    return "--" + name.replace("_", "-")


# Settings of training


def add_settings(
    parser: CommandParser, defaults: dict[str, Any], without: Sequence[str] = ()
) -> dict[str, OptionGroup]:
    """Add one option for each setting of training, in groups: the most used ones first, then by section.

    Args:
        parser: the parser of ``train`` or ``reproduce``.
        defaults: values of a recipe or of a run to resume; they replace the settings' own defaults.
        without: settings that get no option.

    Returns:
        The groups by title, for further options: "most used" and :data:`wildcat.config.SECTIONS`.
    """
    groups: dict[str, OptionGroup] = {title: parser.add_argument_group(title) for title in ("most used", *SECTIONS)}
    types = typing.get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        if field.name in without:
            continue
        about = field.metadata["about"]
        default = defaults.get(field.name)
        if default is None and field.default is not dataclasses.MISSING:
            default = field.default
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        _add_setting(
            groups["most used" if about.common else about.section],
            field.name,
            types[field.name],
            about.help + (" (default: by the data)" if about.automatic and default is None else ""),
            default,
            required=needed and default is None,
        )
    return groups


def _add_setting(group: OptionGroup, name: str, kind: Any, help_text: str, default: Any, *, required: bool) -> None:
    if kind is bool:
        if default is not None:
            help_text += f" (default: {'yes' if default else 'no'})"
        group.add_argument(
            flag(name), action=ActionYesNo(yes_prefix="", no_prefix="no-"), default=default, help=help_text
        )
        return
    if default is not None:
        help_text += f" (default: {default})"
    group.add_argument(
        flag(name),
        type=sizes if kind == list[int] else kind,
        default=default,
        required=required,
        help=help_text,
        metavar=_metavar(name, kind),
    )


def _metavar(name: str, kind: Any) -> str:
    """How the help shows the value of a setting: its choices, or a word for its type."""
    special = {"data": "SPEC", "weights": "FILE", "kmax": "K", "kmin": "K"}
    if name in special:
        return special[name]
    if choices := [choice for choice in typing.get_args(kind) if isinstance(choice, str)]:
        return "|".join(choices)
    if kind == list[int]:
        return "N,N,..."
    (first, *_) = typing.get_args(kind) or (kind,)  # of int | None: int
    return {float: "X", str: "NAME"}.get(first, "N")


def config_of(arguments: Any, without: Sequence[str] = ()) -> TrainConfig:
    """The settings among parsed arguments; those without a value get their default."""
    names = [field.name for field in dataclasses.fields(TrainConfig) if field.name not in without]
    return TrainConfig(**{name: arguments[name] for name in names if arguments[name] is not None})


def add_recipe(group: OptionGroup) -> None:
    """Add the option of a recipe, whose settings replace the defaults."""
    names = ", ".join(recipe_names())
    group.add_argument(
        "--recipe", metavar="NAME|FILE", help=f"settings that differ from the defaults: {names}, or a YAML file"
    )


# Options of several commands


def add_device(parser: CommandParser) -> None:
    """Add the option of the device that runs the network."""
    parser.add_argument(
        "--device", default="auto", help="device that runs the network: cpu, cuda:1, ...; auto: the first GPU, if any"
    )


def add_runtime(parser: CommandParser) -> None:
    """Add the option of the library that runs the network."""
    parser.add_argument(
        "--runtime",
        choices=["torch", "onnx", "openvino", "auto"],
        default="torch",
        help="library that runs the network; auto: the fastest of those installed (default: torch)",
    )


def add_precision(parser: CommandParser) -> None:
    """Add the option of the precision; the default is the same in all commands, so that they give the same scores."""
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16", "auto"],
        default="fp32",
        help="precision of the backbone; bf16 is faster on some machines and changes scores a little; "
        "auto: bf16 where it is faster (default: fp32)",
    )


def add_on_bad_image(parser: CommandParser, default: str = "skip") -> None:
    """Add the option of what happens to images that cannot be read: "skip", "partial", or the command's default."""
    parser.add_argument(
        "--on-bad-image",
        choices=list(dict.fromkeys([default, "skip", "partial"])),
        default=default,
        help="what to do when an image cannot be read; partial reads a JPEG that was cut as far as it goes (default: "
        f"{default})",
    )


def _at_least_one(value: Any) -> int:
    """The parser also passes the default through this, a number."""
    if not str(value).isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"it must be a whole number, at least 1; got {value}")
    return int(value)


def add_prediction(parser: CommandParser) -> None:
    """Add the options of how images are predicted and which classes count as predicted."""
    parser.add_argument(
        "--threshold",
        type=threshold,
        default=0.5,
        metavar="P|CLASS=P,...",
        help="probability, 0..1, from which a class is predicted, for all classes or by class (default: 0.5)",
    )
    parser.add_argument("--batch-size", type=_at_least_one, default=8, help="images per pass (default: 8)")
