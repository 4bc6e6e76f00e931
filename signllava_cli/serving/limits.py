"""The size limit of a request body, with or without a Content-Length header."""

import anyio
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DISCARD_FACTOR = 16  # of a body that is too large, at most so many times the limit is read and discarded
DISCARD_SECONDS = 30.0  # time limit of discarding


class UploadLimit:
    """ASGI middleware: a body of more than `limit` bytes is answered with 413.

    The answer is sent at once. The rest of the body is then read and discarded, within limits, before the connection
    is closed: closing a connection with unread data resets it, and a client that is still sending loses the answer
    (RFC 9112, section 9.6).
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request while counting the bytes of its body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        content_length = dict(scope["headers"]).get(b"content-length", b"0")
        if content_length.isdigit() and int(content_length) > self.limit:
            await self._reject(receive, send)
            return
        num_received, has_answered = 0, False

        async def receive_counted() -> Message:
            nonlocal num_received
            message = await receive()
            num_received += len(message.get("body", b""))
            if num_received > self.limit:
                raise _TooLarge
            return message

        async def send_unless_too_large(message: Message) -> None:
            nonlocal has_answered
            if num_received > self.limit and not has_answered:  # FastAPI answers 400 to any error in reading a body
                raise _TooLarge
            has_answered = True
            await send(message)

        try:
            await self.app(scope, receive_counted, send_unless_too_large)
        except _TooLarge:
            if not has_answered:
                await self._reject(receive, send)

    async def _reject(self, receive: Receive, send: Send) -> None:
        detail = f"The upload is larger than {self.limit:,} bytes; raise `signllava serve --max-upload-mb`."
        answer = JSONResponse({"detail": detail}, status_code=413)
        await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": True})
        with anyio.move_on_after(DISCARD_SECONDS):
            await self._discard(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _discard(self, receive: Receive) -> None:
        """Read the rest of the body, up to the limit."""
        num_discarded, is_complete = 0, False
        while not is_complete and num_discarded < DISCARD_FACTOR * self.limit:
            message = await receive()
            num_discarded += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)  # also if the client has disconnected


class _TooLarge(Exception):
    """The body exceeds the limit."""
