"""Connections of the web app with time limits: slow and silent clients cannot block others."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 15.0  # from the connection, or the first byte of a further request, to the end of its headers
WRITE_SECONDS = 60.0  # for a client to read what was sent to it
MAX_CONNECTIONS = 256
BACKLOG = 128  # connections that are accepted at once


class TimedConnection(H11Protocol):
    """A connection of uvicorn, which itself has only a time limit between two requests.

    Of more than `MAX_CONNECTIONS` the oldest that has not sent a request is closed.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit of the headers."""
        super().connection_made(transport)
        self._opened = self.loop.time()
        self._head_timer = self.loop.call_later(HEAD_SECONDS, transport.abort)
        connections: list[Any] = [other for other in self.connections if not other.transport.is_closing()]
        if len(connections) > MAX_CONNECTIONS:
            waiting = [connection for connection in connections if connection._is_waiting]
            min(waiting, key=lambda connection: connection._opened).transport.abort()

    def data_received(self, data: bytes) -> None:
        """Stop the time limit at the end of the headers; start that of a further request with its first byte."""
        super().data_received(data)
        if not self._is_waiting:
            self._stop_head_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def pause_writing(self) -> None:
        """Start the time limit of a client that does not read."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the time limit of reading."""
        super().resume_writing()
        self._stop_write_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all time limits."""
        self._stop_head_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    @property
    def _is_waiting(self) -> bool:
        """Whether the headers of the next request are not complete."""
        return self.conn.their_state is h11.IDLE

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
