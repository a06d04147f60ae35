"""The server of the web page."""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from wildcat.apps.serve.access import LOCAL_NAMES, access_of, shown_address
from wildcat.apps.serve.connections import MAX_CONNECTIONS, protocol
from wildcat.apps.serve.guard import Guard
from wildcat.apps.serve.page import Page
from wildcat.apps.serve.uploads import cleaned_regularly, upload_folder
from wildcat.apps.serve.viewer import Viewer
from wildcat.errors import WildcatError
from wildcat.export.network import Runtime
from wildcat.prediction.loading import load
from wildcat.system.devices import AUTO, Precision
from wildcat.system.signals import signals_handled

logger = logging.getLogger(__name__)

PORTS = range(7860, 7960)  # tried in this order if no port is given
MAX_FILE_BYTES = 64 * 2**20

_NO_GRADIO = "the page needs gradio: pip install 'wildcat-wsl[app]'"


def serve(
    run: str | Path,
    *,
    device: str = AUTO,
    precision: Precision = "fp32",
    runtime: Runtime = "torch",
    host: str = "127.0.0.1",
    port: int | None = None,
    token: str | None = None,
    allow_hosts: Sequence[str] = (),
) -> None:
    """Serve the web page until Ctrl+C. Its address is logged at level INFO.

    Args:
        run: run directory, hub name, "imagenet" or exported file.
        device: device of the network, as for :func:`wildcat.load`.
        precision: of the backbone, as for :func:`wildcat.load`.
        runtime: runtime of the network, as for :func:`wildcat.load`.
        host: address to listen on; 127.0.0.1 accepts connections from this machine only, 0.0.0.0 from all machines.
        port: port to listen on; None takes the first free one of :data:`PORTS`.
        token: what each request must carry, at least 8 letters and digits; None for a random one if other machines can
            reach the page, directly (``host``) or through a proxy (``allow_hosts``), and none otherwise; "" for none at
            all. It is in the logged address.
        allow_hosts: further names under which the page is reached, such as that of a reverse proxy.

    Raises:
        WildcatError: if gradio is not installed, the run cannot be read, the port is in use, or the token or a name is
            invalid.

    >>> serve("runs/mine", port=7860)  # doctest: +SKIP
    """
    if find_spec("gradio") is None:
        raise WildcatError(_NO_GRADIO)
    predictor = load(run, device=device, precision=precision, runtime=runtime)
    viewer = Viewer(predictor)
    import uvicorn

    with _listening(host, port) as listener, _ended_by_signals() as stop:
        access = access_of(listener, host, allow_hosts, token)
        with upload_folder() as uploads, cleaned_regularly(uploads):
            config = uvicorn.Config(
                Guard(create_app(viewer, Path(run).name), access, uploads),
                http=protocol(),
                ws="none",
                log_level="critical",
                server_header=False,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_graceful_shutdown=1,
            )
            address = shown_address(listener, access.token)
            logger.info("open %s in a browser; Ctrl+C stops the server", address)
            logger.info("computing in %s", predictor.computation)
            if token == "" and access.names - {"127.0.0.1", "::1", *LOCAL_NAMES}:
                logger.warning("there is no token: whoever can reach the address can use the page")
            stop.server = uvicorn.Server(config)
            stop.server.run([listener])


class _Stop:
    """Ends the page for a signal, with its temporary folder removed."""

    def __init__(self) -> None:
        self.server: Any = None
        self.signal = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        first, self.signal = not self.signal, number
        if self.server is None:
            raise SystemExit(128 + number)
        if first:
            self.server.handle_exit(number, frame)


@contextmanager
def _ended_by_signals() -> Iterator[_Stop]:
    """End the page for SIGTERM and SIGHUP (its terminal was closed) as for Ctrl+C, which uvicorn handles."""
    stop = _Stop()
    with signals_handled(stop):
        yield stop
    if stop.signal:
        raise SystemExit(128 + stop.signal)


@contextmanager
def _listening(host: str, port: int | None) -> Iterator[socket.socket]:
    """A socket bound to the address, before the page is built, so that two servers never share a port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in PORTS if port is None else (port,):
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, candidate))
            except OSError as error:
                reason = error.strerror
                continue
            yield listener
            return
    where = f"port {PORTS[0]} to {PORTS[-1]}" if port is None else f"port {port}"
    raise WildcatError(f"cannot listen on {host} {where}: {reason}")


def create_app(viewer: Viewer, name: str) -> Any:
    """The page as an ASGI application. It makes no requests to other machines: no fonts, no statistics.

    Args:
        viewer: makes predictions and draws them.
        name: name of the model, for the title.
    """
    gradio = _gradio()
    import fastapi

    page = Page(gradio, viewer, name).blocks
    page.has_launched = True  # otherwise gradio accepts any path of this machine as an uploaded file
    return gradio.mount_gradio_app(
        fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page,
        path="/",
        max_file_size=MAX_FILE_BYTES,
        show_error=False,
        footer_links=["api"],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=_theme(gradio),
        css=files("wildcat.apps.serve").joinpath("app.css").read_text(encoding="utf-8"),
    )


def _gradio() -> Any:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before the import, which looks for updates
    try:
        import gradio
    except ImportError as error:
        raise WildcatError(_NO_GRADIO) from error
    return gradio


def _theme(gradio: Any) -> Any:
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "Consolas", "monospace"]
    return gradio.themes.Default(
        primary_hue="orange", neutral_hue="stone", font=fonts, font_mono=mono, radius_size="lg"
    )
