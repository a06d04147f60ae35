# ruff: noqa: E501 - each message stands on one line
"""Bad requests to the web page, as a browser or a program sends them."""

import html
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import unusual
from tests.robustness.bad_input.case import Make, encoded, nothing, text
from wildcat.apps.serve.server import MAX_FILE_BYTES


@dataclass(frozen=True)
class Request:
    """One mistake.

    Attributes:
        name: unique, for the test.
        what: the mistake in a few words, for the table.
        make: makes a file, in a folder that holds an image (``cat.png``).
        done: the request in a few words, for the table.
        send: sends the request and returns the message.
        message: the whole message; "..." stands for the words of a library.
    """

    name: str
    what: str
    make: Make
    done: str
    send: Callable[["Site", Path], str]
    message: str


class Site:
    """The page without a browser: the event handlers of its controls, and its addresses.

    Args:
        app: from :func:`wildcat.apps.serve.server.create_app`.
        page: the page's own object, of the same model.
    """

    settings = ("point", 50, 70, False)  # task, threshold, opacity, CRF: the initial values

    def __init__(self, app: Any, page: Any) -> None:
        self.app, self.page = app, page

    def add_files(self, *files: Path) -> str:
        """Upload files through the page; returns its messages."""
        notice = self.page._add([str(file) for file in files], [], *self.settings)[3]
        return "\n".join(map(html.unescape, re.findall("<p>(.*?)</p>", notice["value"])))

    def predict(self, file: Path | None, threshold: Any) -> str:
        """Upload a file and request its prediction as a program does; returns the error message."""
        with self._client() as client:
            image = None
            if file is not None:
                (path,) = client.post("/gradio_api/upload", files={"files": (file.name, file.read_bytes())}).json()
                image = {"path": path, "orig_name": file.name, "meta": {"_type": "gradio.FileData"}}
            return self._answer(client, [image, threshold])

    def get(self, path: str) -> str:
        """Request an address as a browser does; returns the status code."""
        with self._client() as client:
            return str(client.get(path).status_code)

    def call(self, data: list[Any]) -> str:
        """Send arbitrary data to the end point; returns the error message."""
        with self._client() as client:
            return self._answer(client, data)

    def _answer(self, client: Any, data: list[Any]) -> str:
        event = client.post("/gradio_api/call/predict", json={"data": data}).json()
        answer = client.get(f"/gradio_api/call/predict/{event['event_id']}").text
        assert answer.startswith("event: error\n"), answer
        return str(json.loads(answer.splitlines()[1].removeprefix("data: "))["error"] or "an error without a message")

    def upload(self, content: bytes) -> str:
        """Upload a file as a browser does; returns status code and text."""
        with self._client() as client:
            answer = client.post("/gradio_api/upload", files={"files": ("a.jpg", content)})
            return f"{answer.status_code}: {answer.text}"

    def _client(self) -> Any:
        from starlette.testclient import TestClient

        return TestClient(self.app)


def bad_file(name: str, what: str, file: str, content: bytes | Make, message: str) -> Request:
    """The upload of a file that is not an image."""
    make = text(file, content) if isinstance(content, bytes) else content
    return Request(name, what, make, f"{file} is uploaded", lambda site, folder: site.add_files(folder / file), message)


def bad_request(
    name: str, what: str, done: str, send: Callable[["Site", Path], str], message: str, make: Make = nothing
) -> Request:
    """Another bad request."""
    return Request(name, what, make, done, send, message)


FOREIGN = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}

REQUESTS = [
    bad_file("drop-empty", "an empty file", "a.jpg", b"", "a.jpg: the file is empty"),
    bad_file(
        "drop-text", "a text file named .jpg", "a.jpg", b"hello\n", "a.jpg: not an image in a format that can be read"
    ),
    bad_file("drop-cut", "a JPEG that was cut", "a.jpg", encoded("JPEG", 0.7), "a.jpg: cannot be read: ..."),
    bad_file(
        "drop-huge",
        "900 million pixels in a small file",
        "a.png",
        lambda folder: unusual.huge_png(folder / "a.png", 30_000),
        "a.png: too large: Image size (900000000 pixels) exceeds limit of 178956970 pixels, could be decompression bomb DOS attack.",
    ),
    bad_file(
        "drop-script",
        "a name with markup",
        "<img src=x onerror=alert(1)>.jpg",
        b"",
        "<img src=x onerror=alert(1)>.jpg: the file is empty",
    ),
    bad_request(
        "drop-many",
        "101 images",
        "101 images are uploaded",
        lambda site, folder: site.add_files(*(folder / f"{number}.png" for number in range(101))),
        "the page holds at most 100 images; use the command wildcat predict for more",
        lambda folder: [(folder / f"{number}.png").symlink_to("cat.png") for number in range(101)],
    ),
    bad_request(
        "large-upload",
        "a file of more than 64 MB",
        "it is uploaded",
        lambda site, folder: site.upload(bytes(MAX_FILE_BYTES + 1)),
        "413: File size exceeded maximum allowed size of 67108864 bytes.",
    ),
    bad_request(
        "no-image-sent",
        "no image",
        "/predict without one",
        lambda site, folder: site.predict(None, 0.5),
        "no image was sent",
    ),
    bad_request(
        "text-sent",
        "a text for an image",
        "/predict with a.txt",
        lambda site, folder: site.predict(folder / "a.txt", 0.5),
        "a.txt: not an image in a format that can be read",
        text("a.txt", "hello"),
    ),
    bad_request(
        "threshold-7",
        "a threshold of 7",
        "/predict with cat.png, 7",
        lambda site, folder: site.predict(folder / "cat.png", 7),
        "the threshold must be a probability from 0 to 1; got 7",
    ),
    bad_request(
        "threshold-word",
        "a word for the threshold",
        '/predict with cat.png, "high"',
        lambda site, folder: site.predict(folder / "cat.png", "high"),
        "the threshold must be a probability from 0 to 1; got 'high'",
    ),
    bad_request(
        "threshold-none",
        "no threshold",
        "/predict with cat.png, null",
        lambda site, folder: site.predict(folder / "cat.png", None),
        "the threshold must be a probability from 0 to 1; got None",
    ),
    bad_request(
        "foreign-path",
        "the path of a file of the server",
        "/predict with /etc/passwd",
        lambda site, folder: site.call([FOREIGN, 0.5]),
        "an error without a message",
    ),
    bad_request(
        "foreign-address",
        "the address of a file of the server",
        "GET /gradio_api/file=/etc/passwd",
        lambda site, folder: site.get("/gradio_api/file=/etc/passwd"),
        "403",
    ),
    bad_request(
        "up-address",
        "an address that climbs",
        "GET /gradio_api/file=../../etc/passwd",
        lambda site, folder: site.get("/gradio_api/file=../../etc/passwd"),
        "404",
    ),
]
