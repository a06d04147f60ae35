"""Shards cut anywhere, and stores that fail, stall or give less than they promise."""

import http.server
import io
import os
import random
import socketserver
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest

from wildcat.apps.batch import shards, stores
from wildcat.apps.batch.inputs import InputPart, is_source, split_inputs
from wildcat.apps.batch.shards import Shard
from wildcat.apps.batch.stores import normal_name, version_of
from wildcat.errors import WildcatError

# ---- shards


def archive(count: int, mode: Any, kind: int = tarfile.PAX_FORMAT) -> bytes:
    """A WebDataset shard as its library writes it: three files a sample."""
    rng, stream = random.Random(0), io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, format=kind) as shard:
        for number in range(count):
            for suffix in ("jpg", "json", "cls"):
                info = tarfile.TarInfo(f"{'long/' * (30 if number == 3 else 0)}{number:05}.{suffix}")
                data = rng.randbytes(rng.randrange(1, 1500))
                info.size = len(data)
                shard.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def images_of(content: bytes) -> list[str]:
    return [member.name for member in Shard(io.BytesIO(content))]


@pytest.mark.parametrize(("mode", "cuts"), [("w", 600), ("w:gz", 60), ("w:bz2", 20), ("w:xz", 20)])
def test_no_cut_loses_an_image_without_an_error(mode: str, cuts: int) -> None:
    whole = archive(10, mode)
    names = images_of(whole)
    assert len(names) == 10
    places = [random.Random(1).randrange(len(whole)) for _ in range(cuts // 2)]
    if mode == "w":  # what copies by blocks leave
        places += random.Random(2).sample(range(0, len(whole), 512), min(cuts // 2, len(whole) // 512))
    reported = 0
    for place in places:
        try:
            assert images_of(whole[:place]) == names
        except (WildcatError, tarfile.ReadError, EOFError, OSError):
            reported += 1
    assert reported > 0.6 * len(places)


def test_what_follows_an_archive_is_read_or_reported() -> None:
    first, second = archive(3, "w", tarfile.GNU_FORMAT), archive(5, "w", tarfile.USTAR_FORMAT)
    assert len(images_of(first + second)) == 8  # joined by `cat`
    assert len(images_of(archive(3, "w:gz") + archive(5, "w:gz"))) == 8
    header = first.index(b"00001.json")
    for damaged in (first + b"x" * 512, first + b"x" * 5, first[:header] + b"x" + first[header + 1 :]):
        with pytest.raises((tarfile.ReadError, WildcatError)):
            images_of(damaged)
    with pytest.raises(WildcatError, match="compressed with zstd"):
        images_of(b"\x28\xb5\x2f\xfd" + first)


def test_a_large_member_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_FILE_BYTES", 700)
    members = list(Shard(io.BytesIO(archive(10, "w"))))
    assert len(members) == 10
    assert {type(member.content) for member in members} == {bytes, WildcatError}
    assert all(len(member.content) <= 700 for member in members if isinstance(member.content, bytes))


# ---- HTTP servers

WHOLE = b"\x89PNG" + bytes(range(256)) * 40


class Store(http.server.BaseHTTPRequestHandler):
    """Fails as the first word of a path says; `asked` counts the requests for content by path."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[Counter[str]] = Counter()

    def do_HEAD(self) -> None:
        if self.path.startswith("/silent"):
            time.sleep(1)
        self.answer(200, length=len(WHOLE))

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        kind = self.path.split("/")[1]
        if kind == "silent":
            time.sleep(1)
        if kind in ("500", "503", "404", "403") or (kind == "busy" and self.asked[self.path] < 3):
            self.answer(int(kind) if kind.isdigit() else 503)
        elif kind == "short":
            self.answer(200, WHOLE[:100], length=len(WHOLE))
        elif kind == "stalled":
            self.answer(200, WHOLE[:100], length=len(WHOLE), close=False)
            time.sleep(1.5)
        elif kind == "slow":
            self.answer(200, length=len(WHOLE), close=False)
            for byte in WHOLE[:20]:
                self.wfile.write(bytes([byte]))
                time.sleep(0.1)
        elif kind == "endless":
            self.answer(200, close=False, length=None)
            for _ in range(100):
                self.wfile.write(WHOLE)
        else:
            self.answer(200, WHOLE)

    def answer(self, status: int, content: bytes = b"", length: int | None = 0, close: bool = True) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length or len(content)))
        if self.path.startswith("/dated"):
            self.send_header("Last-Modified", self.path)
        self.send_header("ETag", str(time.monotonic_ns()))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()
        self.close_connection = close or length is None

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # the client has gone
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("aiohttp", reason="needs aiohttp: pip install 'wildcat-wsl[ray]'")
    monkeypatch.setattr(stores, "PAUSES", (0.01, 0.01, 0.01))
    monkeypatch.setattr(stores, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(stores, "IMAGE_SECONDS", 0.4)
    monkeypatch.setattr(stores, "MAX_FILE_BYTES", 20 * len(WHOLE))
    Store.asked.clear()
    with Server(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("kind", "tries", "message"),
    [
        ("good", 1, None),
        ("busy", 3, None),
        ("500", 4, "500"),
        ("503", 4, "503"),
        ("404", 1, "404"),
        ("403", 1, "403"),
        ("short", 4, "not enough data|[Pp]ayload"),
        ("stalled", 2, "the store does not answer"),
        ("slow", 1, "not complete after 0.4 seconds"),
        ("endless", 1, "more than .* bytes is not read"),
    ],
)
def test_images_of_servers_that_fail(
    address: str, kind: str, tries: int, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{address}/{kind}/a.png"
    if kind == "stalled":
        monkeypatch.setattr(stores, "RETRY_SECONDS", 0.4)
    start = time.monotonic()
    if message is None:
        assert stores.read_image(name) == WHOLE
    else:
        with pytest.raises(WildcatError, match=f"a.png.*({message})"):
            stores.read_image(name)
    assert time.monotonic() - start < 5
    assert Store.asked[f"/{kind}/a.png"] == tries


def test_files_of_servers_that_fail(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards, lists and Parquet files are read in blocks, each of which is asked for again."""
    with stores.open_file(f"{address}/busy/a.tar") as stream:
        assert stream.read(10) == WHOLE[:10] and stream.read() == WHOLE[10:]
        stream.seek(-5, io.SEEK_END)
        assert stream.read() == WHOLE[-5:]
    monkeypatch.setattr(stores, "RETRY_SECONDS", 0.1)
    messages = {"short": "", "500": "500", "404": "404", "silent": "the store does not answer"}
    for kind, message in messages.items():
        with pytest.raises(WildcatError, match=rf"{kind}/a\.tar cannot be read: .*{message}"):
            list(InputPart("shard", (f"{address}/{kind}/a.tar",)).images())


def test_versions(address: str, tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    versions = set()
    for content, second in ((b"1", 1), (b"1", 2), (b"22", 2)):
        file.write_bytes(content)
        os.utime(file, (second, second))
        versions |= {version_of(str(file)), version_of(str(file))}
    assert len(versions) == 3 and None not in versions
    assert version_of(str(tmp_path / "absent.tar")) is None and version_of("nonsense://a.tar") is None
    memory = fsspec.filesystem("memory")
    memory.pipe("/versions/a.tar", b"1")
    before = version_of("memory://versions/a.tar")
    memory.pipe("/versions/a.tar", b"2")
    assert before is not None and version_of("memory://versions/a.tar") not in (before, None)
    assert version_of(f"{address}/dated/a.tar") == version_of(f"{address}/dated/a.tar")
    assert version_of(f"{address}/good/a.tar") != version_of(f"{address}/good/a.tar")  # its ETag differs


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tgz", "TAR", "tar?key=1"])
def test_shards_are_known_by_their_names(suffix: str) -> None:
    assert is_source(normal_name(f"http://host/a.{suffix}"))
    assert is_source(normal_name(f"a.{suffix}")) == ("?" not in suffix)


def test_hidden_files_of_stores_are_skipped() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("a.png", ".a.png", "._b.png", ".cache/c.png", "d/e.png", "d/@eaDir/e.png"):
        memory.pipe(f"/.stores/bucket/{name}", b"x")
    (part,) = split_inputs(["memory://.stores/bucket"], 10)
    assert [normal_name(name).rpartition("bucket/")[2] for name in part.names] == ["a.png", "d/e.png"]
