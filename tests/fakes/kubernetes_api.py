"""A Kubernetes API server in memory, over real HTTP, for the resources that the manager uses.

    async with FakeKubernetes() as api:
        api.put("pods", {"metadata": {"name": "p"}}, namespace="flyte")   # as if somebody else did it
        api.set_pod_status("p", {"phase": "Running"})
        await api.refuse()                                                # and api.listen(): as it was

What it is meant to be true in: versions, watches (clean ends, cuts, bookmarks, 410), conflicts, graceful deletion of
pods, garbage collection by owner references, logs, Status answers. Nothing is validated, and no controller runs: pods
get the status that a test gives them, and leave when `finish_deletion` is called (`graceful = False`: at once).
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from tests.fakes.kubernetes_answers import Answers, Failure
from tests.fakes.kubernetes_objects import Object, Objects, Refused, copied

if TYPE_CHECKING:
    from flyte_manager.kubernetes.access import Access


class FakeKubernetes(Answers):
    def __init__(self, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__(Objects(now))
        server = web.Server(self.handle, access_log=None, handler_cancellation=True)
        # a request that its client gave up in the middle would else be waited for, a minute
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        self._site: web.SockSite | None = None
        self._port = 0

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._objects.close()
        self._abort()
        await self._runner.cleanup()

    def _abort(self) -> None:
        for connection in self._runner.server.connections if self._runner.server else ():
            if connection.transport is not None:
                connection.transport.abort()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def access(self) -> "Access":
        """For the client: no credentials."""
        from flyte_manager.kubernetes.access import Access

        return Access(self.url, source="a fake cluster", namespace="flyte")

    # Objects, as others see and change them.

    def put(self, plural: str, document: Mapping[str, Any], *, namespace: str = "") -> Object:
        """Creates it, or replaces it with its uid kept: status too."""
        name = document["metadata"].get("name", "")
        before = self._objects.find(plural, name, namespace) if name else None
        if before is None:
            return copied(self._objects.create(plural, document, namespace))
        after = {"apiVersion": before["apiVersion"], "kind": before["kind"], **copied(dict(document))}
        after["metadata"] = {**before["metadata"], **after["metadata"]}
        return copied(self._objects.store(plural, after))

    def get(self, plural: str, name: str, *, namespace: str = "") -> Object:
        """Raises Refused when there is none."""
        return copied(self._objects.require(plural, name, namespace))

    def objects(self, plural: str, *, namespace: str = "") -> list[Object]:
        return [copied(each) for each in self._objects.of(plural, namespace)]

    def names(self, plural: str, *, namespace: str = "") -> list[str]:
        return [each["metadata"]["name"] for each in self._objects.of(plural, namespace)]

    def delete(self, plural: str, name: str, *, namespace: str = "", grace: int = 0) -> None:
        """As `kubectl delete --grace-period`; dependents go at once."""
        where = namespace or self.get(plural, name)["metadata"].get("namespace", "")
        options = {"gracePeriodSeconds": grace, "propagationPolicy": "Background"}
        self._objects.delete(plural, name, where, options)

    def set_pod_status(self, name: str, status: Mapping[str, Any], *, namespace: str = "") -> Object:
        pod = self.get("pods", name, namespace=namespace)
        return copied(self._objects.store("pods", {**pod, "status": copied(dict(status))}))

    def finish_deletion(self, name: str, *, namespace: str = "") -> None:
        """The pod that was deleted is gone."""
        pod = self._objects.require("pods", name, namespace)
        assert "deletionTimestamp" in pod["metadata"], f"pod {name} was not deleted"
        self._objects.remove("pods", pod, policy="Background")

    @property
    def graceful(self) -> bool:
        """Whether pods stay until `finish_deletion`, unless they have ended or the grace is 0."""
        return self._objects.graceful

    @graceful.setter
    def graceful(self, graceful: bool) -> None:
        self._objects.graceful = graceful

    @property
    def collects_orphans(self) -> bool:
        """Whether an object that is created when its owner is gone already is collected, as by Kubernetes."""
        return self._objects.collects_orphans

    @collects_orphans.setter
    def collects_orphans(self, collects: bool) -> None:
        self._objects.collects_orphans = collects

    # Trouble.

    async def refuse(self) -> None:
        """Connections are cut, new ones are refused. The port stays ours."""
        if self._site is not None:
            await self._site.stop()
            self._site = None
        self._abort()

    async def listen(self) -> None:
        if self._site is not None:
            return
        place = socket.socket()
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", self._port))
        self._port = place.getsockname()[1]
        self._site = web.SockSite(self._runner, place)
        await self._site.start()

    def cut_watches(self) -> None:
        """In the middle, as when a proxy dies; logs that are followed too."""
        for transport in list(self._streams):
            transport.abort()

    def end_watches_after(self, events: int | None) -> None:
        """Each watch ends cleanly after so many events. None: no more."""
        self._watch_length = events

    def bookmark(self) -> None:
        """A BOOKMARK for each open watch that allows them."""
        self._bookmarks += 1
        for listener in self._objects.listeners:
            listener.set()

    def expire(self) -> None:
        """All versions and continue tokens that were given out are too old: 410. Open watches go on."""
        self._objects.expire()
        self._pages.clear()

    def fail(
        self,
        verb: str,
        plural: str,
        *,
        status: int = 500,
        reason: str = "InternalError",
        message: str = "an error on the server",
        name: str = "*",
        times: int | None = 1,
        retry_after: int | None = None,
    ) -> None:
        """The next `times` such requests (None: all) are answered so. `*` is any verb, plural or name."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._failures.append(Failure(verb, plural, name, Refused(status, reason, message), times, headers))

    def lose_answers(self, verb: str, plural: str, *, name: str = "*", times: int | None = 1) -> None:
        """The next such requests are done, but the connection is cut before the answer."""
        self._failures.append(Failure(verb, plural, name, None, times))

    def mend(self) -> None:
        """Forgets `fail`, `lose_answers` and `delay`."""
        self._failures.clear()
        self._delay = 0.0

    def delay(self, seconds: float) -> None:
        """Each request waits so long before it is done."""
        self._delay = seconds

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """Requests so far, by (verb, plural)."""
        return Counter((request.verb, request.plural) for request in self.requests)

    async def until(self, holds: Callable[[], object], *, seconds: float = 5.0) -> None:
        """Waits for something to become true."""
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
