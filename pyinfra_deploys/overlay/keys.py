"""WireGuard's keys: private ones are made on each machine and stay there, public ones are remembered here."""

import base64
import binascii
from collections.abc import Generator
from pathlib import Path
from typing import override

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, operation
from pyinfra.api.host import Host

from appliance import durable_files
from pyinfra_deploys.errors import DeployError
from pyinfra_deploys.file_operations import FileSeen

PRIVATE_KEY = "/etc/systemd/network/rouse-overlay.key"
GROUP = "systemd-network"
_FOLDER = "overlay"
_MAKE = (
    f"umask 077; wg genkey > {PRIVATE_KEY}.new && chown root:{GROUP} {PRIVATE_KEY}.new && chmod 640 {PRIVATE_KEY}.new "
    f"&& sync {PRIVATE_KEY}.new && mv -fT {PRIVATE_KEY}.new {PRIVATE_KEY}"
)


class PublicKey(FactBase[str | None]):
    """The machine's public key, or None where there is no private one yet."""

    @override
    def command(self) -> str:
        return f"if [ -s {PRIVATE_KEY} ]; then wg pubkey < {PRIVATE_KEY}; fi"

    @override
    def process(self, output: list[str]) -> str | None:
        return checked(output[0]) if output else None


@operation()
def private_key() -> Generator[StringCommand]:
    """Have a private key, made there."""
    if not host.get_fact(FileSeen, path=PRIVATE_KEY):
        yield StringCommand(_MAKE)


def checked(text: str) -> str:
    """Return a public key.

    Raises:
        DeployError: it is none.
    """
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise DeployError("what should be a public key of WireGuard is none")
    return text.strip()


class KnownKeys:
    """Public keys of the machines, kept beside their settings, so that one machine can be deployed without the others.

    Args:
        config_dir: folder of the settings.
    """

    def __init__(self, config_dir: Path) -> None:
        self._folder = config_dir / _FOLDER

    def get(self, name: str) -> str | None:
        """Return a machine's key, or None if it was never seen.

        Raises:
            DeployError: the file holds something else.
        """
        try:
            return checked((self._folder / f"{name}.pub").read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise DeployError(f"{self._folder / name}.pub can't be read: {error}") from error

    def remember(self, name: str, key: str) -> None:
        """Keep a machine's key.

        Raises:
            DeployError: the disk does not take it.
        """
        try:
            self._folder.mkdir(exist_ok=True)
            durable_files.write(self._folder / f"{name}.pub", f"{key}\n".encode(), mode=0o644)
        except OSError as error:
            raise DeployError(f"{self._folder / name}.pub can't be written: {error.strerror}") from error


def key_on(other: Host) -> str | None:
    """Return the key that a connected machine has now."""
    found: str | None = other.get_fact(PublicKey)
    return found
