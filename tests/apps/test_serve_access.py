"""Access to the web page: hosts, origins, token, security headers, limits of requests and uploads. Without gradio."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from wildcat.apps.serve import limits, server, uploads
from wildcat.apps.serve.access import Access, access_of, host_name, shown_address
from wildcat.apps.serve.connections import protocol
from wildcat.apps.serve.guard import CONTENT_SECURITY_POLICY, Guard
from wildcat.apps.serve.uploads import Uploads, upload_folder
from wildcat.cli import main

TOKEN = "0123456789abcdef"
PORT = 7860


class Page:
    """An ASGI application that stores the body of an upload and answers any request, openly to all origins as gradio.

    Attributes:
        requests: (path, query, body) of each request that reached it.
        headers: of the last one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.requests = folder, list[tuple[str, bytes, bytes]]()
        self.headers: dict[bytes, bytes] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.requests.append((scope["path"], scope["query_string"], body))
        self.headers = dict(scope["headers"])
        answer = b"{}"
        if scope["path"] == "/gradio_api/upload":
            file = self.folder / f"{len(self.requests)}" / "a.jpg"
            file.parent.mkdir()
            file.write_bytes(body)
            answer = f'["{file}"]'.encode()
        headers = [
            (b"access-control-allow-origin", b"http://evil.example"),
            (b"access-control-allow-credentials", b"true"),
            (b"content-type", b"application/json"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return Page(tmp_path)


def ask(
    page: Page,
    path: str = "/config",
    *,
    method: str = "GET",
    access: Access | None = None,
    body: Any = b"",
    client: str = "10.0.0.1",
    guard: Guard | None = None,
    **headers: str,
) -> tuple[int, dict[str, str], str]:
    """Status, headers and text of an answer. ``body`` is one part or several; None is one that never comes."""
    path, _, query = path.partition("?")
    parts = list(body) if isinstance(body, list) else [body]
    given = {"host": f"127.0.0.1:{PORT}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    answers: list[Any] = []

    async def receive() -> Any:
        if not parts:
            return {"type": "http.disconnect"}
        part = parts.pop(0)
        if part is None:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: Any) -> None:
        answers.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "scheme": "http",
        "client": (client, 1),
        "headers": [(name.encode(), value.encode()) for name, value in given.items() if value],
    }
    guard = guard or Guard(page, access or Access(), Uploads(page.folder), body_seconds=0.05)
    asyncio.run(guard(scope, receive, send))
    fields = {name.decode(): value.decode() for name, value in answers[0]["headers"]}
    return answers[0]["status"], fields, b"".join(m.get("body", b"") for m in answers[1:]).decode()


# ---- Hosts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "local", "everywhere"),
    [
        ("127.0.0.1:7860", True, True),
        ("localhost", True, True),
        ("LOCALHOST:1", True, True),
        ("localhost.:1", True, True),
        ("127.8.0.1", True, True),
        ("[::1]:7860", True, True),
        ("192.168.1.7:7860", False, True),
        ("[fe80::1]", False, True),
        ("lab.example.org", True, True),  # allowed by name
        ("evil.example", False, False),
        ("evil.example:7860", False, False),
        ("127.0.0.1.evil.example", False, False),
        ("localhost.evil.example", False, False),
        ("lab.example.org.evil.example", False, False),
        ("localhost@evil.example", False, False),
        ("evil.example#localhost", False, False),
        ("localhost, evil.example", False, False),
        ("", False, False),
    ],
)
def test_only_known_hosts_are_served(page: Page, host: str, local: bool, everywhere: bool) -> None:
    for address, allowed in (("127.0.0.1", local), ("0.0.0.0", everywhere)):
        with socket.socket() as listener:
            listener.bind((address, 0))
            access = access_of(listener, address, ["Lab.example.org"], "")
        status, _, text = ask(page, access=access, host=host)
        assert status == (200 if allowed else 421)
        if status == 421:
            assert f"--allow-host {host_name(host) or 'this name'}" in text
    assert len(page.requests) == local + everywhere


