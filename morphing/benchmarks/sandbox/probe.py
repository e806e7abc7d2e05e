"""A program that tries, inside the sandbox, what the sandbox must prevent.

Its text is run there by :func:`morphing.benchmarks.sandbox.check.check_sandbox`, followed by a call
of :func:`probe`. Each try gets what the host has and the limits, and tells whether it succeeded.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import time
from typing import Any

CLONE_NEWUSER = 0x10000000
MEBIBYTE = 2**20


def reaches_network(seen: dict[str, Any]) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", seen["port"]), timeout=2):
            return True
    except OSError:
        return False


def sees_processes(seen: dict[str, Any]) -> bool:
    # The first process of a namespace is the sandbox's own, this program the second.
    return (os.getppid(), os.getpid()) != (1, 2) or os.path.exists("/proc/self")


def sees_files(seen: dict[str, Any]) -> bool:
    return any(os.path.exists(path) for path in seen["paths"])


def writes_files(seen: dict[str, Any]) -> bool:
    for folder in ("/", "/dev", "/usr/lib", "/python/lib", os.path.dirname(os.__file__)):
        try:
            with open(os.path.join(folder, "written"), "w"):
                return True
        except OSError:
            continue
    return False


def has_privileges(seen: dict[str, Any]) -> bool:
    if os.getuid() == 0 or os.geteuid() == 0:
        return True
    try:
        os.setuid(0)
    except OSError:
        return bool(ctypes.CDLL(None).unshare(CLONE_NEWUSER) == 0)
    return True


def sees_environment(seen: dict[str, Any]) -> bool:
    return not os.environ.keys() <= set(seen["environment"])


def takes_memory(seen: dict[str, Any]) -> bool:
    try:
        return len(bytearray(seen["memory"])) > 0
    except MemoryError:
        return False


def fills_disk(seen: dict[str, Any]) -> bool:
    written = 0
    for number in range(2 + seen["folder_bytes"] // seen["file_bytes"]):
        try:
            with open(f"/tmp/{number}", "wb", buffering=0) as file:
                for _ in range(2 + seen["file_bytes"] // MEBIBYTE):
                    written += file.write(bytes(MEBIBYTE))
                return True  # a file grew beyond its limit
        except OSError:
            continue
    return written > seen["folder_bytes"]


def starts_processes(seen: dict[str, Any]) -> bool:
    for _ in range(seen["processes"] + 1):
        try:
            if os.fork() == 0:
                time.sleep(5)
                os._exit(0)
        except OSError:
            return False
    return True


TRIES = {
    "a network of its own": reaches_network,
    "processes of its own": sees_processes,
    "hidden files": sees_files,
    "a read-only system": writes_files,
    "an unprivileged user": has_privileges,
    "a clean environment": sees_environment,
    "a limit on memory": takes_memory,
    "a limit on its folder": fills_disk,
    "a limit on processes": starts_processes,
}


def probe(seen: dict[str, Any]) -> None:
    """Print, as a line of JSON, what was not prevented."""
    print(json.dumps([name for name, succeeds in TRIES.items() if succeeds(seen)]))
