"""The table of all settings. `--help`, `config show` and docs/configuration.md follow from it.

Each key has one name in each source:

    manager.runsService.port: 9090                       in the file, nested; case does not count
    FLYTE_MANAGER__MANAGER__RUNSSERVICE__PORT=9090       in the environment: prefix, `__` for the dot, `_` for the dash
    --manager.runsService.port=9090                      on the command line
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flyte_manager.config import kinds
from flyte_manager.config.kinds import Kind

ENVIRONMENT_PREFIX = "FLYTE_MANAGER__"


@dataclass(frozen=True, slots=True)
class Key:
    name: str
    kind: Kind
    default: object
    """as it would stand in the file"""
    meaning: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return ENVIRONMENT_PREFIX + self.name.replace(".", "__").replace("-", "_").upper()

    @property
    def flag(self) -> str:
        """The command line flag that sets it."""
        return f"--{self.name}"


KEYS: Sequence[Key] = (
    Key("manager.mode", kinds.MODE, "auto", "Where tasks run: auto finds out; as processes here, or as pods."),
    Key(
        "manager.runsService.host", kinds.HOST, "localhost", "Where the API listens; 0.0.0.0 lets others run code here."
    ),
    Key("manager.runsService.port", kinds.PORT, 8090, "The API with all services: the address to give to the SDK."),
    Key("manager.queueService.host", kinds.HOST, "localhost", "Where the queue service's port listens."),
    Key("manager.queueService.port", kinds.PORT, 8089, "The same services once more, at the queue service's port."),
    Key(
        "manager.executor.healthProbePort", kinds.PORT, 8081, "The executor's /healthz and /readyz, at the API's host."
    ),
    Key("manager.kubernetes.namespace", kinds.TEXT, "flyte", "Namespace of TaskActions, pods and secrets."),
    Key("manager.kubernetes.kubeconfig", kinds.OPTIONAL_PATH, "", "A kubeconfig file; with it, tasks run as pods."),
    Key("manager.kubernetes.context", kinds.TEXT, "", "Context of the kubeconfig; empty: its current one."),
    Key(
        "manager.kubernetes.taskEndpoint",
        kinds.TEXT,
        "",
        "host:port at which pods reach the API; in a pod: its Service.",
    ),
    Key("manager.kubernetes.serviceAccount", kinds.TEXT, "", "Service account of tasks that name none."),
    Key("manager.kubernetes.imagePullSecrets", kinds.TEXTS, [], "Names of Secrets with which pods pull their images."),
    Key("manager.kubernetes.defaultCpu", kinds.TEXT, "250m", "CPU request of tasks that ask for none; empty: none."),
    Key("manager.kubernetes.defaultMemory", kinds.TEXT, "256Mi", "Memory request of tasks that ask for none."),
    Key("manager.kubernetes.gpuResource", kinds.TEXT, "nvidia.com/gpu", "The resource that stands for a GPU."),
    Key(
        "manager.kubernetes.acceleratorLabel",
        kinds.TEXT,
        "cloud.google.com/gke-accelerator",
        "The node label by which a task's GPU model is chosen.",
    ),
    Key(
        "manager.kubernetes.podDefaults", kinds.OBJECT, {}, "A pod template (metadata, spec) beneath every task's pod."
    ),
    Key("manager.kubernetes.interruptibleDefaults", kinds.OBJECT, {}, "The same, for interruptible tasks only."),
    Key("manager.kubernetes.podTemplate", kinds.TEXT, "", "Name of a PodTemplate in the namespace, beneath every pod."),
    Key(
        "manager.kubernetes.helperImage",
        kinds.TEXT,
        "",
        "Moves the data of ContainerTasks; in a pod: the manager's image.",
    ),
    Key("manager.kubernetes.logLinks", kinds.LINKS, [], "Links to the logs of each attempt, with placeholders."),
    Key("manager.kubernetes.imagePullSeconds", kinds.SECONDS, 180, "How long an image may fail to be pulled."),
    Key("manager.kubernetes.pendingSeconds", kinds.SECONDS, 0, "How long a pod may wait for a node; 0 = for ever."),
    Key("manager.kubernetes.nodeLostSeconds", kinds.SECONDS, 300, "After which a pod on a lost node is given up."),
    Key("manager.kubernetes.keepSeconds", kinds.SECONDS, 3600, "How long finished TaskActions and their pods stay."),
    Key("manager.kubernetes.keepCount", kinds.COUNT, 10000, "How many finished TaskActions stay at most."),
    Key(
        "manager.kubernetes.qps",
        kinds.RATE,
        500,
        "Requests a second to the Kubernetes API, on the average; 0 = no limit.",
    ),
    Key("manager.kubernetes.burst", kinds.COUNT, 1000, "Requests that may follow each other at once."),
    Key("runs.domains", kinds.DOMAINS, ["development", "staging", "production"], "The domains of every project."),
    Key(
        "runs.trustForwardedIdentityHeaders",
        kinds.BOOL,
        False,
        "Whether headers tell who calls: only behind a proxy that sets them.",
    ),
    Key("runs.identityHeaders.claimsJwtHeader", kinds.TEXT, "X-Amzn-Oidc-Data", "The header with a JWT of claims."),
    Key("runs.identityHeaders.subjectHeader", kinds.TEXT, "X-Amzn-Oidc-Identity", "The header with the bare subject."),
    Key("runs.identityHeaders.emailHeader", kinds.TEXT, "", "The header with the email of the bare subject."),
    Key("database.type", kinds.TEXT, "sqlite", "The kind of database; only sqlite."),
    Key("database.sqlite.file", kinds.PATH, "flyte.db", "The database file, relative to the working directory."),
    Key(
        "logger.level",
        kinds.LEVEL,
        4,
        "0 panic, 1 fatal, 2 error, 3 warning, 4 info, 5 debug: up to here is logged.",
    ),
    Key("logger.show-source", kinds.BOOL, False, "Whether each log line names the source line that wrote it."),
    Key(
        "dataDir",
        kinds.PATH,
        "~/.flyte-manager",
        "Where inputs, outputs, code, logs and keys lie; a folder per database.",
    ),
    Key(
        "server.allowedHosts", kinds.HOSTS, [], "Names besides localhost and plain addresses by which clients may call."
    ),
    Key(
        "server.tls.certificate",
        kinds.OPTIONAL_PATH,
        "",
        "A PEM file, the chain included; with it and its key the API is https.",
    ),
    Key("server.tls.key", kinds.OPTIONAL_PATH, "", "The PEM file of the certificate's key, without a password."),
    Key(
        "embedded.python",
        kinds.OPTIONAL_PATH,
        "",
        "The Python of the tasks; empty: the active virtual environment, else ours.",
    ),
    Key(
        "embedded.passEnv",
        kinds.NAMES,
        [],
        "Variables of the manager's environment that tasks get too; * stands for anything.",
    ),
    Key(
        "embedded.warm", kinds.BOOL, True, "Whether tasks fork from a warm process; false starts a new Python for each."
    ),
    Key("embedded.cpu", kinds.CPU, 0, "Cores that running tasks may request together; 0 = all of the machine."),
    Key("embedded.memory", kinds.MEMORY, 0, "Memory that running tasks may request together; 0 = all of the machine."),
    Key("tasks.maxRuntime.default", kinds.TIME, 0, "How long one attempt may run, where the task says nothing."),
    Key("tasks.maxRuntime.most", kinds.TIME, 0, "The most of it that a task gets; 0 = no bound."),
    Key(
        "tasks.queuedTimeout.default",
        kinds.TIME,
        0,
        "How long one attempt may wait to start, where the task says nothing.",
    ),
    Key("tasks.queuedTimeout.most", kinds.TIME, 0, "The most of it that a task gets; 0 = no bound."),
    Key(
        "tasks.deadline.default",
        kinds.TIME,
        0,
        "How long an action may take, over all its attempts, where the task says nothing.",
    ),
    Key("tasks.deadline.most", kinds.TIME, 0, "The most of it that a task gets; 0 = no bound."),
    Key("retention.maxAge", kinds.TIME, 0, "How long runs stay after their end; 0 = for good. See retention.md."),
    Key("retention.maxSize", kinds.SIZE, 0, "How much finished runs may occupy before the oldest go; 0 = no bound."),
    Key(
        "retention.forgetCached",
        kinds.BOOL,
        False,
        "Whether runs go whose outputs the cache keeps, and it forgets them.",
    ),
    Key("retention.every", kinds.TIME, "1h", "How often finished runs are looked at, where they are bounded."),
    Key("storage.url", kinds.TEXT, "", "Where pods find data: s3://bucket/prefix, gs://… or abfss://…"),
    Key("storage.signedEndpoint", kinds.TEXT, "", "The store's address for clients outside, where it differs."),
    Key("storage.podSecret", kinds.TEXT, "", "A Secret whose keys become variables of all task pods."),
    Key("storage.s3.endpoint", kinds.TEXT, "", "Address of an S3-compatible store; empty: AWS."),
    Key("storage.s3.region", kinds.TEXT, "", "Region of the bucket; empty: found in the environment, or us-east-1."),
    Key("storage.s3.accessKeyId", kinds.TEXT, "", "Empty: the credentials of the environment, of a role."),
    Key("storage.s3.secretAccessKey", kinds.SECRET, "", "Better given as an environment variable."),
    Key("storage.gcs.credentialsFile", kinds.OPTIONAL_PATH, "", "A service account's key; empty: the environment's."),
    Key("storage.azure.account", kinds.TEXT, "", "The storage account, where the URL does not name it."),
    Key("storage.azure.key", kinds.SECRET, "", "Its key; empty: the credentials of the environment."),
)