def test_names_of_the_machine_are_known_where_others_can_reach_it() -> None:
    for address, known in (("127.0.0.1", False), ("0.0.0.0", True)):
        with socket.socket() as listener:
            listener.bind((address, 0))
            assert access_of(listener, address, [], "").knows_host(socket.gethostname()) == known


# ---- Origins ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    ("origin", "own"),
    [
        (f"http://127.0.0.1:{PORT}", True),
        (f"https://127.0.0.1:{PORT}", True),
        ("https://lab.example.org", True),  # a reverse proxy
        ("null", False),
        ("", True),  # a program
        ("http://evil.example", False),
        ("http://127.0.0.1", False),
        ("http://127.0.0.1:8888", False),  # another program's page on this machine
        (f"http://localhost:{PORT}", False),
        (f"http://127.0.0.1:{PORT}.evil.example", False),
        ("http://lab.example.org.evil.example", False),
        ("file://", False),
        ("http://", False),
    ],
)
def test_requests_of_other_web_sites_are_rejected(page: Page, method: str, origin: str, own: bool) -> None:
    access = Access(names=frozenset({"lab.example.org"}), proxied=frozenset({"lab.example.org"}))
    status, headers, _ = ask(page, "/gradio_api/queue/join", method=method, access=access, origin=origin)
    assert status == (200 if own else 403) and len(page.requests) == own
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_web_sites_may_link_to_the_page_but_not_embed_it(page: Page, site: str) -> None:
    link = {"sec_fetch_site": site, "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert ask(page, "/", **link)[0] == 200
    for path, changed in (
        ("/", {"sec_fetch_dest": "iframe"}),
        ("/config", {}),
        ("/gradio_api/file=a.jpg", {"sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"}),
    ):
        assert ask(page, path, **{**link, **changed})[0] == 403
    assert ask(page, "/", method="POST", **link)[0] == 403
    assert ask(page, "/config", **{**link, "sec_fetch_site": "same-origin"})[0] == 200


@pytest.mark.parametrize(
    ("path", "extra"), [("/", {}), ("/config", {"origin": "null"}), ("/", {"host": "evil.example"})]
)
def test_answers_have_security_headers(page: Page, path: str, extra: dict[str, str]) -> None:
    _, headers, _ = ask(page, path, **extra)
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "frame-ancestors 'none'" in CONTENT_SECURITY_POLICY and "connect-src 'self'" in CONTENT_SECURITY_POLICY
    assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


# ---- The token -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 401),
        ("/config", {}, 401),
        ("/gradio_api/file=a.jpg", {}, 401),
        (f"/config?token={TOKEN}", {}, 200),
        (f"/config?token={TOKEN}x", {}, 401),
        (f"/config?token={TOKEN[:-1]}", {}, 401),
        ("/config?token=", {}, 401),
        ("/config", {"authorization": f"Bearer {TOKEN}"}, 200),
        ("/config", {"authorization": f"Basic {TOKEN}"}, 401),
        ("/config", {"authorization": "Bearer \N{LATIN SMALL LETTER E WITH ACUTE}"}, 401),
        ("/config", {"cookie": f"a=b; wildcat-token={TOKEN}"}, 200),
        ("/config", {"cookie": f"other={TOKEN}"}, 401),
    ],
)
def test_each_request_needs_the_token(page: Page, path: str, headers: dict[str, str], status: int) -> None:
    assert ask(page, path, access=Access(token=TOKEN), **headers)[0] == status
    assert ask(page, path, method="POST", access=Access(token=TOKEN), **headers)[0] == status
    assert [query for _, query, _ in page.requests] == [b""] * len(page.requests)  # gradio does not see the token


def test_the_address_with_the_token_sets_a_cookie_and_leads_to_the_address_without(page: Page) -> None:
    access = Access(token=TOKEN)
    status, headers, text = ask(page, f"/?token={TOKEN}&__theme=dark", access=access)
    assert status == 200 and "url=./?__theme=dark" in text and TOKEN not in text and page.requests == []
    cookie, *flags = headers["set-cookie"].split("; ")
    assert flags == ["Path=/", "HttpOnly", "SameSite=Strict"]
    assert ask(page, "/?__theme=dark", access=access, cookie=cookie)[0] == 200
    assert page.requests == [("/", b"__theme=dark", b"")]


