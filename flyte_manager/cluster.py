"""The world with Kubernetes, built: a TaskAction and pods for each action, an object store for data, secrets in the
cluster.

Before anything works on it, the Lease is ours and all TaskActions and pods are known.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from flyte_manager import banner
from flyte_manager.blobs.object_store import AccessDenied, BucketMissing, ObjectStore
from flyte_manager.blobs.providers import Options
from flyte_manager.config import KubernetesSettings, Settings, StorageSettings
from flyte_manager.domain.errors import Unavailable, Unready
from flyte_manager.domain.ids import ActionId
from flyte_manager.domain.ports import Clock, SecretReference
from flyte_manager.domain.tasks import World
from flyte_manager.executor.admission import Admission
from flyte_manager.executor.foreign import ForeignOrders
from flyte_manager.executor.outcome import add_to_image
from flyte_manager.executor.resources import Mirrored
from flyte_manager.kubernetes import own_pod, pods, reviews
from flyte_manager.kubernetes.access import Access
from flyte_manager.kubernetes.api_errors import ApiError
from flyte_manager.kubernetes.client import Client, Forbidden, NotFound
from flyte_manager.kubernetes.collector import Collector, Limits
from flyte_manager.kubernetes.crd import INSTALL, NAME
from flyte_manager.kubernetes.events import Recorder
from flyte_manager.kubernetes.lease import Holder, ManagerLease
from flyte_manager.kubernetes.resources import CRDS
from flyte_manager.kubernetes.runtime import Pods
from flyte_manager.kubernetes.secrets import KubernetesSecrets
from flyte_manager.kubernetes.storage_secret import keep_keys, keys_of
from flyte_manager.kubernetes.taskactions import TaskActionObjects
from flyte_manager.kubernetes.verdict import VerdictSettings
from flyte_manager.store.instance import lock_file
from flyte_manager.wire.links import LinkTemplate
from flyte_manager.wire.runs import Platform
from flyte_manager.worlds import Middle, Parts, WorldFacts, in_pod

log = logging.getLogger(__name__)

PROBE_SECONDS = 20.0
ENDPOINT_SECONDS = 2.0
UNLIMITED_MEMORY = 1 << 62
S3_KEYS = {"FLYTE_AWS_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID", "FLYTE_AWS_SECRET_ACCESS_KEY": "AWS_SECRET_ACCESS_KEY"}
"""variable of a task -> key in the Secret, which are the variables of the manager itself"""


class KindMissing(Unready):
    """the cluster ({source}) has no TaskActions: `{install}`"""


class ClusterRefuses(Unready):
    """the cluster ({source}) refuses what the manager needs: {words}: {cure}."""


@dataclass(slots=True)
class Cluster:
    """What is open of it, and its life: checked, taken by the Lease, followed, left."""

    settings: Settings
    access: Access
    client: Client
    store: ObjectStore
    runtime: Pods
    objects: TaskActionObjects
    recorder: Recorder
    collector: Collector
    lease: ManagerLease
    work: asyncio.Task[None] | None = None
    all_known: bool = False

    async def start(self) -> Sequence[ActionId]:
        """Returns when the Lease is ours and all that is there is known; that is what wakes the executor. Raises a
        Refusal."""
        with _explained(self.access):
            await self._check()
        await self.lease.acquire()
        self.work = asyncio.create_task(self._work(), name="cluster")
        known = asyncio.create_task(self._know(), name="cluster known")
        await asyncio.wait([self.work, known], return_when=asyncio.FIRST_COMPLETED)
        known.cancel()
        if self.work.done():
            self.work.result()
        self.all_known = True
        return []

    async def watch(self) -> None:
        """Ends when following the cluster ends, and raises what ended it."""
        if self.work is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(self.work)

    async def stop(self) -> None:
        if self.work is not None:
            self.work.cancel()
            await asyncio.wait([self.work])
        await self.lease.release()

    async def ready(self) -> str | None:
        if not self.lease.held:
            return f"the Lease {self.lease} {self.lease.waits_for}"
        return None if self.all_known else "the cluster's TaskActions and pods are not all known yet: the log tells why"

    async def _check(self) -> None:
        """What a misconfigured cluster or store would let fail later."""
        await self._check_kind()
        for problem in await reviews.problems(self.client, self.settings.manager.kubernetes.namespace):
            log.warning("%s", problem)
        await self._check_store()
        await self._check_endpoint()

    async def _check_kind(self) -> None:
        try:
            await self.client.get(CRDS, NAME, metadata_only=True)
        except NotFound:
            raise KindMissing(source=self.access.source, install=INSTALL) from None
        except Forbidden:
            log.info("this manager may not look at the CRD; whether it is installed will show")

    async def _check_store(self) -> None:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self.store.probe()
        except (AccessDenied, BucketMissing):
            raise
        except (Unavailable, TimeoutError) as trouble:
            log.warning("%s", trouble or f"the object store {self.store.root} does not answer in {PROBE_SECONDS:g} s")

    async def _check_endpoint(self) -> None:
        """Pods may reach what this machine does not, so that this is a warning; the doctor asks from a pod."""
        endpoint = self.settings.manager.kubernetes.task_endpoint
        host, _, port = endpoint.rpartition(":")
        try:
            async with asyncio.timeout(ENDPOINT_SECONDS):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, TimeoutError) as trouble:
            words = (
                "manager.kubernetes.taskEndpoint %s does not answer here (%s): tasks that call the manager may fail; %s"
            )
            log.warning(words, endpoint, trouble or "no answer in time", "`flyte-manager doctor` asks from a pod")
        else:
            writer.close()

    async def _know(self) -> None:
        await self.objects.synced()
        await self.runtime.synced()

    async def _work(self) -> None:
        """Follows the cluster until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, part in (
                ("lease", self.lease.hold()),
                ("task actions", self.objects.run()),
                ("pods", self.runtime.run()),
                ("events", self.recorder.run()),
                ("collector", self.collector.run(self.objects.synced)),
            ):
                group.create_task(part, name=name)


