import socket
from pathlib import Path

import pytest

from flyte_manager.rpc.steady_port import PORTS, steady_port


def test_a_port_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "tasks.port"
    first = steady_port(file)
    assert first in PORTS
    assert steady_port(file) == first


def test_a_port_that_somebody_else_has_by_now_is_given_up(tmp_path: Path) -> None:
    file = tmp_path / "tasks.port"
    first = steady_port(file)
    with socket.create_server(("127.0.0.1", first)):
        second = steady_port(file)
    assert second != first
    assert file.read_text() == f"{second}\n"


@pytest.mark.parametrize("kept", ["", "port", "80", "-1", "99999"])
def test_what_is_no_port_of_ours_is_not_kept(tmp_path: Path, kept: str) -> None:
    file = tmp_path / "tasks.port"
    file.write_text(kept)
    assert steady_port(file) in PORTS
