"""What a machine needs to run a local cloud: system, Python, a whole checkout, environments, disk, memory, a port."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from kelpie import local
from kelpie.doctor.check import Check

GIB = 1 << 30
NEEDED_FOR_ENVIRONMENTS = 8 * GIB
"""6 GB of packages, most of it PyTorch, and pip's own room while it unpacks them."""
NEEDED_FOR_RUNS = 2 * GIB
NEEDED_MEMORY = 4 * GIB
ROOT = Path(__file__).parents[2]
JOB_CODE = "functions/plan_run/job_code"
LINKS = ("kelpie/charts.py", "kelpie/layout.py", f"{JOB_CODE}/training_code", f"{JOB_CODE}/inference_code")


def check_machine(port: int) -> list[Check]:
    built = local.environments_built()
    return [
        check_system(platform.system()),
        check_python(sys.version_info[:2]),
        check_checkout(ROOT),
        check_make(shutil.which("make")),
        check_environments(built),
        check_disk(shutil.disk_usage(_existing(local.environments_folder())).free, all(built.values())),
        check_memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")),
        check_cloud(port),
    ]


def check_system(system: str) -> Check:
    if system in ("Linux", "Darwin"):
        return Check("system", "ok", system)
    return Check("system", "missing", system, "use Linux or macOS; on Windows, the Windows Subsystem for Linux")


def check_python(version: Sequence[int]) -> Check:
    found = ".".join(map(str, version))
    if (3, 11) <= tuple(version) <= (3, 13):
        return Check("python", "ok", found)
    return Check("python", "missing", found, "make install PYTHON=/path/to/python3.13 (3.11, 3.12 or 3.13)")


def check_checkout(root: Path) -> Check:
    """Links that a checkout made text of (git on a system without them) leave PlanRun without job code."""
    broken = [name for name in LINKS if not (root / name).is_symlink() or not (root / name).exists()]
    if not broken:
        return Check("checkout", "ok", str(root))
    remedy = "check out again with `git config core.symlinks true`"
    return Check("checkout", "missing", f"{', '.join(broken)}: no link to what it stands for", remedy)


def check_make(path: str | None) -> Check:
    if path:
        return Check("make", "ok", path)
    return Check("make", "warning", "not on the PATH", "apt-get install make, or xcode-select --install")


def check_environments(built: dict[str, bool]) -> Check:
    missing = [name for name, is_built in built.items() if not is_built]
    if not missing:
        return Check("environments", "ok", f"{', '.join(built)} are built in {local.environments_folder()}")
    found = f"{', '.join(missing)} not built yet: the first run builds them, which takes minutes"
    return Check("environments", "warning", found, "make install")


def check_disk(free_bytes: int, environments_are_built: bool) -> Check:
    needed = NEEDED_FOR_RUNS + (0 if environments_are_built else NEEDED_FOR_ENVIRONMENTS)
    found = f"{free_bytes / GIB:.1f} GiB free; it takes {needed // GIB} GiB"
    if free_bytes >= needed:
        return Check("disk", "ok", found)
    return Check(
        "disk", "missing", found, f"make room, or name another place: LOCALCLOUD_CACHE ({local.environments_folder()})"
    )


def check_memory(total_bytes: int) -> Check:
    found = f"{total_bytes / GIB:.1f} GiB"
    if total_bytes >= NEEDED_MEMORY:
        return Check("memory", "ok", found)
    return Check("memory", "warning", found, "runs with tuning.max_parallel_jobs=1 and small batches need the least")


def check_cloud(port: int) -> Check:
    """Whether a local cloud is up, or could come up on the port."""
    cloud = local.cloud()
    if cloud.running():
        return Check("local cloud", "ok", f"up on port {cloud.port}, state in {cloud.home}")
    if cloud.crashed():
        return Check("local cloud", "warning", f"the one of {cloud.home} has died", "kelpie up")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            found = f"none is up, and port {port} is in use"
            return Check(
                "local cloud", "missing", found, "end the other program, or choose another: kelpie up --port PORT"
            )
    return Check("local cloud", "ok", f"none is up, and port {port} is free")


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())
