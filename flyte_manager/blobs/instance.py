"""The folder of one database within the data directory: `<data dir>/<instance id>`."""

from pathlib import Path

from flyte_manager.domain.errors import Unready


class NoDataDir(Unready):
    """{path} can't be written ({problem}): let this user make and write it, or set dataDir to another folder."""


def make_folder(data_dir: Path, instance_id: str, *, database: Path) -> Path:
    """Its file `database` says whose it is. Blocks; raises NoDataDir."""
    folder = data_dir.absolute() / instance_id
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "database").write_text(f"{database.absolute()}\n")
    except OSError as error:
        raise NoDataDir(path=error.filename or folder, problem=error.strerror) from error
    return folder
