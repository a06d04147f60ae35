"""Limits of what requests to the web page send: bytes, seconds, and no addresses of other servers."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

BODY_SECONDS = 30  # between two parts of a request's body
MAX_BODY_SECONDS = 900  # for the whole body
MAX_BODY_BYTES = 2**20  # of a request that is no upload


class Body:
    """The body of a request, received within limits of size and time; beyond them the answer is an error.

    Args:
        receive: of the request.
        send: of the request.
        limit: bytes of the body.
        seconds: longest time between two parts.
        headers: of the request.
        count: called with the bytes of each part; returns whether the visitor may send them.
    """

    def __init__(
        self,
        receive: Receive,
        send: Send,
        limit: int,
        seconds: float,
        headers: dict[str, str],
        count: Callable[[int], bool] = lambda size: True,
    ) -> None:
        self._receive, self._send, self._limit, self._seconds, self._count = receive, send, limit, seconds, count
        declared = headers.get("content-length", "")
        self._size, self._declared = 0, int(declared) if declared.isdecimal() else 0
        self._excess = self._declared > limit
        self._ends = asyncio.get_running_loop().time() + MAX_BODY_SECONDS
        self._complete = self._started = self._rejected = False

    async def receive(self) -> Message:
        """The next part; a disconnection if the request was rejected."""
        if self._rejected:
            return {"type": "http.disconnect"}
        if self._complete:  # what follows is the disconnection, which may come at any time
            return await self._receive()
        while True:
            left = self._ends - asyncio.get_running_loop().time()
            try:
                message = await asyncio.wait_for(self._receive(), max(0.0, min(self._seconds, left)))
            except asyncio.TimeoutError:
                return await self._reject(408, "The request was not sent in time.")
            if message["type"] != "http.request":
                return message
            part = len(message.get("body", b""))
            self._size += part
            self._complete = not message.get("more_body", False)
            self._excess = self._excess or self._size > self._limit or not self._count(part)
            if not self._excess:
                return message
            # A browser reads the answer only after it has sent all.
            if self._complete or max(self._size, self._declared) > 4 * self._limit:
                return await self._reject(413, f"At most {self._limit // 2**20} MB can be sent at once.")

    async def read(self) -> bytes | None:
        """The whole body; None if the request was rejected or the client has gone."""
        parts = []
        while not self._complete:
            message = await self.receive()
            if message["type"] != "http.request":
                return None
            parts.append(message.get("body", b""))
        return b"".join(parts)

    async def send(self, message: Message) -> None:
        """Send what the page answers, unless the request was rejected."""
        if not self._rejected:
            self._started = True
            await self._send(message)

    async def _reject(self, status: int, text: str) -> Message:
        self._rejected = True
        if not self._started:
            await reply(self._send, status, text, close=True)
        return {"type": "http.disconnect"}


class Answer:
    """Passes an answer and keeps its body, the list of uploaded files."""

    def __init__(self, send: Send) -> None:
        self._send, self._status, self._body = send, 0, b""

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif len(self._body) < MAX_BODY_BYTES:
            self._body += message.get("body", b"")
        await self._send(message)

    def paths(self) -> list[str]:
        """Paths of the uploaded files; none if the upload failed."""
        try:
            paths = json.loads(self._body) if self._status == 200 else []
        except ValueError:
            return []
        return [path for path in paths if isinstance(path, str)] if isinstance(paths, list) else []


def replay(content: bytes, receive: Receive) -> Receive:
    """The receive function of a request whose body was read."""
    parts: Iterator[Message] = iter([{"type": "http.request", "body": content, "more_body": False}])

    async def replaying() -> Message:
        return next(parts, None) or await receive()

    return replaying


def names_other_server(content: bytes) -> bool:
    """Whether a request in JSON names a file by an internet address, which gradio would download."""
    try:
        waiting = [json.loads(content)]
    except (ValueError, RecursionError):  # the page rejects it
        return False
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            path = value.get("path")
            if isinstance(path, str) and path.strip().lower().startswith(("http:", "https:")):
                return True
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return False


async def reply(
    send: Send,
    status: int,
    text: str,
    *,
    content_type: str = "text/plain; charset=utf-8",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    close: bool = False,
) -> None:
    """Answer a request with a text."""
    content = text.encode()
    fields = [(b"content-type", content_type.encode()), (b"content-length", str(len(content)).encode()), *headers]
    if close:
        fields.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": content})
