"""What a container has of this machine: its cores, and what it may know of its environment."""

from __future__ import annotations

import os

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_environment() -> dict[str, str]:
    """Return what a process keeps of the host's environment: where programs, certificates, proxies and accelerators
    are found.

    Threads of OpenMP wait asleep: spinning, as they do by default, takes the very cores that the other containers of
    this machine compute on (two jobs of two threads on two busy cores: 47 images a second spinning, 220 asleep).
    """
    kept = ("PATH", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
    environment = {name: os.environ[name] for name in (*kept, *proxies) if name in os.environ}
    if any(name in environment for name in proxies):  # the cloud itself is never behind the proxy
        for name in ("NO_PROXY", "no_proxy"):
            environment[name] = ",".join(filter(None, [environment.get(name), "localhost,127.0.0.1"]))
    return {"LANG": "C.UTF-8", "OMP_WAIT_POLICY": "PASSIVE", **environment}
