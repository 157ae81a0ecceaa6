"""The heads of requests: one that does not come in time is not waited for, as uvicorn would, however long it takes."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["HEAD_S", "TimedHeads"]

HEAD_S = 10.0  # from the connection, or from a later request's first byte, to the end of its head
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class TimedHeads(H11Protocol):
    """uvicorn's protocol with a limit for heads; the guard has those for bodies."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._start()

    def data_received(self, data: bytes) -> None:
        """Pass it on; it may end a head, or begin another request's."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._end()
        elif self._timer is None and before.response_complete:
            self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._end()
        super().connection_lost(exc)

    def _start(self) -> None:
        self._timer = self.loop.call_later(HEAD_S, self._refuse)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_TOO_SLOW)
            self.transport.close()
