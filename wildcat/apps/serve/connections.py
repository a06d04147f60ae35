"""Connections to the web page: those that never complete a request are closed."""

import asyncio
from typing import Any

HEADER_SECONDS = 20  # from a connection, or from the first byte of a further request, to the end of its headers
MAX_CONNECTIONS = 500  # an open page holds one or two


def protocol(header_seconds: float = HEADER_SECONDS) -> type[asyncio.Protocol]:
    """uvicorn's protocol of HTTP with a time limit for the headers of a request, which it lacks.

    Without the limit, a client can hold connections open for ever by sending half of a request on each.
    """
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class TimedProtocol(H11Protocol):
        """Closes a connection whose request headers are not complete in time."""

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._start_timer()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._stop_timer()
            elif self._timer is None:
                self._start_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def _start_timer(self) -> None:
            self._timer = self.loop.call_later(header_seconds, self.transport.close)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return TimedProtocol
