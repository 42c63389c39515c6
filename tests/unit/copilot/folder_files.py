"""A store in a folder: what the helper reads and writes."""

import shutil
from pathlib import Path

from flyte_manager.blobs.files import Files, ObjectMissing, TransferFailed
from flyte_manager.blobs.providers import Options


class FolderFiles(Files):
    """`s3://bucket/key` is the file `bucket/key` below the root. The first `failures` writes fail."""

    def __init__(self, root: Path, *, failures: int = 0) -> None:
        super().__init__(Options())
        self.root = root
        self.failures = failures
        self.written: list[str] = []

    def read(self, uri: str) -> bytes:
        if not self._path(uri).is_file():
            raise ObjectMissing(uri=uri)
        return self._path(uri).read_bytes()

    def write(self, uri: str, content: bytes) -> None:
        self._fail(uri)
        self._path(uri).parent.mkdir(parents=True, exist_ok=True)
        self._path(uri).write_bytes(content)
        self.written.append(uri)

    def download(self, uri: str, path: Path) -> None:
        path.write_bytes(self.read(uri))

    def names(self, uri: str) -> list[str]:
        folder = self._path(uri)
        return sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file())

    def upload(self, path: Path, uri: str) -> None:
        self._fail(uri)
        self._path(uri).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, self._path(uri))
        self.written.append(uri)

    def _fail(self, uri: str) -> None:
        if self.failures:
            self.failures -= 1
            raise TransferFailed(uri=uri, done="written", reason="the store is away")

    def _path(self, uri: str) -> Path:
        return self.root / uri.removeprefix("s3://")
