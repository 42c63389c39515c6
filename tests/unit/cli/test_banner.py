"""What a started manager tells."""

from dataclasses import replace
from pathlib import Path

from flyte_manager.banner import Endpoint, Facts, Pods, banner, try_it

FACTS = Facts(
    version="0.1.0",
    api=Endpoint("localhost", 8090),
    queue=Endpoint("localhost", 8089),
    health=Endpoint("localhost", 8081),
    database=Path("/home/me/flyte.db"),
    data_dir=Path("/home/me/.flyte-manager/12ab"),
    mode="embedded",
    why="no kubeconfig is configured",
    interpreter=Path("/home/me/.venv/bin/python"),
    sdk_version="2.12.1",
    start="warm",
    seconds=0.84,
)

IN_PODS = replace(
    FACTS,
    mode="kubernetes",
    why="context kind-flyte of /home/me/.kube/config",
    pods=Pods(
        cluster="https://10.0.0.1:6443",
        namespace="flyte",
        endpoint="192.0.2.7:8090",
        storage="s3://flyte-data/runs",
    ),
    interpreter=None,
    sdk_version=None,
    start="",
)


def test_the_banner_tells_all_and_ends_with_ready() -> None:
    assert banner(FACTS) == (
        "Flyte Manager 0.1.0\n"
        "\n"
        "  API       http://localhost:8090\n"
        "  Queue     http://localhost:8089\n"
        "  Health    http://localhost:8081\n"
        "  Database  /home/me/flyte.db\n"
        "  Data      /home/me/.flyte-manager/12ab\n"
        "  Mode      embedded: no kubeconfig is configured\n"
        "  Tasks     /home/me/.venv/bin/python, flyte 2.12.1, warm\n"
        "\n"
        "  Try it:\n"
        "    flyte create config --endpoint localhost:8090 --insecure --project flytesnacks --domain development "
        "--builder remote\n"
        "\n"
        "Ready in 0.8 s."
    )


def test_https_is_told_and_the_line_makes_the_sdk_speak_it() -> None:
    told = banner(replace(FACTS, secure=True))
    assert "  API       https://localhost:8090\n  Queue     https://localhost:8089\n" in told
    assert "  Health    http://localhost:8081\n" in told
    assert "flyte create config --endpoint localhost:8090 --project" in told


def test_with_pods_it_tells_of_the_cluster_and_the_line_builds_images_where_the_user_is() -> None:
    assert banner(IN_PODS) == (
        "Flyte Manager 0.1.0\n"
        "\n"
        "  API       http://localhost:8090\n"
        "  Queue     http://localhost:8089\n"
        "  Health    http://localhost:8081\n"
        "  Database  /home/me/flyte.db\n"
        "  Data      s3://flyte-data/runs\n"
        "  Mode      kubernetes: context kind-flyte of /home/me/.kube/config\n"
        "  Cluster   https://10.0.0.1:6443\n"
        "  Tasks     pods in namespace flyte, which call 192.0.2.7:8090\n"
        "\n"
        "  Try it:\n"
        "    flyte create config --endpoint localhost:8090 --insecure --project flytesnacks --domain development\n"
        "\n"
        "Ready in 0.8 s."
    )


def test_a_manager_in_a_pod_tells_the_way_to_it() -> None:
    assert IN_PODS.pods is not None
    facts = replace(
        IN_PODS, pods=replace(IN_PODS.pods, inside=True), api=Endpoint("0.0.0.0", 9090), own_config_here=True
    )
    assert (
        "\n  Try it, from your machine:\n"
        "    kubectl port-forward -n flyte service/flyte-manager 9090:8090\n"
        "    flyte create config --endpoint localhost:9090 --insecure --project flytesnacks --domain development\n"
    ) in banner(facts)


def test_a_cluster_that_could_be_used_is_told_with_the_way_to_it() -> None:
    why = "tasks run as processes of this machine; the cluster of context kind answers; to use it: set storage.url"
    assert f"  Mode      embedded: {why}\n" in banner(replace(FACTS, why=why))


def test_where_the_sdk_would_read_our_config_the_user_is_sent_elsewhere() -> None:
    assert "Try it, in a folder of its own" in banner(replace(FACTS, own_config_here=True))


def test_an_open_host_is_warned_of_in_embedded_mode_only() -> None:
    opened = replace(FACTS, api=Endpoint("0.0.0.0", 8090))
    assert "whoever reaches port 8090 can run code" in banner(opened)
    assert "Warning" not in banner(replace(IN_PODS, api=Endpoint("0.0.0.0", 8090)))


def test_every_address_is_called_localhost() -> None:
    for host in ("0.0.0.0", "::", "127.0.0.1", "::1", "localhost"):
        assert "--endpoint localhost:9090 " in try_it(Endpoint(host, 9090))


def test_another_host_is_called_by_its_name() -> None:
    assert Endpoint("manager.example.org", 1).authority == "manager.example.org:1"
    assert Endpoint("fd00::1", 1).authority == "[fd00::1]:1"


def test_tasks_without_an_sdk_are_told_of() -> None:
    told = banner(replace(FACTS, sdk_version=None, start="cold: warm starts are switched off"))
    assert f"no flyte: run `{FACTS.interpreter} -m pip install flyte`, or set embedded.python" in told
    assert "cold" not in told
    told = banner(replace(FACTS, sdk_version=None, interpreter=Path("/my files/bin/python")))
    assert "run `'/my files/bin/python' -m pip install flyte`" in told


def test_the_line_names_a_domain_that_there_is() -> None:
    assert "--project flytesnacks --domain qa" in banner(replace(FACTS, domain="qa"))
