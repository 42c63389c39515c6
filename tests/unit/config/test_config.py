"""Where settings come from, which one wins, and what a wrong one says."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from flyte_manager.config import KEYS, SYSTEM_FILE, ConfigError, Key, Settings, find_file, load

ORIGINAL = """\
manager:
  runsService:
    host: "0.0.0.0"
    port: 8090

  queueService:
    host: "0.0.0.0"
    port: 8089

  executor:
    healthProbePort: 8081

  kubernetes:
    namespace: "flyte"
    # Optional: specify custom kubeconfig path
    # kubeconfig: "/path/to/kubeconfig"

database:
  type: "sqlite"
  sqlite:
    file: "flyte.db"

logger:
  level: 4  # Info level
  show-source: true
"""

RIGHT: Mapping[str, tuple[str, object]] = {
    "manager.mode": ("embedded", "embedded"),
    "manager.runsService.host": ("::1", "::1"),
    "manager.runsService.port": ("0", 0),
    "manager.queueService.host": ("Manager.Example.org", "manager.example.org"),
    "manager.queueService.port": ("65535", 65535),
    "manager.executor.healthProbePort": ("1", 1),
    "manager.kubernetes.namespace": ("team", "team"),
    "manager.kubernetes.kubeconfig": ("/k", "/k"),
    "manager.kubernetes.context": ("prod", "prod"),
    "manager.kubernetes.taskEndpoint": ("flyte-manager.flyte:8090", "flyte-manager.flyte:8090"),
    "manager.kubernetes.serviceAccount": ("tasks", "tasks"),
    "manager.kubernetes.imagePullSecrets": ("regcred, other", ("regcred", "other")),
    "manager.kubernetes.defaultCpu": ("1", "1"),
    "manager.kubernetes.defaultMemory": ("", ""),
    "manager.kubernetes.gpuResource": ("amd.com/gpu", "amd.com/gpu"),
    "manager.kubernetes.acceleratorLabel": ("gpu/model", "gpu/model"),
    "manager.kubernetes.podDefaults": (
        "{spec: {nodeSelector: {disk: ssd}}}",
        {"spec": {"nodeSelector": {"disk": "ssd"}}},
    ),
    "manager.kubernetes.interruptibleDefaults": ('{"spec": {}}', {"spec": {}}),
    "manager.kubernetes.podTemplate": ("base", "base"),
    "manager.kubernetes.helperImage": ("reg/flyte-manager:1", "reg/flyte-manager:1"),
    "manager.kubernetes.logLinks": ('[{name: Logs, uri: "https://l/x"}]', (("Logs", "https://l/x"),)),
    "manager.kubernetes.imagePullSeconds": ("60", 60.0),
    "manager.kubernetes.pendingSeconds": ("0.5", 0.5),
    "manager.kubernetes.nodeLostSeconds": ("1", 1.0),
    "manager.kubernetes.keepSeconds": ("86400", 86400.0),
    "manager.kubernetes.keepCount": ("100", 100),
    "manager.kubernetes.qps": ("50", 50.0),
    "manager.kubernetes.burst": ("100", 100),
    "tasks.maxRuntime.default": ("90", 90.0),
    "tasks.maxRuntime.most": ("8h", 28800.0),
    "tasks.queuedTimeout.default": ("1.5m", 90.0),
    "tasks.queuedTimeout.most": ("7d", 604800.0),
    "tasks.deadline.default": ("30s", 30.0),
    "tasks.deadline.most": ("0", 0.0),
    "retention.maxAge": ("30d", 30 * 86_400.0),
    "retention.maxSize": ("10GiB", 10 << 30),
    "retention.forgetCached": ("true", True),
    "retention.every": ("15m", 900.0),
    "storage.url": ("s3://bucket/prefix/", "s3://bucket/prefix"),
    "storage.signedEndpoint": ("https://s3.example.org", "https://s3.example.org"),
    "storage.podSecret": ("store", "store"),
    "storage.s3.endpoint": ("http://localhost:9000", "http://localhost:9000"),
    "storage.s3.region": ("eu-west-1", "eu-west-1"),
    "storage.s3.accessKeyId": ("id", "id"),
    "storage.s3.secretAccessKey": ("key", "key"),
    "storage.gcs.credentialsFile": ("/gcs.json", "/gcs.json"),
    "storage.azure.account": ("account", "account"),
    "storage.azure.key": ("key", "key"),
    "runs.domains": ("qa, production", (("qa", "qa"), ("production", "production"))),
    "runs.trustForwardedIdentityHeaders": ("true", True),
    "runs.identityHeaders.claimsJwtHeader": ("X-Claims", "X-Claims"),
    "runs.identityHeaders.subjectHeader": ("X-Auth-Request-User", "X-Auth-Request-User"),
    "runs.identityHeaders.emailHeader": ("X-Auth-Request-Email", "X-Auth-Request-Email"),
    "database.type": ("sqlite", "sqlite"),
    "database.sqlite.file": ("/var/a.db", Path("/var/a.db")),
    "logger.level": ("5", 5),
    "logger.show-source": ("True", True),
    "dataDir": ("/var/data", Path("/var/data")),
    "server.allowedHosts": ("a.example.org, b.example.org", ("a.example.org", "b.example.org")),
    "server.tls.certificate": ("/etc/tls/tls.crt", "/etc/tls/tls.crt"),
    "server.tls.key": ("/etc/tls/tls.key", "/etc/tls/tls.key"),
    "embedded.python": ("/usr/bin/python3", "/usr/bin/python3"),
    "embedded.passEnv": ("EDITOR,AWS_*", ("EDITOR", "AWS_*")),
    "embedded.warm": ("false", False),
    "embedded.cpu": ("1.5", 1.5),
    "embedded.memory": ("8Gi", 8 << 30),
}
"""key -> text of a flag or variable, and its value"""

BESIDE: Mapping[str, Mapping[str, str]] = {
    "storage.s3.accessKeyId": {"storage.s3.secretAccessKey": "key"},
    "storage.s3.secretAccessKey": {"storage.s3.accessKeyId": "id"},
}
"""what a key needs beside it"""

WRONG: Mapping[str, str] = {
    "manager.mode": "pods",
    "manager.runsService.host": "http://localhost",
    "manager.runsService.port": "65536",
    "manager.queueService.host": "localhost:8089",
    "manager.queueService.port": "-1",
    "manager.executor.healthProbePort": "80.5",
    "database.sqlite.file": "",
    "logger.level": "6",
    "logger.show-source": "yes",
    "dataDir": "",
    "server.allowedHosts": "https://a.example.org",
    "embedded.passEnv": "A=B",
    "embedded.warm": "1",
    "embedded.cpu": "nan",
    "embedded.memory": "8 potatoes",
    "tasks.maxRuntime.most": "1h30m",
    "tasks.deadline.default": "-1",
    "manager.kubernetes.podDefaults": "{",
    "manager.kubernetes.logLinks": "[a]",
}


def write(folder: Path, text: str) -> Path:
    file = folder / "config.yaml"
    file.write_text(text)
    return file


def refusal(folder: Path, text: str) -> str:
    file = write(folder, text)
    with pytest.raises(ConfigError) as refused:
        load({}, {}, file)
    return str(refused.value).replace(f"{folder}/", "")


@pytest.fixture
def defaults() -> Settings:
    return load({}, {}, None)


def test_the_original_configuration_loads_unchanged(tmp_path: Path) -> None:
    file = write(tmp_path, ORIGINAL)
    settings = load({}, {}, file)
    assert settings.manager.runs_service.host == "0.0.0.0"
    assert settings.manager.queue_service.host == "0.0.0.0"
    assert settings.manager.kubernetes.namespace == "flyte"
    assert settings.database.sqlite.file == Path("flyte.db")
    assert settings.logger.show_source is True
    assert settings.origins["manager.queueService.port"] == f"{file}:8"
    assert settings.origins["dataDir"] == "default"


def test_the_shipped_configuration_listens_on_loopback() -> None:
    settings = load({}, {}, Path(__file__).parents[3] / "config.yaml")
    assert settings.manager.runs_service.host == settings.manager.queue_service.host == "localhost"


def test_what_the_shipped_configuration_offers_in_comments_is_right(tmp_path: Path) -> None:
    offered = (Path(__file__).parents[3] / "config.yaml").read_text().partition("\n#\n")[2]
    file = tmp_path / "config.yaml"
    file.write_text("\n".join(line.removeprefix("# ") for line in offered.splitlines()))
    settings = load({}, {}, file)
    assert (settings.tasks.max_runtime.default, settings.tasks.max_runtime.most) == (8 * 3600, 3 * 86_400)
    assert (settings.tasks.deadline.most, settings.retention.max_age) == (7 * 86_400, 30 * 86_400)


def test_the_defaults_are_loopback_and_the_ports_of_the_original(defaults: Settings) -> None:
    manager = defaults.manager
    assert (manager.runs_service.host, manager.queue_service.host) == ("localhost", "localhost")
    assert (manager.runs_service.port, manager.queue_service.port, manager.executor.health_probe_port) == (
        8090,
        8089,
        8081,
    )
    assert defaults.data_dir == Path.home() / ".flyte-manager"
    assert set(defaults.origins.values()) == {"default"}
    assert set(defaults.origins) == {key.name for key in KEYS}


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_every_key_can_be_set_by_flag_and_by_variable(key: Key) -> None:
    text, value = RIGHT[key.name]
    beside = BESIDE.get(key.name, {})
    by_flag = load({key.name: text, **beside}, {}, None)
    by_variable = load(beside, {key.variable: text}, None)
    assert by_flag.value(key.name) == by_variable.value(key.name) == value
    assert by_flag.origins[key.name] == f"flag --{key.name}"
    assert by_variable.origins[key.name] == f"environment {key.variable}"


@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_value_is_refused_with_the_key_and_what_it_needs(key: str) -> None:
    kind = next(known.kind for known in KEYS if known.name == key)
    with pytest.raises(ConfigError) as refused:
        load({key: WRONG[key]}, {}, None)
    assert str(refused.value) == f"flag --{key}: {key} needs {kind.needs}, not {WRONG[key]!r}"


def test_variables_are_named_after_keys() -> None:
    variables = {key.name: key.variable for key in KEYS}
    assert variables["manager.runsService.port"] == "FLYTE_MANAGER__MANAGER__RUNSSERVICE__PORT"
    assert variables["logger.show-source"] == "FLYTE_MANAGER__LOGGER__SHOW_SOURCE"
    assert len(set(variables.values())) == len(KEYS)


def test_flags_beat_variables_which_beat_the_file_which_beats_defaults(tmp_path: Path) -> None:
    name, variable = "logger.level", "FLYTE_MANAGER__LOGGER__LEVEL"
    file = write(tmp_path, "logger: {level: 1}\n")
    assert load({}, {}, None).logger.level == 4
    assert load({}, {}, file).logger.level == 1
    assert load({}, {variable: "2"}, file).logger.level == 2
    assert load({name: "3"}, {variable: "2"}, file).logger.level == 3


def test_a_wrong_value_is_refused_even_where_another_source_overrides_it(tmp_path: Path) -> None:
    file = write(tmp_path, "logger: {level: loud}\n")
    with pytest.raises(ConfigError, match="not 'loud'"):
        load({"logger.level": "3"}, {}, file)


def test_case_does_not_count_in_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "Manager:\n  runsservice:\n    PORT: 9090\n")
    assert load({}, {}, file).manager.runs_service.port == 9090


def test_empty_sections_and_values_keep_the_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, "manager:\n  kubernetes:\nembedded:\n  python:\n")
    assert load({}, {}, file).origins["embedded.python"] == "default"
    assert load({}, {}, write(tmp_path, "# nothing\n")) == load({}, {}, None)


def test_lists_and_amounts_are_written_as_yaml(tmp_path: Path) -> None:
    text = "server:\n  allowedHosts:\n    - a.example.org\nembedded:\n  memory: 536870912\n  cpu: 2\n"
    settings = load({}, {}, write(tmp_path, text))
    assert settings.server.allowed_hosts == ("a.example.org",)
    assert (settings.embedded.memory, settings.embedded.cpu) == (512 << 20, 2.0)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load({"dataDir": "~/data"}, {}, None).data_dir == tmp_path / "data"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("manager:\n  runsService:\n    prot: 1\n", "config.yaml:3:5: unknown key 'manager.runsService.prot'"),
        ("manager:\n  runService:\n    port: 1\n", "config.yaml:2:3: unknown key 'manager.runService'"),
        ("port: 9090\n", "config.yaml:1:1: unknown key 'port': did you mean manager.runsService.port?"),
        ("qqq: 1\n", "unknown key 'qqq': `flyte-manager config show` lists all keys"),
        ("logger:\n  level: '4'\n", "config.yaml:2:10: logger.level needs a whole number from 0 (panic) to 5 (debug)"),
        ("logger:\n  level: true\n", "config.yaml:2:10: logger.level needs"),
        (
            "logger:\n  show-source: 'true'\n",
            "config.yaml:2:16: logger.show-source needs true or false, without quotes",
        ),
        ("logger:\n  level:\n    deep: 1\n", "config.yaml:3:5: logger.level needs a whole number"),
        ("logger: 4\n", "config.yaml:1:9: logger is a section: its keys stand below it"),
        ("- logger\n", "config.yaml:1:1: the file is a list of sections"),
        ("dataDir: 7\n", "config.yaml:1:10: dataDir needs a path"),
        ("dataDir: !!python/name:os.system x\n", "config.yaml:1:10: dataDir needs a path"),
        ("server:\n  allowedHosts: a.example.org\n", "config.yaml:2:17: server.allowedHosts needs a list"),
        ("logger:\n  level: 3\n  LEVEL: 4\n", "config.yaml:3:3: logger.LEVEL was given before, on line 2"),
        ("{dataDir: /a, dataDir: /b}\n", "config.yaml:1:15: dataDir was given before, on line 1"),
        ("logger.level: 4\n", "config.yaml:1:1: logger.level must be nested: `logger:`"),
        ("version: 1\n", "unknown key 'version': `flyte-manager config show` lists all keys"),
        ("admin:\n  endpoint: a\n", "config.yaml:1:1: 'admin' is a section of the SDK's configuration"),
        (
            "logger:\n\tlevel: 4\n",
            "config.yaml:2:1: this is not YAML: found character '\\t' that cannot start any token; indent",
        ),
        (
            "logger:\n  level: 4\n show-source: true\n",
            "config.yaml:3:2: this is not YAML: expected <block end>, but found",
        ),
        ("logger:\n  level: 4\n show-source: true\n", "; indent with spaces, all keys of a section alike"),
        ("logger: level: 4\n", "this is not YAML: mapping values are not allowed here"),
        ("logger: [\n", "config.yaml:2:1: this is not YAML: expected the node content, but found '<stream end>'"),
        ("a: 1\n---\nb: 2\n", "config.yaml:2:1: this is not YAML: expected a single document in the stream, but found"),
        ("dataDir: \x00\n", "config.yaml is not YAML"),
        ("manager: {runsService: {port: 7}, queueService: {port: 7}}\n", "are both 7: give each its own port"),
        (
            "manager: {kubernetes: {taskEndpoint: 'http://a:1'}}\n",
            "config.yaml:1: manager.kubernetes.taskEndpoint needs",
        ),
        ("storage: {url: /data}\n", "config.yaml:1: storage.url needs s3://bucket/prefix, gs://"),
        ("storage: {s3: {accessKeyId: a}}\n", "config.yaml:1: storage.s3 needs both accessKeyId and secretAccessKey"),
        ("storage: {s3: {secretAccessKey: 7}}\n", "storage.s3.secretAccessKey needs a text (in quotes if it looks"),
        ("manager: {kubernetes: {podDefaults: [1]}}\n", "manager.kubernetes.podDefaults needs keys of its own"),
        ("manager: {kubernetes: {logLinks: [{name: a}]}}\n", "manager.kubernetes.logLinks needs a list of {name"),
        ("database: {type: postgres}\n", "config.yaml:1: database.type 'postgres' is not supported"),
    ],
)
def test_a_mistake_in_the_file_is_refused_with_place_and_cure(tmp_path: Path, text: str, said: str) -> None:
    message = refusal(tmp_path, text)
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("manager.runsService.prot", "manager.runsService.port"),
        ("manager.runService.port", "manager.runsService.port"),
        ("logger.show_source", "logger.show-source"),
        ("database.file", "database.sqlite.file"),
        ("datadirectory", "dataDir"),
    ],
)
def test_an_unknown_flag_names_the_nearest_key(wrong: str, right: str) -> None:
    with pytest.raises(ConfigError, match=rf"did you mean {right}\?"):
        load({wrong: "1"}, {}, None)


def test_an_unknown_variable_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"did you mean FLYTE_MANAGER__DATADIR\?"):
        load({}, {"FLYTE_MANAGER__DATA_DIR": "x"}, None)


def test_variables_of_others_are_left_alone() -> None:
    assert load({}, {"FLYTE_MANAGER_HOME": "x", "PATH": "y"}, None) == load({}, {}, None)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(b"dataDir: \xff\n")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load({}, {}, file)


def test_an_object_is_kept_as_it_stands_in_the_file(tmp_path: Path) -> None:
    text = "manager:\n  kubernetes:\n    podDefaults:\n      spec:\n        priorityClassName: high\n"
    settings = load({}, {}, write(tmp_path, text))
    assert settings.manager.kubernetes.pod_defaults == {"spec": {"priorityClassName": "high"}}


@pytest.mark.parametrize("wrong", ["1", "true"])
def test_a_mistake_in_a_secret_does_not_show_it(tmp_path: Path, wrong: str) -> None:
    message = refusal(tmp_path, f"storage: {{azure: {{key: {wrong}}}}}\n")
    assert message.endswith("storage.azure.key needs a text (in quotes if it looks like a number)")


def test_an_alias_of_itself_ends(tmp_path: Path) -> None:
    assert "unknown key" in refusal(tmp_path, "manager: &all\n  again: *all\n")
    assert "needs a list" in refusal(tmp_path, "server:\n  allowedHosts: &all [*all]\n")


def test_a_variable_with_one_underscore_for_two_names_the_right_one() -> None:
    with pytest.raises(ConfigError, match=r"did you mean FLYTE_MANAGER__MANAGER__RUNSSERVICE__PORT\?"):
        load({}, {"FLYTE_MANAGER_MANAGER_RUNSSERVICE_PORT": "9090"}, None)
    service = {"FLYTE_MANAGER_SERVICE_HOST": "10.0.0.1", "FLYTE_MANAGER_PORT": "tcp://10.0.0.1:8090"}
    load({}, service, None)  # Kubernetes gives these to pods


def test_the_chosen_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a file"):
        find_file(str(tmp_path), tmp_path)
    with pytest.raises(ConfigError, match="was not found"):
        find_file(str(tmp_path / "none.yaml"), tmp_path)


def test_the_file_of_the_working_directory_is_found(tmp_path: Path) -> None:
    assert find_file(None, tmp_path) in (None, SYSTEM_FILE)
    file = write(tmp_path, "")
    assert find_file(None, tmp_path) == file
    other = tmp_path / "other.yaml"
    other.touch()
    assert find_file(str(other), tmp_path) == other


def test_in_a_pod_tasks_find_the_manager_at_its_service() -> None:
    pod = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    namespace = {"FLYTE_MANAGER__MANAGER__KUBERNETES__NAMESPACE": "ml", **pod}
    settings = load({"manager.runsService.port": "9090"}, namespace, None)
    assert settings.manager.kubernetes.task_endpoint == "flyte-manager.ml.svc:9090"
    assert settings.origins["manager.kubernetes.taskEndpoint"] == "the Service of this pod"
    assert load({}, {}, None).manager.kubernetes.task_endpoint == ""


@pytest.mark.parametrize(
    ("flags", "endpoint"),
    [
        ({"manager.kubernetes.taskEndpoint": "10.0.0.5:8090"}, "10.0.0.5:8090"),
        ({"manager.kubernetes.kubeconfig": "/etc/other"}, ""),
        ({"manager.kubernetes.context": "other"}, ""),
        ({"manager.runsService.port": "0"}, ""),
    ],
)
def test_a_pod_that_is_told_otherwise_has_no_service(flags: dict[str, str], endpoint: str) -> None:
    settings = load(flags, {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, None)
    assert settings.manager.kubernetes.task_endpoint == endpoint


def test_a_default_that_no_task_may_have_is_refused(tmp_path: Path) -> None:
    told = refusal(tmp_path, "tasks:\n  deadline: {default: 2d, most: 24h}\n")
    assert told == "config.yaml:2: tasks.deadline.default is more than tasks.deadline.most: tasks never get it"
    assert load({}, {}, write(tmp_path, "tasks: {deadline: {default: 1d, most: 24h}}")).tasks.deadline.most == 86400
