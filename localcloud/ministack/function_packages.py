"""Repairs of MiniStack's Lambda: a function that cannot run here is refused when it is created or changed.

That is any runtime but Python, and a package without content or with native extensions for another Python or processor:
it tells at deployment what would otherwise be an ImportError, or an invented result, in the middle of a run.
"""

import functools
import io
import platform
import re
import sys
import zipfile
from collections.abc import Callable
from typing import Any

from ministack.core.responses import error_response_json
from ministack.services import lambda_svc
from ministack.services.cloudformation import provisioners

from localcloud.ministack.repairs import Repair


def install() -> None:
    """To be called once, after the repairs: MiniStack's table of resources holds the function as it was."""
    provisioners._RESOURCE_HANDLERS["AWS::Lambda::Function"]["create"] = provisioners._lambda_create


def _create_function(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def create_function(request: dict) -> Any:
        if refused := unsupported_function(request):
            return error_response_json("InvalidParameterValueException", refused, 400)
        return original(request)

    return create_function


def _update_config(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def update_config(name: str, request: dict) -> Any:
        if "Runtime" in request and (refused := unsupported_function(request)):
            return error_response_json("InvalidParameterValueException", refused, 400)
        return original(name, request)

    return update_config


def _lambda_create(original: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a stack: MiniStack lets it answer with an invented result if its package is not in S3."""

    @functools.wraps(original)
    def lambda_create(logical_id: str, properties: dict, stack_name: str) -> Any:
        if refused := unsupported_function(properties):
            raise ValueError(refused)
        code = properties["Code"]
        if "S3Key" in code:
            package = lambda_svc._fetch_code_from_s3(
                code["S3Bucket"], code["S3Key"], version_id=code.get("S3ObjectVersion")
            )
            if package is None:
                raise ValueError(f"the package s3://{code['S3Bucket']}/{code['S3Key']} does not exist")
            if refused := foreign_extension(package):
                raise ValueError(refused)
        return original(logical_id, properties, stack_name)

    return lambda_create


def _reject_unreadable_zip(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def reject(package: bytes | None) -> Any:
        unreadable = original(package)
        if unreadable is not None or package is None:
            return unreadable
        refused = foreign_extension(package)
        return error_response_json("InvalidParameterValueException", refused, 400) if refused else None

    return reject


def unsupported_function(properties: dict) -> str | None:
    """Why the local cloud cannot run a function, from the members of CreateFunction; None if it can."""
    if properties.get("PackageType", "Zip") != "Zip" or "ImageUri" in (properties.get("Code") or {}):
        return "the local cloud runs functions from .zip packages; PackageType Image is not supported"
    if not str(properties.get("Runtime", "")).startswith("python3."):
        return f"the local cloud runs Python functions; the runtime {properties.get('Runtime')} is not supported"
    return None


ELF_MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64"}
EXTENSION = re.compile(r"\.cpython-(?P<major>\d)(?P<minor>\d+)-(?P<platform>[\w-]+)\.so$")


def foreign_extension(package: bytes) -> str | None:
    """Why the native code in a package cannot run here, naming both sides; None if it can, or there is none."""
    here = f"CPython {sys.version_info.major}.{sys.version_info.minor} on {_machine()}"
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        for name in archive.namelist():
            if not re.search(r"\.so(\.[\d.]+)?$", name):
                continue
            with archive.open(name) as file:
                header = file.read(20)
            tag = EXTENSION.search(name)
            python = f"CPython {tag['major']}.{tag['minor']}" if tag else here.split(" on ")[0]
            machine = ELF_MACHINES.get(int.from_bytes(header[18:20], "little"), "another processor")
            if not header.startswith(b"\x7fELF"):
                machine = f"another system than {platform.system()}" if platform.system() == "Linux" else _machine()
            if f"{python} on {machine}" != here:
                return (
                    f"{name} in the function's package was built for {python} on {machine}, but this local cloud runs "
                    f"functions on {here}: build the package for that, or deploy from the source with the local cloud"
                )
    return None


def _machine() -> str:
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


REPAIRS = [
    Repair(
        "a function of any runtime is taken", lambda_svc.__name__, "_create_function", "e307eecdf0d8", _create_function
    ),
    Repair(
        "a function is changed to any runtime",
        lambda_svc.__name__,
        "_update_config",
        "6999cb0695da",
        _update_config,
    ),
    Repair(
        "a function without a package answers an invented result",
        provisioners.__name__,
        "_lambda_create",
        "8b2cf80e961d",
        _lambda_create,
    ),
    Repair(
        "a package built for another Python or processor is taken",
        lambda_svc.__name__,
        "_reject_unreadable_zip",
        "0ad075e85713",
        _reject_unreadable_zip,
    ),
]
