"""The job code that this function carries, as archives whose bytes depend on nothing but their contents."""

import gzip
import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

JOB_CODE = Path(__file__).parent / "job_code"


class BundleError(Exception):
    """The function was built without its job code."""


@dataclass(frozen=True)
class Bundle:
    body: bytes
    sha256: str


def pack(folder: Path) -> Bundle:
    """Return a tar.gz with the folder's files at its root. Raises BundleError if there are none."""
    if not folder.is_dir():
        raise BundleError(f"{folder.name} is not in the function's package: build it with what its links point to")
    archive = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=archive, mode="wb", compresslevel=9, mtime=0, filename="") as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        files = _files(folder, "")
        if not files:
            raise BundleError(f"{folder.name} is empty in the function's package")
        for name, path in sorted(files):
            content = path.read_bytes()
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(content), 0o644, 0
            tar.addfile(member, io.BytesIO(content))
    return Bundle(archive.getvalue(), hashlib.sha256(archive.getvalue()).hexdigest())


def _files(folder: Path, prefix: str) -> list[tuple[str, Path]]:
    # By hand: Path.rglob does not follow the links by which a checkout, unlike a built package, has the contracts.
    found = []
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name == "__pycache__":
            continue
        if path.is_dir():
            found += _files(path, f"{prefix}{path.name}/")
        else:
            found.append((f"{prefix}{path.name}", path))
    return found
