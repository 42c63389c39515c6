"""Minds one RPC at the ASGI level: what connectrpc 0.10 does not do about bodies and about clients that go away.

    client ──body──▶ limit ──▶ application ──messages──▶ client
       └──── disconnect ────▶ cancel

- The body is bounded, by Content-Length before a byte is read and by counting while it is read; in a stream each
  message is, by the length that its head announces.
- connectrpc looks for a disconnect only at the next message, so a quiet stream would stay for ever. Once the body is
  complete we own the wait for the disconnect and cancel the handler when it comes. A unary call gets this watcher only
  after a moment, so that the fast ones don't pay for it.
- connectrpc sends a stream's headers with its first message. It begins to listen for the disconnect as soon as the
  request is decoded and the handler waits: at this moment the headers are sent here, and the later ones dropped.
- connectrpc takes a cancelled handler for a finished one and ends the stream cleanly, which a client reads as success.
  While a cancel is pending on the task (the interceptor in `edge.py` takes back those that it translates) nothing is
  sent any more, and the server closes the connection: the client sees a broken stream and tries again.
"""

import asyncio

from connectrpc.code import Code
from connectrpc.errors import ConnectError

from flyte_manager.rpc.asgi import ASGIApp, Message, Receive, Scope, Send, header_values
from flyte_manager.rpc.bodies import body_of
from flyte_manager.rpc.gzip import too_large
from flyte_manager.rpc.refusals import CONNECT_STREAM, content_type, is_grpc, is_grpc_web, refuse

PATIENCE = 0.25
TOO_LARGE_STATUS = 413
ENCODINGS = (b"gzip", b"identity")


class Guard:
    """The application with bounded bodies (`limit` bytes) whose handlers end when their client does."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        announced = header_values(scope, b"content-length")
        if announced and announced[0].isdigit() and int(announced[0]) > self._limit:
            error = ConnectError(Code.RESOURCE_EXHAUSTED, too_large(self._limit))
            await refuse(scope, send, error, status=TOO_LARGE_STATUS)
            return
        for encoding in header_values(scope, b"connect-content-encoding"):
            if encoding not in ENCODINGS:  # connectrpc would take the messages for uncompressed ones
                known = b" and ".join(ENCODINGS).decode()
                sentence = (
                    f"the compression {encoding[:20].decode('latin-1')!r} of the messages is not known: {known} are"
                )
                await refuse(scope, send, ConnectError(Code.UNIMPLEMENTED, sentence))
                return
        await GuardedCall(scope, receive, send, limit=self._limit).run(self._app)


class GuardedCall:
    """One request. Lives in the task that the server made for it."""

    __slots__ = (
        "_body",
        "_ended",
        "_gone",
        "_lock",
        "_receive",
        "_scope",
        "_send",
        "_started",
        "_task",
        "_timer",
        "_trailers",
        "_watcher",
        "_whole",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, limit: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._scope, self._receive, self._send = scope, receive, send
        self._body = body_of(scope, limit)
        self._whole = False
        self._gone = asyncio.Event()
        self._started = self._trailers = self._ended = False
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self._scope, self.receive, self.send)
        except (Exception, asyncio.CancelledError):
            if not self._gone.is_set() and not self._silenced():
                raise
        finally:
            self._ended = True
            if self._timer is not None:
                self._timer.cancel()
            if self._watcher is not None:
                self._watcher.cancel()

    async def receive(self) -> Message:
        if self._whole or self._gone.is_set():
            self._watch_from_now()
            await self._gone.wait()
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._gone.set()
            return message
        self._body.feed(message.get("body", b""))
        if not message.get("more_body", False):
            self._whole = True
            self._body.end()
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._watch_from_now)
        return message

    async def send(self, message: Message) -> None:
        if self._gone.is_set() or self._silenced():
            return
        async with self._lock:
            if message["type"] == "http.response.start":
                if self._started:
                    return
                self._started = True
                self._trailers = message.get("trailers", False)
            elif message["type"] == "http.response.trailers" or not (message.get("more_body") or self._trailers):
                self._ended = True
            await self._send(message)

    def _silenced(self) -> bool:
        return self._started and self._task.cancelling() > 0

    def _watch_from_now(self) -> None:
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Sends the headers if it is a stream, then waits for the disconnect and cancels the handler."""
        head = stream_head(self._scope)
        async with self._lock:
            if head is not None and not self._started:
                self._started = True
                await self._send(head)
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._ended:
            self._gone.set()
            self._task.cancel()


def stream_head(scope: Scope) -> Message | None:
    """The headers with which connectrpc will begin this stream; None where it is none."""
    kind = content_type(scope)
    if kind.startswith(CONNECT_STREAM):
        encoding, accepted = b"connect-content-encoding", b"connect-accept-encoding"
    elif is_grpc(kind) or is_grpc_web(kind):
        encoding, accepted = b"grpc-encoding", b"grpc-accept-encoding"
        kind = kind if b"+" in kind else kind + b"+proto"
    else:
        return None
    offers = b",".join(header_values(scope, accepted)[:1]).split(b",")
    chosen = next((offer.strip() for offer in offers if offer.strip() in ENCODINGS), b"identity")
    headers = [(b"content-type", kind), (encoding, chosen)]
    return {"type": "http.response.start", "status": 200, "headers": headers, "trailers": is_grpc(kind)}
