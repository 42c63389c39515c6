"""Makes an image by the steps of a Dockerfile, without Docker.

    FROM python:...           the base of python_images.py, with Debian's own version; or an earlier stage
    COPY, RUN                 a folder of what the step wrote, laid over those before it, kept under CLUSTER_CACHE
    ENV WORKDIR USER          settings of the image; the rest of the language is refused
    ENTRYPOINT CMD EXPOSE

As with Docker, a step is done again only when it, the files that it copies, or a step before it changed. RUN has no
index: pip finds in /run/wheels what `wheels` holds. COPY leaves out __pycache__, as the .dockerignore does.
"""

import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.archives import write_archive, write_layer
from tests.cluster.commands import ToolError, digest, replacing, run, say
from tests.cluster.places import CACHE
from tests.cluster.python_images import BASE_PATH, CERTIFICATES, base_tree, bound, overlay

STEPS = CACHE / "steps"
UNUSED_SECONDS = 6 * 3600
KEPT_ARCHIVES = 3
SETTINGS = {"ENTRYPOINT": "Entrypoint", "CMD": "Cmd", "USER": "User", "WORKDIR": "WorkingDir"}


@dataclass(frozen=True, slots=True)
class Instruction:
    word: str
    """FROM, RUN, ..."""
    rest: str

    def __str__(self) -> str:
        return f"{self.word} {self.rest}"


@dataclass(slots=True)
class Stage:
    """What one FROM began, as far as its steps are done."""

    base: Path
    key: str
    """stands for all that was done so far"""
    trees: list[Path] = field(default_factory=list)
    """what each step wrote, the first one first"""
    env: dict[str, str] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def lower(self) -> list[Path]:
        return [*reversed(self.trees), self.base]

    @property
    def folder(self) -> str:
        return str(self.settings.get("WorkingDir", "/"))

    @property
    def config(self) -> dict[str, object]:
        return {**self.settings, "Env": [f"{name}={value}" for name, value in self.env.items()]}


