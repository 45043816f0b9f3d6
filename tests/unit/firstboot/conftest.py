"""A partition and a system, in folders."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.firstboot.apply import Machine, Outcome, apply

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f you@laptop"
SECRET = "a very secret passphrase"
GOOD = f"""\
[node]
name = "attic"
roles = ["expert"]
[system]
time_zone = "Europe/Berlin"
locale = "de_DE.UTF-8"
ssh_keys = ["{KEY}"]
[network.wifi]
ssid = "Café 1"
psk = "{SECRET}"
country = "DE"
[broker]
url = "mqtt://192.168.1.10"
username = "rouse"
password = "another secret"
"""


@dataclass
class Stick:
    """The FAT partition, and the machine that reads it."""

    folder: Path
    machine: Machine

    def write(self, content: str | bytes, name: str = "rouse.toml") -> None:
        self.folder.joinpath(name).write_bytes(content.encode() if isinstance(content, str) else content)

    def start(self) -> Outcome:
        """What happens at a start of the machine."""
        return apply(self.folder, self.machine)

    def has_no_errors(self) -> bool:
        return self.errors is None

    @property
    def errors(self) -> str | None:
        path = self.folder / "rouse-errors.txt"
        return path.read_bytes().decode() if path.exists() else None

    def at(self, path: str) -> Path:
        return self.machine.root / path

    def everything(self) -> dict[str, bytes | str]:
        """Return all that is on the machine, but what is told of the last start."""
        root = self.machine.root
        return {
            str(path.relative_to(root)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
            for path in sorted(root.rglob("*"))
            if (path.is_symlink() or path.is_file()) and "run" not in path.relative_to(root).parts
        }


def new_stick(folder: Path) -> Stick:
    root, partition = folder / "root", folder / "stick"
    partition.mkdir(parents=True)
    (root / "etc").mkdir(parents=True)
    (root / "etc/group").write_text("root:x:0:\nrouse:x:0:\n")
    (root / "etc/hostname").write_text("localhost\n")
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (root / "usr/share/zoneinfo/Europe").mkdir(parents=True)
    (root / "usr/share/zoneinfo/Europe/Berlin").write_bytes(b"TZif")
    return Stick(partition, Machine(root))


@pytest.fixture
def stick(tmp_path: Path) -> Stick:
    return new_stick(tmp_path)
