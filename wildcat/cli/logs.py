"""Shows the library's log records on the terminal while a command runs."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from wildcat.cli.terminal import printable


class _TerminalHandler(logging.Handler):
    """Writes records as plain lines to standard error; warnings and errors begin with "warning: "."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, above the progress bars that are shown."""
        try:
            message = printable(self.format(record))
            if record.levelno >= logging.WARNING:
                message = f"warning: {message}"
            # Looked up for each record: tests and notebooks replace sys.stderr, and most commands never import tqdm.
            bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
            if bars is None:
                print(message, file=sys.stderr, flush=True)
            else:
                bars.write(message, file=sys.stderr)
                sys.stderr.flush()
        except Exception:  # as every logging handler: a line that cannot be written does not end the command
            self.handleError(record)


@contextmanager
def logs_shown(debug: bool = False) -> Iterator[None]:
    """Show records of the logger "wildcat" from INFO on (from DEBUG on with `debug`) while the context is active."""
    logger = logging.getLogger("wildcat")
    handler, level = _TerminalHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
