"""The parsers accept every command of README, docs, recipes, examples and the commands' help.

No command is run (test_readme.py runs those of README): the tests detect options, recipes, formats and names that no
longer exist.
"""

import re
import shlex
from collections.abc import Iterator
from importlib import import_module, util
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.conftest import REPOSITORY
from wildcat.cli import COMMANDS
from wildcat.cli.parser import CommandParser, parser_of
from wildcat.formats.write import FORMATS
from wildcat.metrics.scores import TASKS

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
HEADS = [*sorted((REPOSITORY / "wildcat" / "recipes").glob("*.yaml")), *sorted((REPOSITORY / "examples").glob("*.py"))]
OTHERS = {  # options of other programs on the pages
    *("--nnodes", "--nproc-per-node", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id", "--num_processes"),
    *("--nodes", "--ntasks-per-node", "--gpus-per-node", "--cpus-per-task", "--time", "--signal", "--requeue"),
    *("--full", "--commit", "--seeds", "--epochs", "--workers", "--lr"),
}


def commands_of(lines: list[str]) -> Iterator[list[str]]:
    """The words of each command in some lines of a shell: comments are removed, pipes and chains are split."""
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";|&"):
                yield words
                words = []
            else:
                words.append(word)


def shown(file: Path) -> list[list[str]]:
    """The commands of a page's blocks of code, or of the comments and strings of a file."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        blocks = re.findall(r"^```(?:bash|text|sh)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        lines = [line for block in blocks for line in block.splitlines()]
    else:
        lines = [line.removeprefix("#").strip() for line in text.splitlines()]
    starts = ("wildcat ", "python ", "make ", "torchrun ", "srun ", "accelerate ")
    kept: list[str] = []
    for line in lines:
        if line.strip().startswith(starts) or (kept and kept[-1].endswith("\\")):
            kept.append(line.strip())
    return [words for words in commands_of(kept) if words]


class Parsed(Exception):
    """Ends a command after its arguments have been read."""


def parsed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The parsed arguments of a command, whose own code runs up to the end of the parsing."""
    parse = CommandParser.parse_args

    def parse_and_end(self: CommandParser, *args: Any, **kwargs: Any) -> NoReturn:
        raise Parsed(parse(self, *args, **kwargs))

    with monkeypatch.context() as patched:
        patched.setattr(CommandParser, "parse_args", parse_and_end)
        with pytest.raises(Parsed) as end:
            import_module(f"wildcat.cli.{words[0]}").main(words[1:])
    return end.value.args[0]


def check(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One command, and those values of its options that its parser leaves to the command."""
    resumed = words[0] == "train" and "--resume" in words and "--data" not in words  # the run to resume names its data
    arguments = parsed([*words, *(["--data", "synthetic"] if resumed else [])], monkeypatch)
    for option, known in (("tasks", TASKS), ("formats", FORMATS)):
        given = arguments.get(option)
        assert given is None or set(given.split(",")) <= set(known)
    if words[0] == "reproduce":
        from wildcat.apps.reproduce.plan import experiments

        assert set(arguments["names"]) <= set(experiments())


@pytest.mark.parametrize("file", [*PAGES, *HEADS], ids=lambda file: file.name)
def test_commands_of_a_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for words in shown(file):
        if "wildcat" in words:  # under torchrun or accelerate
            check(words[words.index("wildcat") + 1 :], monkeypatch)
        elif words[0] == "wildcat":
            check(words[1:], monkeypatch)
        elif words[0] == "make":
            assert all(f"\n{target}:" in makefile for target in words[1:]), words
        elif words[:2] == ["python", "-m"]:
            assert util.find_spec(words[2]), words
        elif words[0] == "python":
            assert (REPOSITORY / words[1]).is_file(), words


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_of_the_help(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").touch()  # a recipe that an example writes before the next one reads it
    monkeypatch.chdir(tmp_path)
    epilog = parser_of(import_module(f"wildcat.cli.{command}").main).epilog
    examples = [words for words in commands_of(epilog.splitlines()[1:]) if words and words[0] == "wildcat"]
    for words in examples:
        check(words[1 : words.index(">") if ">" in words else None], monkeypatch)


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_options_in_sentences_exist(file: Path) -> None:
    """`wildcat train --scales` in a sentence is not a whole command; command and options must exist nevertheless."""
    text = re.sub(r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    parsers = {name: parser_of(import_module(f"wildcat.cli.{name}").main) for name in COMMANDS}
    options = {name: {*parser._option_string_actions} for name, parser in parsers.items()}
    for span in re.findall(r"`([^`]+)`", text):
        words = span.split()
        named = [word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)]
        if words[:1] == ["wildcat"] and len(words) > 1 and words[1].isalpha():
            assert words[1] in COMMANDS, span
            assert set(named) <= options[words[1]], span
        elif words[0].startswith("--") or words[0] in options:
            assert set(named) <= {*OTHERS, *(option for each in options.values() for option in each)}, span


def test_mistakes_in_commands_are_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "page.md"
    file.write_text(
        "`wildcat x`\n```bash\nwildcat train --data folder:a \\\n    --out b  # c\n"
        "wildcat evaluate r --data synthetic --json - | jq .images && make test\n```\n"
    )
    assert shown(file) == [
        ["wildcat", "train", "--data", "folder:a", "--out", "b"],
        ["wildcat", "evaluate", "r", "--data", "synthetic", "--json", "-"],
        ["jq", ".images"],
        ["make", "test"],
    ]
    for words in (["train", "--out", "b", "--epoch", "3"], ["train", "--out", "b", "--recipe", "none"]):
        with pytest.raises(Exception, match=r"--epoch|none"):
            check(words, monkeypatch)
    with pytest.raises(AssertionError):
        check(["predict", "r", "p", "--out", "o", "--formats", "jsn"], monkeypatch)
    assert sum(words[0] == "wildcat" for page in PAGES for words in shown(page)) > 30
