"""The nodes' accounts at the broker: passwords as hashes, in one file that is whole at any moment."""

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from appliance import durable_files
from appliance.security.ca.names import RESERVED
from appliance.security.layout import secret_file
from appliance.security.passwords import hashed, new_password
from appliance.security.secrets import SecretError


def accounts_file(state: Path) -> Path:
    """Return where the nodes' accounts are kept in the state folder."""
    return secret_file(state, "broker-nodes.json")


class NodeAccounts:
    """The accounts. Changing them blocks: do it in a thread."""

    def __init__(self, file: Path) -> None:
        """Take the file, which need not be there.

        Raises:
            SecretError: it can't be read.
        """
        self._file = file
        self._lock = threading.Lock()
        self._changed: list[Callable[[str], None]] = []
        try:
            kept = json.loads(file.read_bytes())
            self._all = {str(node): str(kept[node]) for node in kept}
        except FileNotFoundError:
            self._all = {}
        except (OSError, ValueError, TypeError) as error:
            raise SecretError(f"{file}: the nodes' accounts can't be read: {error}") from error

    @property
    def all(self) -> Mapping[str, str]:
        """The hashes of the passwords, by node."""
        return MappingProxyType(self._all)

    def when_changed(self, do: Callable[[str], None]) -> None:
        """Call something with the name after each change, in the thread that made it and before that goes on."""
        self._changed.append(do)

    def add(self, node: str) -> str:
        """Make an account, or give an existing one a new password, and return the password.

        Raises:
            SecretError: the name is another account's, or the disk refuses.
        """
        if node in RESERVED:
            raise SecretError(f"{node}: is no name that a node may have; give it another one in its rouse.toml")
        password = new_password()
        with self._lock:
            self._write({**self._all, node: hashed(password)}, node)
        return password

    def remove(self, node: str) -> None:
        """Remove an account, if there is one.

        Raises:
            SecretError: the disk refuses.
        """
        with self._lock:
            self._write({name: kept for name, kept in self._all.items() if name != node}, node)

    def _write(self, accounts: dict[str, str], node: str) -> None:
        try:
            durable_files.make_folder(self._file.parent)
            durable_files.write(self._file, json.dumps(accounts, indent=1).encode(), mode=0o600)
        except OSError as error:
            raise SecretError(f"{self._file}: the nodes' accounts can't be written: {error}") from error
        self._all = accounts
        for do in self._changed:
            do(node)
