"""A configuration folder of a house, and `rouse deploy` on it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from image_build.source import checkout

PASSWORD = "correct horse battery"
_TOP = checkout()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run of `rouse deploy --json` said."""

    code: int
    output: dict[str, Any]
    errors: str

    def changed(self) -> list[str]:
        """Return what was changed, or would be."""
        return [
            f"{machine['machine']}, {part['part']}: {operation['title']}"
            for machine in self.output["machines"]
            for part in machine["parts"]
            for operation in part["operations"]
            if operation["outcome"] in {"changed", "would change"}
        ]

    def errors_of(self, part: str) -> str:
        """Return what was wrong with a part."""
        found = [one for machine in self.output["machines"] for one in machine["parts"] if one["part"] == part]
        return "\n".join(str(one["error"]) for one in found if one["error"])


@dataclass(frozen=True, slots=True)
class House:
    """The folder, with a key for SSH."""

    folder: Path
    key: Path = field(init=False)

    def __post_init__(self) -> None:
        """Make the key."""
        (self.folder / "hosts").mkdir(parents=True)
        object.__setattr__(self, "key", self.folder / "key")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)

    @property
    def public_key(self) -> str:
        """The key as `system.ssh_keys` takes it."""
        return self.key.with_suffix(".pub").read_text().strip()

    def host(self, name: str, text: str) -> None:
        """Write a machine's file."""
        (self.folder / "hosts" / f"{name}.toml").write_text(text)

    def deploy(self, *arguments: str, preflight: bool = False) -> Outcome:
        """Run `rouse deploy` and return what it said."""
        command = [sys.executable, "-m", "appliance", "--config-dir", str(self.folder), "deploy", "--json", "--yes"]
        command += [] if preflight else ["--skip-preflight"]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ROUSE_")}
        done = subprocess.run(
            [*command, *arguments], check=False, capture_output=True, text=True, cwd=_TOP, env=environ
        )
        output = json.loads(done.stdout) if done.stdout else {}
        return Outcome(done.returncode, output, done.stderr)


def password_hash(password: str = PASSWORD) -> str:
    """Return what `openssl passwd -6` makes of a password."""
    done = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=password, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
