"""Stands in front of the web page: rejects requests that are not the page's own, and limits what they send."""

import asyncio
import html

from wildcat.apps.serve.access import Access, host_name, without_token
from wildcat.apps.serve.limits import (
    BODY_SECONDS,
    MAX_BODY_BYTES,
    Answer,
    App,
    Body,
    Message,
    Receive,
    Send,
    names_other_server,
    replay,
    reply,
)
from wildcat.apps.serve.uploads import MAX_VISITOR_BYTES, Uploads

UPLOAD = "/gradio_api/upload"
# Functions of gradio that the page does not have: one runs ffmpeg, the others write or fetch files.
UNUSED = ("/gradio_api/process_recording", "/gradio_api/proxy=", "/gradio_api/deep_link", "/gradio_api/vibe-")

# gradio starts by scripts in the page, and compiles the page's own handlers.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "media-src 'self' data: blob:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    b"content-security-policy": CONTENT_SECURITY_POLICY.encode(),
    b"x-frame-options": b"DENY",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",  # an address may hold the token
    b"cross-origin-resource-policy": b"same-origin",
}


class Guard:
    """ASGI middleware in front of the page.

    A request must name this machine (Host), must not come from another web site (Origin, Sec-Fetch-Site), must carry
    the token if there is one, and must send its body in time and within limits. Answers get security headers, and none
    that let other web sites read them.

    Args:
        app: the page.
        access: names, origins and token.
        uploads: the folder of uploads and its limits.
        body_seconds: longest time between two parts of a body.
    """

    def __init__(self, app: App, access: Access, uploads: Uploads, body_seconds: float = BODY_SECONDS) -> None:
        self.app, self.access, self.uploads, self.body_seconds = app, access, uploads, body_seconds

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or give it to the page."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, _with_headers(send))
        else:  # the page has no WebSocket
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = _headers(scope)
        method, path = scope["method"], scope["path"]
        query, token = without_token(scope["query_string"])
        if not self.access.knows_host(headers.get("host", "")):
            name = host_name(headers.get("host", "")) or "this name"
            await reply(send, 421, f"This page is not served under {name}; --allow-host {name} would allow it.")
        elif self.access.is_foreign(method, path, headers):
            await reply(send, 403, "Requests from other web sites are rejected.")
        elif path == "/manifest.json":  # browsers request it without cookies
            await reply(send, 200, "{}", content_type="application/manifest+json")
        elif not self.access.allows(headers, token):
            await _ask_for_token(send, wrong=token is not None, as_page=method == "GET" and path == "/")
        elif token is not None and method == "GET" and path == "/" and self.access.token is not None:
            await _open_page(send, self.access, query, secure=scope.get("scheme") == "https")
        elif path.startswith(UNUSED) or path.lower().startswith(("/gradio_api/file=http:", "/gradio_api/file=https:")):
            await reply(send, 404, "Not found.")
        else:
            await self._forward({**scope, "query_string": query}, headers, receive, send)

    async def _forward(self, scope: Message, headers: dict[str, str], receive: Receive, send: Send) -> None:
        """Give a request to the page, with its body limited and, for an upload, its files counted."""
        visitor = (scope.get("client") or ("",))[0]
        if scope["path"].rstrip("/") != UPLOAD:
            body = Body(receive, send, MAX_BODY_BYTES, self.body_seconds, headers)
            if scope["method"] in ("GET", "HEAD", "OPTIONS"):
                await self.app(scope, body.receive, body.send)
                return
            content = await body.read()
            if content is None:
                return
            if names_other_server(content):
                await reply(send, 400, "Send the image itself: this page does not download files from other servers.")
                return
            await self.app(scope, replay(content, receive), send)
            return
        # The answer is read here, so it must not be compressed.
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name.lower() != b"accept-encoding"]
        try:
            with self.uploads.arriving(visitor) as count:
                body = Body(receive, send, MAX_VISITOR_BYTES, self.body_seconds, headers, count)
                answer = Answer(body.send)
                await self.app(scope, body.receive, answer.send)
            self.uploads.record(visitor, answer.paths())
        finally:
            await asyncio.to_thread(self.uploads.clean)


def _headers(scope: Message) -> dict[str, str]:
    """The headers of a request, with names in lower case. Repeated ones are joined."""
    headers: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1").lower()
        before = headers[name] + ("; " if name == "cookie" else ", ") if name in headers else ""
        headers[name] = before + value.decode("latin-1")
    return headers


def _with_headers(send: Send) -> Send:
    """Send answers with :data:`HEADERS`, and without the headers by which gradio opens them to other web sites."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [
                (name, value)
                for name, value in message.get("headers", [])
                if name.lower() not in HEADERS and not name.lower().startswith(b"access-control-")
            ]
            message = {**message, "headers": [*kept, *HEADERS.items()]}
        await send(message)

    return sending


async def _ask_for_token(send: Send, *, wrong: bool, as_page: bool) -> None:
    challenge = ((b"www-authenticate", b"Bearer"),)
    if not as_page:
        await reply(send, 401, "This page needs the token that its server printed.", headers=challenge)
        return
    notice = "<p><b>This token is not the right one.</b></p>" if wrong else ""
    await reply(send, 401, _TOKEN_PAGE.format(notice=notice), content_type=_HTML, headers=challenge)


async def _open_page(send: Send, access: Access, query: bytes, *, secure: bool) -> None:
    """Set the cookie and open the page at its address without the token.

    By a page that reloads, not by a redirection: after a link on another web site, browsers send a cookie with SameSite
    only to what this page itself requests.
    """
    cookie = f"{access.cookie}={access.token}; Path=/; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"
    target = html.escape("./" + (f"?{query.decode('latin-1')}" if query else ""))
    await reply(
        send,
        200,
        f'<!doctype html><title>wildcat</title><meta http-equiv="refresh" content="0; url={target}">',
        content_type=_HTML,
        headers=((b"set-cookie", cookie.encode()), (b"cache-control", b"no-store")),
    )


_HTML = "text/html; charset=utf-8"
_TOKEN_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>wildcat</title>
<link rel="icon" href="data:,">
<style>body {{ font: 16px system-ui, sans-serif; max-width: 30rem; margin: 15vh auto; padding: 0 1rem }}
input {{ width: 100%; box-sizing: border-box; padding: .5rem; margin: .5rem 0; font: inherit }}</style>
<h1>Token needed</h1>{notice}
<p>The command <code>wildcat serve</code> printed an address with a token. Open that address, or enter the token:</p>
<form action="./" method="get" autocomplete="off">
<label>Token <input name="token" type="password" required autofocus></label>
<button>Open the page</button></form></html>
"""
