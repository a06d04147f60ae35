"""Finds the command, and turns errors into one line and an exit code."""

import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module

from wildcat._version import __version__
from wildcat.cli.terminal import printable, standard_streams
from wildcat.errors import WildcatError, first_line, guess

# name -> what it does; each is the `main` of a file in wildcat/cli
COMMANDS = {
    "quickstart": "train on synthetic images and look at the results; needs no files",
    "train": "train a model from image labels",
    "tune": "find settings for your images on features of a frozen backbone",
    "evaluate": "score a run on a dataset",
    "compare": "compare runs on the same images",
    "runs": "list runs: their data, settings that differ, scores",
    "report": "write an HTML page about a run: scores, curves, failures",
    "predict": "classify, localize and segment images",
    "batch": "predict millions of images, on one machine or many",
    "export": "write a model as ONNX, OpenVINO or torch.export file",
    "push": "publish a run on the Hugging Face hub",
    "convert": "convert a checkpoint of the authors' code to a run",
    "reproduce": "reproduce tables and figures of the paper",
    "serve": "serve a web page for your own images",
    "completion": "print a script for completion in bash or zsh",
}

# What needs less memory, by command; `train` itself names more
_LESS_MEMORY = {
    "train": "lower --batch-size, --image-size or --workers",
    "quickstart": "give it a recipe with a smaller batch_size (--recipe)",
    "tune": "lower --image-size",
    "evaluate": "lower --score-sizes and --map-sizes, or leave out --crf",
    "report": "lower --images",
    "predict": "predict fewer or smaller images at once, or leave out --crf",
    "batch": "lower --workers",
    "serve": "upload smaller images",
    "reproduce": "lower --batch-size or --image-size",
}


def _overview() -> str:
    lines = [f"  {name:<12}{about}" for name, about in COMMANDS.items()]
    return "\n".join(
        [
            "usage: wildcat COMMAND ...",
            "",
            "Classify, localize and segment images, with a model that learns from image-level labels alone.",
            "",
            "commands:",
            *lines,
            "",
            "`wildcat COMMAND --help` shows the options of a command, with examples. Start with `wildcat quickstart`.",
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
    """The message, without the error number that an OSError begins with."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _without_memory(error: BaseException, command: str) -> str | None:
    """The message for an error that means that memory ran out; None for any other error."""
    from wildcat.system.memory import lack_of_memory

    lack = lack_of_memory(error)
    if lack is None:
        return None
    advice = _LESS_MEMORY.get(command, "")
    return f"{lack} for this command{'; ' + advice if advice else ''}, or close other programs ({first_line(error)})"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 if images were skipped, 2 for a user error, 130 for Ctrl+C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        with standard_streams():
            return _dispatch(argv)
    except BrokenPipeError:
        return 0
    except (WildcatError, OSError) as error:  # OSError: a directory or file that cannot be made, read or written
        if "--debug" in argv:
            print(printable(traceback.format_exc()), end="", file=sys.stderr)
        else:
            message = None if isinstance(error, WildcatError) else _without_memory(error, argv[0] if argv else "")
            print(printable(f"wildcat: error: {message or _message(error)}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("wildcat: stopped", file=sys.stderr)
        return 130
    except Exception as error:  # libraries have types of their own for a lack of memory
        message = _without_memory(error, argv[0] if argv else "")
        if message is None or "--debug" in argv:
            raise
        print(printable(f"wildcat: error: {message}"), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
