"""Limits of requests: the size and the speed of a body, their number and rate, and the site that makes them."""

import math

import anyio
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DISCARD_FACTOR = 16  # of a body that is too large, at most so many times the limit is read and discarded
DISCARD_SECONDS = 30.0  # time limit of discarding
BODY_SECONDS = 30.0  # for a body, beyond the time that it takes at the lowest rate
MIN_BYTES_PER_SECOND = 16 * 1024
MAX_RUNNING = 32  # requests that are being read or answered; fewer than the threads of anyio, so GETs find one
MAX_PER_SECOND, MAX_BURST = 20, 100
SAFE_METHODS = ("GET", "HEAD")


class UploadLimit:
    """ASGI middleware: a body of more than `limit` bytes is answered with 413, one that arrives too slowly with 408.

    The answer 413 is sent at once. The rest of the body is then read and discarded, within limits, before the
    connection is closed: closing a connection with unread data resets it, and a client that is still sending loses
    the answer (RFC 9112, section 9.6).
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
        start, num_received, is_complete, has_answered = anyio.current_time(), 0, False, False
        refusal: Exception | None = None

        async def receive_counted() -> Message:
            nonlocal num_received, is_complete, refusal
            seconds = BODY_SECONDS + num_received / MIN_BYTES_PER_SECOND - (anyio.current_time() - start)
            with anyio.move_on_after(math.inf if is_complete else seconds) as limit:
                message = await receive()
            if limit.cancelled_caught:
                refusal = _TooSlow()
                raise refusal
            num_received += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if num_received > self.limit:
                refusal = _TooLarge()
                raise refusal
            return message

        async def send_unless_refused(message: Message) -> None:
            nonlocal has_answered
            if refusal is not None and not has_answered:  # FastAPI answers 400 to any error in reading a body
                raise refusal
            has_answered = True
            await send(message)

        try:
            await self.app(scope, receive_counted, send_unless_refused)
        except _TooLarge:
            if not has_answered:
                await self._reject(receive, send)
        except _TooSlow:
            if not has_answered:
                detail = f"The upload is slower than {MIN_BYTES_PER_SECOND:,} bytes per second."
                await JSONResponse({"detail": detail}, 408, {"Connection": "close"})(scope, receive, send)

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


class _TooSlow(Exception):
    """The body does not arrive in time."""


class WorkLimit:
    """ASGI middleware: limits of the requests that translate (all but GET and HEAD), in number at a time and in rate.

    A further request is answered at once, with 503 or 429.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._num_running, self._tokens, self._time = 0, float(MAX_BURST), 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, unless there are too many."""
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS:
            await self.app(scope, receive, send)
        elif self._num_running >= MAX_RUNNING:
            await _answer_busy(
                503, f"{MAX_RUNNING} requests are being answered; try again later.", scope, receive, send
            )
        elif not self._take_token():
            detail = f"More than {MAX_PER_SECOND} requests per second; try again later."
            await _answer_busy(429, detail, scope, receive, send)
        else:
            self._num_running += 1
            try:
                await self.app(scope, receive, send)
            finally:
                self._num_running -= 1

    def _take_token(self) -> bool:
        """Whether a request is within the rate (a token bucket)."""
        now = anyio.current_time()
        self._tokens = min(MAX_BURST, self._tokens + (now - self._time) * MAX_PER_SECOND)
        self._time = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


async def _answer_busy(status: int, detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    headers = {"Retry-After": "1", "Connection": "close"}
    await JSONResponse({"detail": detail}, status, headers)(scope, receive, send)


class SameOrigin:
    """ASGI middleware: requests that another web site makes in the user's browser are answered with 403.

    The page itself may be opened from anywhere.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request of the own page, or of a program."""
        is_checked = scope["type"] == "http" and (
            scope["method"] not in SAFE_METHODS or scope["path"].startswith("/api/")
        )
        if is_checked and _is_cross_site(dict(scope["headers"])):
            answer = JSONResponse({"detail": "Requests of other web sites are refused."}, 403)
            await answer(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _is_cross_site(headers: dict[bytes, bytes]) -> bool:
    """Whether a browser says that the request comes from another site.

    Browsers send Sec-Fetch-Site to addresses that they trust (loopback, HTTPS), and Origin with each POST.
    """
    if site := headers.get(b"sec-fetch-site"):
        return site not in (b"same-origin", b"none")
    origin = headers.get(b"origin")
    return origin is not None and origin.partition(b"://")[2] != headers.get(b"host", b"")
