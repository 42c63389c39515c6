"""Requests to the cluster's API server as its administrator, and the kubeconfigs of those who may ask it."""

import base64
import json
import ssl
import urllib.request
from pathlib import Path
from typing import Any

from tests.cluster.places import pki
from tests.cluster.record import Record


def api(path: str, body: object = None) -> Any:
    """GET, or POST of a body; the answer's JSON, or its text."""
    context = ssl.create_default_context(cafile=str(pki("ca.crt")))
    context.load_cert_chain(pki("admin.crt"), pki("admin.key"))
    request = urllib.request.Request(
        Record.load().server + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, context=context, timeout=10) as answer:
        text: bytes = answer.read()
    return json.loads(text) if text.startswith(b"{") else text.decode()


def is_ready(node: dict[str, Any]) -> bool:
    conditions = node["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def write_kubeconfig(path: Path, name: str, server: str) -> None:
    def data(file: str) -> str:
        return base64.b64encode(pki(file).read_bytes()).decode()

    cluster = {"server": server, "certificate-authority-data": data("ca.crt")}
    user = {"client-certificate-data": data(f"{name}.crt"), "client-key-data": data(f"{name}.key")}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test-cluster",
        "clusters": [{"name": "test-cluster", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "test-cluster", "context": {"cluster": "test-cluster", "user": name}}],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=1))
