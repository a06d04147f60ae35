"""The command line: one file per command, which parses its arguments and prints; ``dispatch`` finds the command."""

from wildcat.cli.dispatch import COMMANDS, main

__all__ = ["COMMANDS", "main"]
