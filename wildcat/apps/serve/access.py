"""Who may use the web page: the names under which it is reached, the origins of requests, and the token."""

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from wildcat.errors import WildcatError

LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain"})
TOKEN = re.compile(r"[A-Za-z0-9._~-]{8,}")  # what an address, a cookie and a header hold without quoting

_NETLOC = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


def check_token(token: str) -> None:
    """Raise a WildcatError for a token that is short or does not fit into an address."""
    if not TOKEN.fullmatch(token):
        raise WildcatError("a token has at least 8 characters, which are letters, digits, '-', '.', '_' or '~'")


@dataclass(frozen=True)
class Access:
    """The rules of access.

    Browsers are the danger, not programs: a web site that a user visits can send requests to this page from the user's
    browser, directly or under a name of its own that it lets resolve to the page's address (DNS rebinding). So the name
    in the Host header must be known, and a request that a browser sends for another web site is rejected. Whoever can
    reach the page without a browser needs the token, if there is one.

    Args:
        names: names and addresses under which the page is reached, in lower case, without port; those of the loopback
            interface need not be listed.
        any_address: accept any IP address as Host: no other web site can have it as its name.
        proxied: the names among ``names`` that a reverse proxy serves: requests of pages there are accepted.
        token: what each request must carry; None for none.
        cookie: name of the cookie that carries the token.
    """

    names: frozenset[str] = frozenset()
    any_address: bool = False
    proxied: frozenset[str] = frozenset()
    token: str | None = None
    cookie: str = "wildcat-token"

    def knows_host(self, header: str) -> bool:
        """Whether the page is reached under the name in a Host header."""
        name = host_name(header)
        if name is None:
            return False
        if name in LOCAL_NAMES or name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address or address.is_loopback

    def is_foreign(self, method: str, path: str, headers: Mapping[str, str]) -> bool:
        """Whether a browser sends the request for another web site than this page.

        Args:
            method: of the request.
            path: of the request.
            headers: of the request, with names in lower case.
        """
        origin = headers.get("origin")
        if origin is not None:
            scheme, _, netloc = origin.partition("://")
            same = scheme in ("http", "https") and _without_default_port(netloc) == _without_default_port(
                headers.get("host", "")
            )
            return not (same or host_name(netloc) in self.proxied)
        if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
            return False
        # A link on another web site may open the page, but not read or embed anything of it.
        opens = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return not (opens and method == "GET" and path == "/")

    def allows(self, headers: Mapping[str, str], query_token: str | None = None) -> bool:
        """Whether a request carries the token: in its address, its cookie or as ``Authorization: Bearer TOKEN``."""
        if self.token is None:
            return True
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        given = [query_token or "", bearer.strip() if kind.lower() == "bearer" else ""]
        for part in headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self.cookie:
                given.append(value)
        return any(hmac.compare_digest(self.token.encode(), value.encode()) for value in given)


def access_of(listener: socket.socket, host: str, allowed_hosts: Iterable[str], token: str | None) -> Access:
    """The rules for a page that listens on a socket.

    Args:
        listener: a bound socket.
        host: the address that the user gave.
        allowed_hosts: further names under which the page is reached, such as that of a reverse proxy.
        token: the user's token; "" for none; None for a random one where other machines can reach the page, directly
            or through a proxy.

    Raises:
        WildcatError: if the token or a name is invalid.
    """
    bound, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(bound)
    proxied = set()
    for allowed in allowed_hosts:
        name = host_name(allowed)
        if name is None:
            raise WildcatError(f"an allowed host is a name without http://, such as lab.example.org; got {allowed!r}")
        proxied.add(name)
    if token:
        check_token(token)
    elif token is None and (proxied or not address.is_loopback):
        token = secrets.token_hex(24)
    names = {host.lower(), bound, *proxied}
    if not address.is_loopback:
        machine = socket.gethostname().lower()
        names |= {machine, machine.partition(".")[0], f"{machine.partition('.')[0]}.local"}
    return Access(
        frozenset(names), address.is_unspecified, frozenset(proxied), token or None, cookie=f"wildcat-token-{port}"
    )


def shown_address(listener: socket.socket, token: str | None) -> str:
    """The page's address for people: of this machine in the network if the page listens on all its addresses."""
    bound, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(bound)
    if address.is_unspecified:
        bound = _network_address(listener.family) or socket.gethostname()
    netloc = f"[{bound}]" if ":" in bound else bound
    return f"http://{netloc}:{port}" + (f"/?token={token}" if token else "")


def _network_address(family: int) -> str | None:
    """This machine's address in its network, None if it has none. Nothing is sent."""
    targets = {socket.AF_INET6: "2001:db8::1", socket.AF_INET: "192.0.2.1"}
    if family == socket.AF_INET:
        del targets[socket.AF_INET6]
    for kind, target in targets.items():
        with socket.socket(kind, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((target, 9))  # selects the interface; the address belongs to no machine
                return str(probe.getsockname()[0])
            except OSError:
                continue
    return None


def host_name(netloc: str) -> str | None:
    """The name or address in ``NAME[:PORT]``, in lower case, without brackets; None if it is no such text.

    >>> host_name("Lab.Example.org:7860"), host_name("[::1]:80"), host_name("evil.example/x")
    ('lab.example.org', '::1', None)
    """
    match = _NETLOC.fullmatch(netloc)
    return match[1].strip("[]").rstrip(".").lower() if match else None


def without_token(query: bytes) -> tuple[bytes, str | None]:
    """A query string without its token, and the token."""
    if b"token=" not in query:
        return query, None
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    tokens = [value for name, value in pairs if name == "token"]
    return urlencode([pair for pair in pairs if pair[0] != "token"]).encode(), tokens[-1] if tokens else None


def _without_default_port(netloc: str) -> str:
    return re.sub(r":(80|443)$", "", netloc.lower())