async def build(settings: Settings, middle: Middle, *, access: Access, why: str, stack: AsyncExitStack) -> Parts:
    """Raises a Refusal when a setting can't be right."""
    kubernetes = settings.manager.kubernetes
    store = object_store(settings.storage, middle.clock)
    with _explained(access):
        cluster = await _open(settings, middle, access=access, store=store, stack=stack)
    stack.push_async_callback(cluster.stop)
    return Parts(
        world=World.PODS,
        runtime=cluster.runtime,
        logs=cluster.runtime,
        objects=store,
        blobs=store,
        links=store,
        secrets=KubernetesSecrets(cluster.client, namespace=kubernetes.namespace, clock=middle.clock),
        admission=Admission(cpu=float("inf"), memory=UNLIMITED_MEMORY, wake=middle.wake),
        resources=Mirrored(
            objects=cluster.objects,
            reader=middle.reader,
            ledger=middle.ledger,
            runtime=cluster.runtime,
            foreign=ForeignOrders(middle.projects, store),
        ),
        advice=add_to_image,
        defaults={},
        endpoint=lambda _: kubernetes.task_endpoint,
        start=cluster.start,
        watch=cluster.watch,
        ready=cluster.ready,
        may_work=lambda: cluster.lease.held,
        running=_nobody_asks,
        facts=lambda: _facts(settings, access, why),
        allowed_hosts=_hosts(kubernetes.task_endpoint),
        namespace=kubernetes.namespace,
        platform=Platform(
            links=[LinkTemplate.parse(name, uri) for name, uri in kubernetes.log_links],
            cluster=access.context or access.server,
        ),
    )


def open_client(access: Access, kubernetes: KubernetesSettings) -> Client:
    return Client(access, qps=kubernetes.qps, burst=kubernetes.burst)


async def helper_image(kubernetes: KubernetesSettings, client: Client, environ: Mapping[str, str]) -> str:
    """As the settings say; in a pod else the manager's own. Empty: there is none, so that no ContainerTask can run."""
    if kubernetes.helper_image or not in_pod(environ) or client.access.context:
        return kubernetes.helper_image
    return await own_pod.image(client, namespace=client.access.namespace, pod=own_pod.name(environ))


def object_store(storage: StorageSettings, clock: Clock) -> ObjectStore:
    """Raises BadStorage."""
    options = Options(
        endpoint=storage.s3.endpoint,
        signed_endpoint=storage.signed_endpoint,
        region=storage.s3.region,
        access_key_id=storage.s3.access_key_id,
        secret_access_key=storage.s3.secret_access_key,
        credentials_file=storage.gcs.credentials_file,
        account=storage.azure.account,
        account_key=storage.azure.key,
    )
    return ObjectStore(storage.url, options, clock)


async def _open(
    settings: Settings, middle: Middle, *, access: Access, store: ObjectStore, stack: AsyncExitStack
) -> Cluster:
    kubernetes, clock = settings.manager.kubernetes, middle.clock
    namespace = kubernetes.namespace
    client = await stack.enter_async_context(open_client(access, kubernetes))
    # a client of its own: a burst of work must not delay the renewal of the Lease
    lease_client = await stack.enter_async_context(Client(access, qps=0))
    pod_settings = await _pod_settings(settings, client)
    pods.check(pod_settings)
    recorder = Recorder(client, namespace=namespace, clock=clock)
    objects = TaskActionObjects(client=client, namespace=namespace, wake=middle.wake, recorder=recorder, clock=clock)
    lock = lock_file(settings.database.sqlite.file)
    return Cluster(
        settings=settings,
        access=access,
        client=client,
        store=store,
        runtime=Pods(
            client=client,
            pod_settings=pod_settings,
            verdict_settings=VerdictSettings(
                pending_seconds=kubernetes.pending_seconds,
                image_pull_seconds=kubernetes.image_pull_seconds,
                node_lost_seconds=kubernetes.node_lost_seconds,
            ),
            blobs=store,
            wake=lambda attempt: middle.wake(attempt.action),
            clock=clock,
            recorder=recorder,
        ),
        objects=objects,
        recorder=recorder,
        collector=Collector(
            objects.all,
            objects.delete,
            limits=Limits(age=kubernetes.keep_seconds, count=kubernetes.keep_count),
            clock=clock,
        ),
        lease=ManagerLease(
            lease_client,
            namespace=namespace,
            holder=Holder.here(middle.database.instance_id, lock, own_pod.name(os.environ)),
            clock=clock,
            elapsed=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        ),
    )