@pytest.mark.parametrize(
    ("host", "allowed", "given", "expected"),
    [
        ("127.0.0.1", [], None, None),
        ("127.0.0.1", [], TOKEN, TOKEN),
        ("127.0.0.1", ["lab.example.org"], None, "random"),  # a proxy
        ("0.0.0.0", [], None, "random"),
        ("0.0.0.0", [], "", None),
        ("0.0.0.0", [], TOKEN, TOKEN),
    ],
)
def test_a_token_is_the_default_where_other_machines_can_reach_the_page(
    host: str, allowed: list[str], given: str | None, expected: str | None
) -> None:
    with socket.socket() as listener:
        listener.bind((host, 0))
        tokens = {access_of(listener, host, allowed, given).token for _ in range(2)}
        if expected == "random":
            assert len(tokens) == 2 and all(token is not None and len(token) == 48 for token in tokens)
        else:
            assert tokens == {expected}
        address = shown_address(listener, tokens.pop())
        assert ("?token=" in address) == (expected is not None)
        assert "0.0.0.0" not in address and address.startswith("http://127.0.0.1:") == (host == "127.0.0.1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--token", "short"], "a token has at least 8 characters, which are letters, digits"),
        (["--token", "a token with spaces"], "a token has at least 8 characters, which are letters, digits"),
        (["--token="], "--token is empty; for a page without a token use --no-token"),
        (["--token", TOKEN, "--no-token"], "not allowed with"),
        (["--allow-host", "http://lab.example.org"], "an allowed host is a name without http://"),
    ],
)
def test_wrong_options(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("gradio") is None:
        pytest.skip("gradio is not installed")
    for name in ("load", "Viewer"):  # the mistakes are found before anything is predicted
        monkeypatch.setattr(server, name, lambda *_, **__: None)
    assert main(["serve", "imagenet", "--host", "0.0.0.0", "--port", "0", *options]) == 2
    assert message in capsys.readouterr().err


# ---- Limits ----------------------------------------------------------------------------------------------------------


def test_large_bodies_are_rejected_before_the_page_stores_them(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    from wildcat.apps.serve import guard

    monkeypatch.setattr(guard, "MAX_VISITOR_BYTES", 100)
    monkeypatch.setattr(guard, "MAX_BODY_BYTES", 50)
    for path, limit in (("/gradio_api/upload", 100), ("/gradio_api/queue/join", 50)):
        assert ask(page, path, method="POST", body=[b" " * 25] * (limit // 25))[0] == 200
        for declared in ({}, {"content_length": str(limit + 25)}):
            status, headers, text = ask(page, path, method="POST", body=[b" " * 25] * (limit // 25 + 1), **declared)
            assert status == 413 and text == "At most 0 MB can be sent at once." and headers["connection"] == "close"
        assert ask(page, path, method="POST", body=[b"", None], content_length="100000")[0] == 413  # at once
    assert len(page.requests) == 2


def test_a_body_that_does_not_arrive_is_given_up(page: Page) -> None:
    for path in ("/gradio_api/upload", "/gradio_api/queue/join"):
        begun = time.monotonic()
        assert ask(page, path, method="POST", body=[b"half", None])[0] == 408
        assert time.monotonic() - begun < 5
    assert page.requests == []


def test_the_time_of_a_whole_body_is_limited(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BODY_SECONDS", 0.05)
    guard = Guard(page, Access(), Uploads(page.folder), body_seconds=5)
    begun = time.monotonic()
    assert ask(page, "/gradio_api/upload", method="POST", body=[b"a", None], guard=guard)[0] == 408
    assert time.monotonic() - begun < 4


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"data": [{"path": "/tmp/a.jpg", "url": "http://127.0.0.1:7860/a"}]}', 200),
        (b'{"data": [{"path": "https://example.org/a.jpg"}]}', 400),
        (b'{"data": [[{"image": {"pat\\u0068": " HTTP://10.0.0.1/"}}]]}', 400),
        (b"[" * 100_000, 200),  # gradio rejects it
    ],
)
def test_files_of_other_servers_are_not_downloaded(page: Page, body: bytes, status: int) -> None:
    assert ask(page, "/gradio_api/call/predict", method="POST", body=body)[0] == status
    assert [request[2] for request in page.requests] == [body] * (status == 200)
    assert ask(page, "/gradio_api/file=https://example.org/a.jpg")[0] == 404


def test_the_latest_uploads_of_a_visitor_are_kept(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_VISITOR_FILES", 3)
    monkeypatch.setattr(uploads, "MAX_VISITOR_BYTES", 100)
    folder = Uploads(page.folder)
    guard = Guard(page, Access(), folder)

    def send(client: str, *sizes: int) -> None:
        for size in sizes:
            assert (
                ask(page, "/gradio_api/upload", method="POST", body=bytes(size), client=client, guard=guard)[0] == 200
            )

    send("a", 10, 11)
    send("b", 20)
    send("a", 12, 13)  # four files
    assert kept(page.folder) == [11, 12, 13, 20]
    send("a", 80)  # 116 bytes
    assert kept(page.folder) == [13, 20, 80]
    send("b", 90)
    assert kept(page.folder) == [13, 80, 90]
    assert not [path for path in page.folder.iterdir() if not any(path.iterdir())]  # no empty folders


def test_the_answer_to_an_upload_is_not_compressed(page: Page) -> None:
    for path, kept in (("/gradio_api/upload", False), ("/config", True)):
        ask(page, path, method="POST", accept_encoding="br")
        assert (b"accept-encoding" in page.headers) == kept


def test_a_file_that_another_visitor_uploaded_too_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_VISITOR_FILES", 1)
    folder = Uploads(tmp_path)
    for name in ("same", "other"):
        (tmp_path / name).write_bytes(b"12")
    folder.record("a", [str(tmp_path / "same")])
    folder.record("b", [str(tmp_path / "same")])
    folder.record("a", [str(tmp_path / "other")])
    assert kept(tmp_path) == [2, 2]
    folder.record("b", [str(tmp_path / "other")])
    assert [file.name for file in tmp_path.iterdir()] == ["other"]


def test_simultaneous_uploads_of_a_visitor_are_limited_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_VISITOR_BYTES", 100)
    monkeypatch.setattr(uploads, "MAX_BYTES", 170)
    folder = Uploads(tmp_path)
    with folder.arriving("a") as first, folder.arriving("a") as second, folder.arriving("b") as other:
        assert first(60) and not second(60) and other(60)
        assert not second(1) and first(40)  # what is rejected does not count
        assert not other(40)  # all visitors together
    with folder.arriving("a") as later:
        assert later(100)


def test_old_files_and_the_oldest_beyond_the_limits_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Uploads(tmp_path)

    def file(name: str, size: int, age: float) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(size))
        os.utime(path, (time.time() - age,) * 2)
        return str(path)

    file("samples/flower.jpg", 1, 1e6)
    folder.record("a", [file("1/upload", 2, 3600), file("2/upload", 3, 13 * 3600)])
    file("3/shown.jpg", 4, 1000)
    file("4/shown.jpg", 5, 100)
    file("tmp1", 6, 30)  # an upload that broke off
    with folder.arriving("a"):
        file("tmp2", 7, 0)  # one that arrives
        folder.clean()
        assert kept(tmp_path) == [1, 2, 5, 7] and not (tmp_path / "3").exists()
    folder.clean()
    assert kept(tmp_path) == [1, 2, 5]
    file("5/shown.jpg", 7, 50)
    monkeypatch.setattr(uploads, "MAX_BYTES", 12)
    folder.clean()
    assert kept(tmp_path) == [1, 5, 7]
    monkeypatch.setattr(uploads, "MAX_FILES", 1)
    folder.clean()
    assert kept(tmp_path) == [1, 7]


def kept(folder: Path) -> list[int]:
    """Sizes of the files."""
    return sorted(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# ---- The temporary folder --------------------------------------------------------------------------------------------


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    yield tmp_path / "tmp"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX locks")
def test_folders_of_killed_pages_are_removed_and_no_others(temporary: Path, tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:  # a page that is killed
        with upload_folder() as opened:
            (opened.folder / "private.jpg").write_text("image")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (abandoned,) = temporary.iterdir()
    assert (abandoned / "files" / "private.jpg").exists()

    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "lock").touch()
    (abandoned / "files" / "link").symlink_to(victim)
    (temporary / "wildcat-page-link").symlink_to(victim)  # to a folder with a lock
    for name in ("wildcat-page-own", "wildcat-page-linked-lock", "wildcat-page-fifo"):
        (temporary / name).mkdir()
    (temporary / "wildcat-page-linked-lock" / "lock").symlink_to(victim / "lock")
    os.mkfifo(temporary / "wildcat-page-fifo" / "lock")
    (temporary / "wildcat-page-file").touch()
    others = set(temporary.iterdir()) - {abandoned}

    with upload_folder() as first:
        (first.folder / "a.jpg").write_text("image")
        assert os.environ["GRADIO_TEMP_DIR"] == str(first.folder)
        with upload_folder() as second:  # of a page that runs at the same time
            assert first.folder != second.folder and (first.folder / "a.jpg").exists()
            assert set(temporary.iterdir()) == others | {first.folder.parent, second.folder.parent}
    assert set(temporary.iterdir()) == others and (victim / "lock").exists()
    assert "GRADIO_TEMP_DIR" not in os.environ


# ---- Connections -----------------------------------------------------------------------------------------------------


def test_connections_without_a_complete_request_are_closed(page: Page) -> None:
    uvicorn = pytest.importorskip("uvicorn")
    config = uvicorn.Config(page, http=protocol(0.3), ws="none", lifespan="off", log_level="critical")
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

    async def attack() -> tuple[list[float], bytes]:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server._serve([listener]))
            while not server.started:
                await asyncio.sleep(0.01)
            port = listener.getsockname()[1]

            async def closed_after(*sent: bytes) -> float:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                begun = time.monotonic()
                for part in sent:
                    writer.write(part)
                    await asyncio.sleep(0.15)
                await asyncio.wait_for(reader.read(), 10)
                writer.close()
                return time.monotonic() - begun

            # nothing; a half request; one byte now and then; a request and half of a second
            half = request[:-2]
            times = await asyncio.gather(
                closed_after(), closed_after(half), closed_after(*[b"G", b"E", b"T"]), closed_after(request, half)
            )
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            answer = await reader.readline()
            writer.close()
            server.should_exit = True
            await serving
            return list(times), answer

    times, answer = asyncio.run(attack())
    assert max(times) < 3 and min(times) > 0.25, times
    assert answer == b"HTTP/1.1 200 OK\r\n"


# ---- Signals ---------------------------------------------------------------------------------------------------------


class Server:
    """Of uvicorn's server, what a signal calls."""

    asked = 0

    def handle_exit(self, number: int, frame: object) -> None:
        self.asked += 1


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX signals")
@pytest.mark.parametrize(
    ("number", "when", "code"),
    [
        (signal.SIGTERM, "serving", 143),
        (signal.SIGHUP, "serving", 129),
        (signal.SIGHUP, "starting", 129),
        (signal.SIGHUP, "ignored", 7),  # nohup
    ],
)
def test_signals_end_the_page_and_remove_its_folder(temporary: Path, number: int, when: str, code: int) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if when == "ignored":
                signal.signal(number, signal.SIG_IGN)
            with server._ended_by_signals() as stop, upload_folder() as opened:
                (opened.folder / "private.jpg").touch()
                if when != "starting":
                    stop.server = Server()
                os.kill(os.getpid(), number)
                os.kill(os.getpid(), number)
                code = 7 if stop.server.asked == (when == "serving") else 8
        except SystemExit as end:
            code = int(end.code or 0) if code in (1, 7) else code
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code
    assert not list(temporary.iterdir())
