"""The server of the web page, and the temporary folder of its uploads."""

import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from wildcat.apps.serve.page import Page
from wildcat.apps.serve.viewer import Viewer
from wildcat.errors import WildcatError
from wildcat.export.network import Runtime
from wildcat.prediction.loading import load
from wildcat.system.devices import AUTO, Precision

logger = logging.getLogger(__name__)

PORTS = range(7860, 7960)  # tried in this order if no port is given
MAX_FILE_BYTES = 64 * 2**20


def serve(
    run: str | Path,
    *,
    device: str = AUTO,
    precision: Precision = "fp32",
    runtime: Runtime = "torch",
    host: str = "127.0.0.1",
    port: int | None = None,
) -> None:
    """Serve the web page until Ctrl+C. Its address is logged at level INFO.

    Args:
        run: run directory, hub name, "imagenet" or exported file.
        device: device of the network, as for :func:`wildcat.load`.
        precision: of the backbone, as for :func:`wildcat.load`.
        runtime: runtime of the network, as for :func:`wildcat.load`.
        host: address to listen on; 127.0.0.1 accepts connections from this machine only, 0.0.0.0 from all machines.
        port: port to listen on; None takes the first free one of :data:`PORTS`.

    Raises:
        WildcatError: if gradio is not installed, the run cannot be read, or the port is in use.

    >>> serve("runs/mine", port=7860)  # doctest: +SKIP
    """
    _gradio()
    predictor = load(run, device=device, precision=precision, runtime=runtime)
    logger.info("computing in %s", predictor.computation)
    viewer = Viewer(predictor)
    import uvicorn

    with _listening(host, port) as listener, upload_folder():
        config = uvicorn.Config(create_app(viewer, Path(run).name), log_level="critical", timeout_graceful_shutdown=1)
        shown = "127.0.0.1" if host == "0.0.0.0" else host
        logger.info("open http://%s:%d in a browser; Ctrl+C stops the server", shown, listener.getsockname()[1])
        uvicorn.Server(config).run([listener])


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


@contextmanager
def upload_folder() -> Iterator[Path]:
    """A temporary folder for uploads and downloads, removed at the end."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="wildcat-page-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before


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
        theme=_theme(gradio),
        css=files("wildcat.apps.serve").joinpath("app.css").read_text(encoding="utf-8"),
    )


def _gradio() -> Any:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before the import, which looks for updates
    try:
        import gradio
    except ImportError as error:
        raise WildcatError("the page needs gradio: pip install 'wildcat-wsl[app]'") from error
    return gradio


def _theme(gradio: Any) -> Any:
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "Consolas", "monospace"]
    return gradio.themes.Default(
        primary_hue="orange", neutral_hue="stone", font=fonts, font_mono=mono, radius_size="lg"
    )