async def _pod_settings(settings: Settings, client: Client) -> pods.PodSettings:
    kubernetes = settings.manager.kubernetes
    return pods.PodSettings(
        namespace=kubernetes.namespace,
        default_cpu=kubernetes.default_cpu,
        default_memory=kubernetes.default_memory,
        gpu_resource=kubernetes.gpu_resource,
        accelerator_label=kubernetes.accelerator_label,
        service_account=kubernetes.service_account,
        image_pull_secrets=kubernetes.image_pull_secrets,
        pod_template=kubernetes.pod_template,
        pod_defaults=kubernetes.pod_defaults,
        interruptible_defaults=kubernetes.interruptible_defaults,
        helper_image=await helper_image(kubernetes, client, os.environ),
        storage_env=_storage_env(settings.storage),
        storage_secret_env=await storage_keys(settings.storage, client, kubernetes.namespace),
    )


def _storage_env(storage: StorageSettings) -> Mapping[str, str]:
    """What the SDK's storage code needs in every pod, and is no secret."""
    given = {
        "FLYTE_AWS_ENDPOINT": storage.s3.endpoint,
        "AWS_REGION": storage.s3.region,
        "AZURE_STORAGE_ACCOUNT_NAME": storage.azure.account,
    }
    return {name: value for name, value in given.items() if value}


async def storage_keys(storage: StorageSettings, client: Client, namespace: str) -> Mapping[str, SecretReference]:
    """The store's keys for pods, by reference: from the Secret that the settings name, else from one made of them."""
    scheme = storage.url.partition(":")[0]
    keys = {
        "s3": S3_KEYS,
        "gs": {"GOOGLE_SERVICE_ACCOUNT_KEY": "GOOGLE_SERVICE_ACCOUNT_KEY"},
    }.get(scheme, {"AZURE_STORAGE_ACCOUNT_KEY": "AZURE_STORAGE_ACCOUNT_KEY"})
    name = storage.pod_secret
    if name:
        there = await keys_of(client, name, namespace=namespace)
        lacking = [key for key in keys.values() if key not in there]
        if not there:
            log.info(
                "no Secret %s/%s (storage.podSecret): pods need a role of the cloud for the store", namespace, name
            )
        elif lacking:
            log.warning("the Secret %s/%s has no %s: pods get none", namespace, name, " and no ".join(lacking))
    else:
        values = {
            "AWS_ACCESS_KEY_ID": storage.s3.access_key_id if scheme == "s3" else "",
            "AWS_SECRET_ACCESS_KEY": storage.s3.secret_access_key if scheme == "s3" else "",
            "AZURE_STORAGE_ACCOUNT_KEY": storage.azure.key if scheme not in ("s3", "gs") else "",
        }
        given = {key: value for key, value in values.items() if value}
        there = frozenset(given)
        name = await keep_keys(client, given, namespace=namespace) if given else ""
    return {variable: SecretReference(name, key) for variable, key in keys.items() if key in there}


def _facts(settings: Settings, access: Access, why: str) -> WorldFacts:
    kubernetes = settings.manager.kubernetes
    shown = banner.Pods(
        cluster=access.server,
        namespace=kubernetes.namespace,
        endpoint=kubernetes.task_endpoint,
        storage=settings.storage.url,
        inside=in_pod(os.environ) and not access.context,
    )
    return WorldFacts(why=why, pods=shown)


def _hosts(endpoint: str) -> Sequence[str]:
    """The names by which pods may call the endpoint: a Service has four."""
    host = endpoint.rpartition(":")[0].strip("[]")
    service = host.removesuffix(".svc")
    if service == host:
        return [host]
    return [service.partition(".")[0], service, host, f"{host}.cluster.local"]


@contextlib.contextmanager
def _explained(access: Access) -> Iterator[None]:
    """What the API server refuses at a start, in a sentence."""
    try:
        yield
    except ApiError as error:
        rule = error.rule if isinstance(error, Forbidden) else ""
        cure = rule or "`flyte-manager doctor` looks at all that a start needs"
        raise ClusterRefuses(source=access.source, words=error.words, cure=cure) from error


async def _nobody_asks() -> int:
    """Pods end when they are told to; a manager that ends leaves them running."""
    return 0
