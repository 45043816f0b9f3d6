"""A machine's state folder, and the real restic."""

import os
import shutil
import socket
import sqlite3
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from appliance.cli.app import app

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class House:
    """A machine with a state, settings and a repository."""

    top: Path

    @property
    def state(self) -> Path:
        return self.top / "var" / "rouse"

    @property
    def config(self) -> Path:
        return self.top / "etc"

    @property
    def repository(self) -> Path:
        return self.top / "repository"

    @property
    def metrics(self) -> Path:
        return self.top / "metrics"

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "appliance", "--config-dir", str(self.config), "backup"]

    def settings(self, repository: str | None = None, more: str = "") -> None:
        self.config.mkdir(exist_ok=True)
        (self.config / "rouse.toml").write_text(
            f"""
[node]
name = "attic"
[paths]
state = "{self.state}"
models = "{self.state}/models"
[monitoring]
textfiles = "{self.metrics}"
[backup]
repository = "{repository or self.repository}"
{more}
"""
        )

    def rouse(self, *arguments: str, expect: int = 0) -> Result:
        """Run a command to its end, in this process: Python takes longer to start than most of them."""
        done = CliRunner().invoke(app, [*self.command[3:], *arguments])
        assert done.exit_code == expect, done.output
        return done

    def tree(self) -> dict[str, tuple[int, str, bytes]]:
        """Return mode and content of all that a backup should bring back."""
        found: dict[str, tuple[int, str, bytes]] = {}
        for path in sorted(self.state.rglob("*")):
            name = str(path.relative_to(self.state))
            if name.split("/", maxsplit=1)[0] in {"backup", "prefixes", "models", ".restored.json", "run.sock"}:
                continue
            if name == "memory.db" or name.startswith("memory.db-"):
                continue
            status = path.lstat()
            owner = f"{status.st_uid}:{status.st_gid}"
            if path.is_symlink():
                found[name] = (0, owner, os.fsencode(path.readlink()))
            else:
                found[name] = (
                    stat.S_IMODE(status.st_mode),
                    owner,
                    path.read_bytes() if path.is_file() else b"",
                )
        return found

    def facts(self) -> list[tuple[int, str]]:
        """Return what is in the database."""
        with closing(sqlite3.connect(self.state / "memory.db")) as memory:
            assert memory.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            return memory.execute("SELECT id, text FROM facts ORDER BY id").fetchall()


FILES: Mapping[str, tuple[int, bytes]] = {
    "secrets/gateway.key": (0o600, b"gateway-key\n"),
    "secrets/ca/ca.key": (0o600, b"ca key\n"),
    "pairing/nodes/cellar.json": (0o600, b'{"node": "cellar"}'),
    "router/data.jsonl": (0o640, b"{}\n" * 1000),
    "a name with spaces, and \xc3\xa4".encode("latin-1").decode(): (0o644, b"x"),
    "models/small.gguf": (0o644, os.urandom(4096)),
    "prefixes/small/0001": (0o600, b"what somebody said"),
}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house whose repository is a folder; there is no backup yet."""
    if shutil.which("restic") is None:
        pytest.skip("restic is not installed: scripts/packages restic")
    made = House(tmp_path)
    made.settings()
    made.metrics.mkdir()
    for name, (mode, content) in FILES.items():
        path = made.state / name
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
    (made.state / "secrets").chmod(0o700)
    (made.state / "current").symlink_to("router/data.jsonl")
    if os.geteuid() == 0:
        os.chown(made.state / "secrets" / "gateway.key", 1, 1)
        os.chown(made.state / "router", 54321, 54321)
    with closing(sqlite3.connect(made.state / "memory.db")) as memory:
        memory.execute("PRAGMA journal_mode=WAL")
        memory.execute("CREATE TABLE facts (id INTEGER PRIMARY KEY, text TEXT)")
        memory.executemany("INSERT INTO facts (text) VALUES (?)", [(f"fact {number}",) for number in range(500)])
        memory.commit()
    with socket.socket(socket.AF_UNIX) as listening:
        # Within the length that an address of a socket may have, however deep the test's folder is.
        here = Path.cwd()
        os.chdir(made.state)
        try:
            listening.bind("run.sock")
        finally:
            os.chdir(here)
        yield made
