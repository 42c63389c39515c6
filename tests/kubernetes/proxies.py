"""A TCP proxy before the API server, which a test cuts."""

import contextlib
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.kubernetes.clusters import Kubectl

HOST = "127.0.0.1"  # the API server's certificate holds for it


class Proxy(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, host: str, port: int) -> None:
        super().__init__((HOST, 0), _Connection)
        self.target = (host, port)
        self.lock = threading.Lock()
        self.open: set[socket.socket] = set()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def cut(self) -> int:
        """Ends all connections at once, in the middle of whatever is said; how many there were."""
        with self.lock:
            ended = list(self.open)
        for each in ended:
            with contextlib.suppress(OSError):  # it may be ending by itself
                each.shutdown(socket.SHUT_RDWR)
        return len(ended)


class _Connection(socketserver.BaseRequestHandler):
    server: Proxy
    request: socket.socket

    def handle(self) -> None:
        with contextlib.suppress(OSError), socket.create_connection(self.server.target, 10) as upstream:
            upstream.settimeout(None)
            with self._known():
                back = threading.Thread(target=_pump, args=(upstream, self.request), daemon=True)
                back.start()
                _pump(self.request, upstream)
                back.join()

    @contextlib.contextmanager
    def _known(self) -> Iterator[None]:
        with self.server.lock:
            self.server.open.add(self.request)
        try:
            yield
        finally:
            with self.server.lock:
                self.server.open.discard(self.request)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Until either side ends; then both do."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def before_api_server(kubectl: Kubectl, file: Path) -> Iterator[Proxy]:
    """A proxy, and at `file` a kubeconfig whose server it is."""
    config = kubectl.json("config", "view", "--raw")
    context = next(each["context"] for each in config["contexts"] if each["name"] == config["current-context"])
    cluster = next(each["cluster"] for each in config["clusters"] if each["name"] == context["cluster"])
    server = urlsplit(cluster["server"])
    with Proxy(server.hostname or HOST, server.port or 443) as proxy:
        cluster["server"] = f"https://{HOST}:{proxy.port}"
        file.touch(mode=0o600)
        file.write_text(json.dumps(config))
        thread = threading.Thread(target=proxy.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
            proxy.cut()
