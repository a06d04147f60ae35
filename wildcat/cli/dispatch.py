"""The command line: finds the command, and turns errors into one line and an exit code."""

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module

from wildcat._version import __version__
from wildcat.errors import WildcatError, guess

# name -> what it does; each is the `main` of a file in wildcat/commands
COMMANDS = {
    "quickstart": "try everything on synthetic images; needs no files",
    "train": "train a model from image labels",
    "evaluate": "score a run on a dataset",
    "report": "one HTML page about a run: figures, curves, failures",
    "predict": "classify images, point at what is in them, segment them",
    "batch": "predict millions of images, on one machine or many",
    "export": "write a model as ONNX, OpenVINO or torch.export",
    "push": "share a run on the Hugging Face hub",
    "convert": "make a run of a checkpoint of the authors' code",
    "reproduce": "repeat tables and figures of the paper",
    "serve": "show a web page for images of yours",
    "completion": "let bash or zsh complete commands and options",
}


def _overview() -> str:
    lines = [f"  {name:<12}{about}" for name, about in COMMANDS.items()]
    return "\n".join(
        [
            "usage: wildcat COMMAND ...",
            "",
            "Classify images, point at what is in them and segment them, learning from image tags alone.",
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
    if argv[0] not in COMMANDS:
        raise WildcatError(f"unknown command {argv[0]!r}{guess(argv[0], COMMANDS)} (known: {', '.join(COMMANDS)})")
    from wildcat.cli.logs import logs_shown
    from wildcat.system.memory import keep_freed_memory

    # `serve` waits for most of its time: it gives memory back.
    memory = nullcontext() if argv[0] == "serve" else keep_freed_memory()
    with logs_shown(debug="--debug" in argv), memory:
        exit_code: int = import_module(f"wildcat.cli.{argv[0]}").main(argv[1:])
    return exit_code


def _message(error: Exception) -> str:
    """The message, without the number that an error of the system begins with."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 0, 1 if some images were skipped, 2 for a mistake of the user's."""
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
            print(f"wildcat: error: {_message(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("wildcat: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
