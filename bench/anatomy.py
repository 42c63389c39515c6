"""`python -m bench.anatomy`: where the CPU of a warm no-op goes; a table in docs/performance.md, and its picture.

Tasks run one after the other through a zygote with a stopwatch (marked_zygote.py), without a manager. Two of them take
turns: one that only imports beforehand, and the one that users have.
"""

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from xml.sax.saxutils import escape

from bench import processes, report
from bench.manager import REPOSITORY
from flyte_manager.processes import folder as disk
from flyte_manager.processes import linux

TASKS = 60
MODES = (("imports", "SDK imported beforehand"), ("all", "and all of preload.py"))
PAGE = REPOSITORY / "docs" / "performance.md"
BEGIN, END = "<!-- bench.anatomy -->", "<!-- end -->"
PICTURE = REPOSITORY / "docs" / "task-process.svg"
COLOURS = (
    *("#8d99ae", "#5c677d", "#c9b79c", "#4a7fb5", "#89b6d9", "#bc6c25"),
    *("#dda15e", "#606c38", "#a3b18a", "#3a5a40", "#9d4edd", "#c77dff"),
)


class Zygote:
    """A marked zygote, and the CPU seconds of its tasks by part."""

    def __init__(self, mode: str, stack: ExitStack) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="flyte-anatomy-"))
        stack.callback(shutil.rmtree, self._folder)
        with tarfile.open(self._folder / "code.tgz", "w:gz") as archive:
            archive.add(Path(__file__).with_name("sdk_tasks.py"), "sdk_tasks.py")
        (self._folder / "socket").mkdir()
        self._socket = str(self._folder / "socket" / "zygote")
        leash, end = os.pipe()
        script = Path(__file__).with_name("marked_zygote.py")
        self._env = {name: os.environ[name] for name in ("PATH", "LANG", "SSL_CERT_DIR") if name in os.environ}
        self._env["HOME"] = str(self._folder)
        process = subprocess.Popen(
            [sys.executable, script, self._socket, mode],
            stdin=leash,
            stdout=subprocess.PIPE,
            env=self._env,
            cwd="/",
        )
        os.close(leash)
        stack.callback(process.wait)
        stack.callback(os.close, end)
        assert process.stdout
        assert json.loads(process.stdout.readline())["ready"]
        self._pid = process.pid
        self.parts: list[dict[str, float]] = []
        self.faults: list[int] = []

    def run(self) -> None:
        zygote, all_before = processes.cpu(self._pid), processes.tree_cpu(self._pid)
        order = self._order(len(self.parts))
        with socket.socket(socket.AF_UNIX) as conn:
            conn.connect(self._socket)
            conn.sendall(disk.to_line(vars(order)))
            answer = json.loads(conn.makefile().readline())
        fd = os.pidfd_open(answer["shepherd"])
        select.select([fd], [], [])
        os.close(fd)
        while linux.children(self._pid):
            pass
        record = disk.read_record(order.folder)
        assert record
        assert record.code == 0
        marks = json.loads(Path(order.folder, "marks.json").read_text())
        parts: dict[str, float] = {}
        before = 0.0
        for name, cpu, _ in marks:
            parts[name] = parts.get(name, 0.0) + cpu - before
            before = cpu
        parts["exit; tar, gzip, git"] = max(0.0, record.cpu_seconds - before)
        own = processes.cpu(self._pid) - zygote
        parts["shepherd"] = processes.tree_cpu(self._pid) - all_before - own - record.cpu_seconds
        parts["zygote"] = own
        self.parts.append(parts)
        self.faults.append(marks[-1][2])

    def _order(self, number: int) -> disk.Order:
        folder, work = self._folder / str(number), self._folder / "base" / str(number)
        work.mkdir(parents=True)
        (work / "inputs.pb").write_bytes(b"")
        argv = ["a0", "--inputs", str(work / "inputs.pb"), "--outputs-path", str(work), "--version", "1"]
        argv += ["--raw-data-path", str(work), "--run-base-dir", str(work), "--name", "a0", "--run-name", "anatomy"]
        argv += ["--project", "p", "--domain", "development", "--org", "local", "--dest", "."]
        argv += ["--tgz", str(self._folder / "code.tgz")]
        argv += ["--resolver", "flyte._internal.resolvers.default.DefaultTaskResolver"]
        argv += ["mod", "sdk_tasks", "instance", "one"]
        env = {
            "_U_EP_OVERRIDE": "localhost:9",
            "_U_INSECURE": "true",
            "_U_USE_ACTIONS": "1",
            "FLYTE_INTERNAL_EXECUTION_PROJECT": "p",
            "FSSPEC_FILE": '{"auto_mkdir": true}',
        }
        return disk.Order(folder=str(folder), argv=argv, env={**self._env, **env})

    def means(self) -> dict[str, float]:
        """Milliseconds; means, because the kernel counts a process's CPU in ticks."""
        return {name: 1000 * sum(each[name] for each in self.parts) / len(self.parts) for name in self.parts[0]}


def table(found: dict[str, dict[str, float]], faults: list[str]) -> Iterator[str]:
    yield f"| {' | '.join(('Milliseconds of CPU', *found))} |"
    yield f"| --- {'| --- ' * len(found)}|"
    for name in next(iter(found.values())):
        yield f"| {' | '.join((name, *(f'{parts[name]:.1f}' for parts in found.values())))} |"
    yield f"| {' | '.join(('**all**', *(f'**{sum(parts.values()):.1f}**' for parts in found.values())))} |"
    yield f"| {' | '.join(('page faults of the task', *faults))} |"
    about = report.facts()
    machine = f"Python {about['python']}, {about['cores']} cores ({about['processor']})"
    yield f"\n{about['when']}, {machine}, load {processes.load():.1f}."


def svg(found: dict[str, dict[str, float]]) -> str:
    """A bar for each mode, its parts from left to right."""
    names = list(next(iter(found.values())))
    scale = 760 / max(sum(parts.values()) for parts in found.values())
    height = 118 + 18 * len(names)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="800" height="{height}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for row, (title, parts) in enumerate(found.items()):
        y, x = 30 + 45 * row, 20.0
        lines.append(f'<text x="20" y="{y - 6}">{escape(title)}: {sum(parts.values()):.1f} ms of CPU</text>')
        for name, colour in zip(names, COLOURS, strict=False):
            width = scale * parts[name]
            lines.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="22" fill="{colour}"/>')
            x += width
    for row, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        y = 120 + 18 * row
        figures = " → ".join(f"{parts[name]:.1f}" for parts in found.values())
        lines.append(f'<rect x="20" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
        lines.append(f'<text x="40" y="{y}">{escape(name)}: {figures} ms</text>')
    return "\n".join([*lines, "</svg>", ""])


def main() -> None:
    with ExitStack() as stack:
        zygotes = {title: Zygote(mode, stack) for mode, title in MODES}
        for _ in range(TASKS):
            for each in zygotes.values():
                each.run()
        found = {title: each.means() for title, each in zygotes.items()}
        faults = [f"{median(each.faults):,.0f}" for each in zygotes.values()]
        told = "\n".join(table(found, faults))
        print(told)
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{told}\n{END}{rest.partition(END)[2]}")
        PICTURE.write_text(svg(found))


if __name__ == "__main__":
    main()
