"""Package a SAM template as `sam build` and `sam package` do: local paths become objects in S3.

Function folders are copied with what their symbolic links point to, and with the packages of their requirements.txt,
installed for the Python that the local cloud runs. What those are is kept in a cache, by their digest.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Upload = Callable[[bytes, str], "S3Object"]
"""(content, file name suffix) to where it now lies."""


class PackagingFailed(Exception):
    """A file that the template names cannot be packaged; the message names the resource."""


@dataclass(frozen=True)
class S3Object:
    bucket: str
    key: str


@dataclass(frozen=True)
class LocalPath:
    """A property that may name a local file or folder, and how CloudFormation wants its place in S3 to be written."""

    name: str
    bucket_member: str
    key_member: str


FUNCTIONS = {
    "AWS::Serverless::Function": LocalPath("CodeUri", "Bucket", "Key"),
    "AWS::Lambda::Function": LocalPath("Code", "S3Bucket", "S3Key"),
}
LAYERS = {
    "AWS::Serverless::LayerVersion": LocalPath("ContentUri", "Bucket", "Key"),
    "AWS::Lambda::LayerVersion": LocalPath("Content", "S3Bucket", "S3Key"),
}
STATE_MACHINES = {
    "AWS::Serverless::StateMachine": LocalPath("DefinitionUri", "Bucket", "Key"),
    "AWS::StepFunctions::StateMachine": LocalPath("DefinitionS3Location", "Bucket", "Key"),
}


def package(template_path: Path, upload: Upload, on_progress: Callable[[str], None]) -> dict[str, Any]:
    """Return the template with every local path replaced by the S3 object that now holds its content.

    Raises PackagingFailed.
    """
    from samtranslator.yaml_helper import yaml_parse

    template = yaml_parse(template_path.read_text())
    defaults = template.get("Globals", {}).get("Function", {})
    folder = template_path.resolve().parent
    for name, resource in template.get("Resources", {}).items():
        kind, properties = resource.get("Type"), resource.setdefault("Properties", {})
        if (
            kind == "AWS::Serverless::Function"
            and "CodeUri" in defaults
            and not {"CodeUri", "InlineCode"} & set(properties)
        ):
            properties["CodeUri"] = defaults["CodeUri"]
        for kinds, content_of, suffix in (
            (FUNCTIONS, function_package, ".zip"),
            (LAYERS, layer_package, ".zip"),
            (STATE_MACHINES, definition, ".asl.json"),
        ):
            path = kinds.get(kind)
            if path is None or not _is_local(properties.get(path.name)):
                continue
            source = folder / properties[path.name]
            if not source.exists():
                raise PackagingFailed(f"{name}: {path.name} names {source}, which does not exist")
            if method := (resource.get("Metadata") or {}).get("BuildMethod"):
                raise PackagingFailed(f"{name}: the local cloud's packaging does not support BuildMethod {method}")
            on_progress(f"Packaging {name}")
            stored = upload(content_of(name, source), suffix)
            properties[path.name] = {path.bucket_member: stored.bucket, path.key_member: stored.key}
    return template


def _is_local(value: Any) -> bool:
    return isinstance(value, str) and not value.startswith(("s3://", "https://"))


def function_package(name: str, source: Path) -> bytes:
    if source.is_file():
        return source.read_bytes()
    requirements = source / "requirements.txt"
    packages = packed_requirements(name, requirements) if requirements.exists() else b""
    return zipped(dict(_files(source)), packages)


def layer_package(_name: str, source: Path) -> bytes:
    return source.read_bytes() if source.is_file() else zipped(dict(_files(source)))


def definition(name: str, source: Path) -> bytes:
    content = source.read_bytes()
    try:
        json.loads(content)
    except ValueError as error:
        raise PackagingFailed(f"{name}: {source} is not JSON: {error}") from error
    return content


def packed_requirements(name: str, requirements: Path) -> bytes:
    """Return the packages of a requirements.txt as an archive, packed once: that takes seconds for the larger ones."""
    installed = installed_requirements(name, requirements)
    packed = installed.with_name(f"{installed.name}.zip")
    if not packed.exists():
        with tempfile.NamedTemporaryFile(dir=packed.parent, delete=False) as unfinished:
            unfinished.write(zipped(dict(_files(installed))))
        Path(unfinished.name).replace(packed)
    return packed.read_bytes()


def installed_requirements(name: str, requirements: Path) -> Path:
    """Return a folder with the packages of a requirements.txt, for this Python. Raises PackagingFailed."""
    pins = requirements.read_bytes()
    target_machine = f"{sys.implementation.cache_tag}-{platform.system()}-{platform.machine()}".lower()
    digest = hashlib.sha256(pins + target_machine.encode()).hexdigest()[:16]
    target = cache_folder() / "functions" / f"{target_machine}-{digest}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        installed = subprocess.run(
            [*command, "--requirement", requirements, "--target", unfinished / "packages"],
            capture_output=True,
            text=True,
            check=False,
        )
        if installed.returncode != 0:
            raise PackagingFailed(f"{name}: {requirements} could not be installed:\n{installed.stderr.strip()[-2000:]}")
        (unfinished / "packages").mkdir(exist_ok=True)  # a requirements.txt may be empty
        _rename_unless_there(unfinished / "packages", target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def cache_folder() -> Path:
    return Path(os.environ.get("LOCALCLOUD_CACHE") or Path.home() / ".cache" / "localcloud")


def _rename_unless_there(source: Path, target: Path) -> None:
    """Two may install the same requirements at once; what either brings is the same."""
    try:
        source.rename(target)
    except OSError:
        if not target.exists():
            raise


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names in the package and the files they stand for, those behind symbolic links included."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            if not name.endswith(".pyc"):
                path = Path(parent, name)
                yield path.relative_to(folder).as_posix(), path


def zipped(files: dict[str, Path], onto: bytes = b"") -> bytes:
    """Return an archive of the files, added to those of the archive `onto`.

    The same files give the same bytes, so that an unchanged function is not updated.
    """
    content = io.BytesIO(onto)
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, path in sorted(files.items()):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (path.stat().st_mode & 0o755 | 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    return content.getvalue()
