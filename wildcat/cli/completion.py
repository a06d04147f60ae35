"""``wildcat completion``: prints a script for bash or zsh, made from the parsers of all commands."""

from collections.abc import Sequence
from importlib import import_module

from wildcat.cli.dispatch import COMMANDS
from wildcat.cli.parser import CommandParser, command_parser, parser_of
from wildcat.config import recipe_names

SCRIPT = """\
_wildcat() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
    COMPREPLY=()
    if [[ $COMP_CWORD -eq 1 ]]; then
        words="{commands}"
    elif [[ $word == -* ]]; then
        case "${{COMP_WORDS[1]}}" in
{options}
        esac
    else
        case "${{COMP_WORDS[1]}} $before" in
{values}
        esac
    fi
    [[ -n $words ]] && COMPREPLY=( $(compgen -W "$words" -- "$word") )
}}
complete -o default -F _wildcat wildcat
"""  # without words to offer, the shell completes file names
ZSH = "#compdef wildcat\nautoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = command_parser(
        "completion",
        "Print a script for the shell that completes commands, options and their values.",
        """
wildcat completion bash > ~/.local/share/bash-completion/completions/wildcat
eval "$(wildcat completion zsh)"
""",
    )
    parser.add_argument("shell", choices=["bash", "zsh"], help="bash or zsh")
    arguments = parser.parse_args(argv)
    print((ZSH if arguments.shell == "zsh" else "") + script(), end="")
    return 0


def script() -> str:
    """The script for bash, with the options and values that the parsers of the commands have."""
    names = sorted(COMMANDS)
    parsers = {name: parser_of(import_module(f"wildcat.cli.{name}").main) for name in names}
    options = [f'        {name}) words="{" ".join(_options(parser))}" ;;' for name, parser in parsers.items()]
    values = [
        f'        "{name} {option}") words="{words}" ;;'
        for name, parser in parsers.items()
        for option, words in _values(parser).items()
    ]
    return SCRIPT.format(commands=" ".join(names), options="\n".join(options), values="\n".join(values))


def _options(parser: CommandParser) -> list[str]:
    return [option for option in parser._option_string_actions if option.startswith("--")]


def _values(parser: CommandParser) -> dict[str, str]:
    """Option -> its values, for options with a list of choices; positional arguments are listed under the command."""
    values = {}
    command = parser.prog.split()[-1]  # the word before the first positional argument
    for option, action in [(o, a) for a in parser._actions for o in a.option_strings or [command]]:
        shown = str(action.metavar or "")
        if action.choices:
            values[option] = " ".join(map(str, action.choices))
        elif option == "--recipe":
            values[option] = " ".join(recipe_names())
        elif "|" in shown and shown == shown.lower():
            values[option] = shown.replace("|", " ")
    return values