def read_dockerfile(path: Path) -> list[Instruction]:
    """Its instructions, with continued lines joined and comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    words = (line.split(maxsplit=1) for line in joined if line.strip())
    return [Instruction(word.upper(), " ".join(rest.split())) for word, rest in words]


def dockerfile_image(name: str, *, file: Path, context: Path, wheels: Path) -> Path:
    """The image of the last stage, as an archive."""
    began = time.monotonic()
    for unused in STEPS.iterdir() if STEPS.exists() else ():
        if unused.stat().st_mtime < time.time() - UNUSED_SECONDS:
            shutil.rmtree(unused)
    stage = Build(context, wheels).all_of(read_dockerfile(file))
    path = CACHE / "images" / f"dockerfile-{digest(name, stage.key, stage.config)}.tar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_archive(path, [name], [stage.base.with_suffix(".layer"), *map(_layer, stage.trees)], stage.config)
        say(f"made the image {name} in {time.monotonic() - began:.0f} s")
    os.utime(path)
    archives = sorted(path.parent.glob("dockerfile-*.tar"), key=lambda one: one.stat().st_mtime)
    for old in archives[:-KEPT_ARCHIVES]:
        old.unlink()
    return path


@dataclass(slots=True)
class Build:
    context: Path
    wheels: Path
    stages: dict[str, Stage] = field(default_factory=dict)

    def all_of(self, instructions: list[Instruction]) -> Stage:
        """Follows them; the last stage."""
        for instruction in instructions:
            if instruction.word == "FROM":
                source, _, name = instruction.rest.partition(" AS ")
                self.stages[name or f"{len(self.stages)}"] = self._begin(source)
                continue
            if not self.stages:
                raise ToolError(f"{instruction}: stands before any FROM")
            self._follow(list(self.stages.values())[-1], instruction)
        return list(self.stages.values())[-1]

    def _begin(self, source: str) -> Stage:
        if parent := self.stages.get(source):
            return Stage(parent.base, parent.key, list(parent.trees), dict(parent.env), dict(parent.settings))
        if not source.startswith("python:"):
            raise ToolError(f"FROM {source}: only python:... and earlier stages can be made here")
        base = base_tree()
        return Stage(base, base.name, env={"PATH": BASE_PATH, "SSL_CERT_FILE": CERTIFICATES})

    def _follow(self, stage: Stage, instruction: Instruction) -> None:
        word, rest = instruction.word, instruction.rest
        if word == "ENV":
            stage.env |= dict(pair.split("=", 1) for pair in rest.split())
        elif word in SETTINGS:
            stage.settings[SETTINGS[word]] = json.loads(rest) if rest.startswith("[") else rest
        elif word == "EXPOSE":
            stage.settings["ExposedPorts"] = {f"{port}/tcp": {} for port in rest.split()}
        elif word == "COPY":
            self._copy(stage, instruction)
        elif word == "RUN":
            key = digest(stage.key, instruction, stage.config, self.wheels.name)
            _step(stage, key, lambda fresh: self._run(stage, rest, fresh))
        else:
            raise ToolError(f"{instruction}: {word} is not done here")

    def _run(self, stage: Stage, command: str, fresh: Path) -> None:
        if "User" in stage.settings:
            raise ToolError(f"RUN {command}: RUN after USER is not done here")
        say(f"RUN {command[:100]} ...")
        scratch, merged = fresh / "scratch", fresh / "merged"
        scratch.mkdir()
        merged.mkdir()
        env = {"HOME": "/root", **stage.env, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/run/wheels"}
        words = [f"{name}={value}" for name, value in env.items()]
        with overlay(stage.lower, fresh / "tree", scratch, merged):
            (merged / "run/wheels").mkdir()
            with bound(self.wheels, merged / "run/wheels"), bound(Path("/dev"), merged / "dev"):
                inside = ["chroot", merged, "/usr/bin/env", "-i", *words, "/bin/sh", "-c"]
                run(*inside, f"cd {stage.folder} && {command}")
            (merged / "run/wheels").rmdir()
        shutil.rmtree(merged)
        shutil.rmtree(scratch)

    def _copy(self, stage: Stage, instruction: Instruction) -> None:
        *names, target = instruction.rest.split()
        into = Path(stage.folder, target)
        if not names[0].startswith("--"):
            sources = [self.context / name for name in names]
            key = digest(stage.key, instruction, into, *map(_content, sources))
            _step(stage, key, lambda fresh: _copy_in(sources, fresh / "tree", into, as_folder=target.endswith("/")))
            return
        origin = self.stages.get(names[0].removeprefix("--from="))
        if origin is None or len(names) != 2:
            raise ToolError(f"{instruction}: only --from=STAGE ONE-FOLDER TARGET is done here")
        key = digest(stage.key, instruction, origin.key)
        _step(stage, key, lambda fresh: _copy_across(origin, names[1], fresh, into))


def _step(stage: Stage, key: str, fill: Callable[[Path], None]) -> None:
    """Fills STEPS/key/tree, if that was not done before, and lays it over the stage."""
    folder = STEPS / key
    if not folder.exists():
        with replacing(folder) as fresh:
            (fresh / "tree").mkdir()
            fill(fresh)
    os.utime(folder)
    stage.trees.append(folder / "tree")
    stage.key = key


def _copy_in(sources: list[Path], tree: Path, into: Path, *, as_folder: bool) -> None:
    """From the context: a folder's contents, or files."""
    target = tree / into.relative_to("/")
    for source in sources:
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            continue
        place = target / source.name if as_folder else target
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, place)


def _copy_across(origin: Stage, name: str, fresh: Path, into: Path) -> None:
    """From another stage: a folder's contents, with owners and times."""
    target = fresh / "tree" / into.relative_to("/")
    target.mkdir(parents=True, exist_ok=True)
    upper, scratch, merged = (fresh / one for one in ("upper", "scratch", "merged"))
    for folder in (upper, scratch, merged):
        folder.mkdir()
    with overlay(origin.lower, upper, scratch, merged):
        run("cp", "-a", f"{merged}{name}/.", target)
    for folder in (upper, scratch, merged):
        shutil.rmtree(folder)


def _content(source: Path) -> str:
    files = sorted(_files(source))
    return digest(*(f"{file.relative_to(source)} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files))


def _files(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
        return
    for folder, folders, names in os.walk(source):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (Path(folder, name) for name in names)


def _layer(tree: Path) -> Path:
    path = tree.parent / "layer.tar"
    if not path.exists():
        for file in tree.rglob("*"):
            mode = file.lstat()
            if stat.S_ISCHR(mode.st_mode) and mode.st_rdev == 0:
                raise ToolError(f"/{file.relative_to(tree)}: a step of the last stage may not remove what was there")
        fresh = path.with_suffix(".part")
        write_layer(fresh, tree)
        fresh.rename(path)
    return path
