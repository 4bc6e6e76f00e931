"""How much may be sent in one request, whether its length is told beforehand or not."""

import anyio
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DISCARDED = 16  # of a body that is too large, at most so many times the limit is read and thrown away
DISCARD_SECONDS = 30.0  # and for at most so long


class UploadLimit:
    """ASGI middleware: a body of more than `limit` bytes is answered with 413.

    The answer goes out at once. The rest of the body is then read and discarded, within bounds, before the connection
    is closed: closing on unread data resets the connection, and a client that was still sending loses the answer
    (RFC 9112, section 9.6).
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, counting its body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if told.isdigit() and int(told) > self.limit:
            await self._refuse(receive, send)
            return
        received, answered = 0, False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal answered
            if received > self.limit and not answered:  # FastAPI answers 400 to whatever is raised in reading a body
                raise _TooLarge
            answered = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except _TooLarge:
            if not answered:
                await self._refuse(receive, send)

    async def _refuse(self, receive: Receive, send: Send) -> None:
        detail = f"The upload is larger than {self.limit:,} bytes; see `signllava serve --max-upload-mb`."
        answer = JSONResponse({"detail": detail}, status_code=413)
        await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": True})
        with anyio.move_on_after(DISCARD_SECONDS):
            await self._discard(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _discard(self, receive: Receive) -> None:
        """Read the rest of the body, or as much of it as is reasonable."""
        discarded, is_whole = 0, False
        while not is_whole and discarded < DISCARDED * self.limit:
            message = await receive()
            discarded += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)  # also of a client that is gone


class _TooLarge(Exception):
    """The body has passed the limit."""
