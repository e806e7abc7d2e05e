"""A PostgreSQL server of a test's own, on the loopback interface, gone afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

USER, PASSWORD = "morphing", "s3cret-pass"


@dataclass(frozen=True)
class Server:
    """Where it listens, and who may use it."""

    port: int
    data: Path

    def url(self, password: bool = True, database: str = "postgres") -> str:
        login = f"{USER}:{PASSWORD}" if password else USER
        return f"postgresql://{login}@127.0.0.1:{self.port}/{database}"


def binaries() -> Path | None:
    """Where the server's programs are; distributions keep them off the path."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return places[-1].parent if places else None


@contextmanager
def running_server(programs: Path) -> Iterator[Server]:
    """Start a server with an empty database and a user with a password."""
    # Its own short folder, since sockets' paths are bounded, which the server's user can enter.
    folder = Path(tempfile.mkdtemp(prefix="morphing-pg-", dir="/tmp"))
    folder.chmod(0o755)
    secret, data = folder / "password", folder / "data"
    secret.write_text(PASSWORD)
    data.mkdir()
    as_user = _lower_rights(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(program: str, *arguments: object) -> None:
        command = [*as_user, programs / program, "-D", data, *arguments]
        done = subprocess.run(
            list(map(str, command)), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert done.returncode == 0, done.stderr.decode()

    login = ("-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}")
    try:
        run("initdb", *login, "-E", "UTF8", "--locale=C", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c fsync=off -k {folder}"
        run("pg_ctl", "start", "-w", "-l", folder / "log", "-o", options)
        try:
            yield Server(port, data)
        finally:
            run("pg_ctl", "stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder)


def _lower_rights(folder: Path) -> list[str]:
    """The server refuses to run as root: then it runs as the system's user for it."""
    if os.geteuid() != 0:
        return []
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, "postgres", "postgres")
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
