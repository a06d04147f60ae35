"""Pages in a real browser: Chromium as the system has it, driven by playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PHONE = (390, 844)
DESKTOP = (1280, 860)


def executable() -> str | None:
    """Path of the browser: $CHROMIUM, or the first of the usual names."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser of its own; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = executable()
    if path is None:
        pytest.skip("no Chromium found; install one (Debian: apt-get install chromium) or set CHROMIUM to its path")
    with playwright.sync_playwright() as driver:
        # No sandbox: Chromium's needs privileges that containers do not give; only our own pages are opened.
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page(browser: Any, size: tuple[int, int] = DESKTOP, *, dark: bool = False, offline: bool = False) -> Iterator[Any]:
    """A page whose ``.errors`` collects errors of its scripts, and ``.outside`` requests that left this machine.

    Pages that are not offline share their cache of scripts, and cookies.
    """
    if offline or not browser.contexts:
        browser.new_context(device_scale_factor=1, offline=offline).set_default_timeout(120_000)  # on a busy machine
    context = browser.contexts[-1]
    opened = context.new_page()
    opened.set_viewport_size({"width": size[0], "height": size[1]})
    opened.emulate_media(color_scheme="dark" if dark else "light")
    opened.errors, opened.outside = [], []
    opened.on("pageerror", lambda error: opened.errors.append(str(error)))

    def note_violation(message: Any) -> None:
        if "Content Security Policy" in message.text:
            opened.errors.append(message.text)

    opened.on("console", note_violation)

    def note(request: Any) -> None:
        if not request.url.startswith(("http://127.0.0.1", "http://localhost", "file:", "data:", "blob:", "about:")):
            opened.outside.append(request.url)

    opened.on("request", note)
    try:
        yield opened
    finally:
        (context if offline else opened).close()
