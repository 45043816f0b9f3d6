"""What a mosquitto beside the hub reads: passwords, access lists, and TLS; see mosquitto.conf(5).

The hub writes into one folder, and then `changed`: while that file is there, mosquitto has something new to read.
Whoever runs mosquitto removes it and then has mosquitto reload (SIGHUP), so that nothing that is written meanwhile goes
unread. docs/certificates.md has the configuration that goes with it. Files are for their owner and the folder's group,
which is mosquitto's; the folder must pass its group on (set-group-ID).
"""

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path

from appliance import durable_files
from appliance.bus.broker import Account
from appliance.security.ca.authority import Authority
from appliance.security.hub_certificate import HubCertificate
from appliance.security.node_access import access_of_node
from appliance.security.node_accounts import NodeAccounts
from appliance.security.passwords import fits, hashed
from appliance.security.secrets import SecretError

MODE = 0o640


class MosquittoFolder:
    """The folder. It blocks."""

    def __init__(
        self,
        folder: Path,
        *,
        own: Mapping[str, Account],
        nodes: NodeAccounts,
        authority: Authority,
        certificate: HubCertificate,
    ) -> None:
        """Take where to write, the accounts that are no nodes', and what else goes there."""
        self._folder = folder
        self._own = own
        self._nodes = nodes
        self._authority = authority
        self._certificate = certificate

    def write(self) -> bool:
        """Write what has changed; whether that was anything.

        Raises:
            SecretError: the disk refuses.
        """
        try:
            self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            files = {
                "ca.pem": self._authority.ca_pem,
                "crl.pem": self._authority.crl_file.read_bytes(),
                "server.pem": self._certificate.chain.read_bytes(),
                "server.key": self._certificate.key.read_bytes(),
                "passwords": self._passwords(),
                "acl": self._access(),
            }
            for name, content in files.items():
                durable_files.write(self._folder / name, content, mode=MODE)
            digest = hashlib.sha256(b"\0".join(files.values())).hexdigest().encode()
            if _content(self._folder / "digest") == digest:
                return False
            durable_files.write(self._folder / "changed", b"", mode=MODE)
            return durable_files.write(self._folder / "digest", digest, mode=MODE)
        except OSError as error:
            raise SecretError(
                f"{self._folder}: what mosquitto needs can't be written: {error}. Check broker.mosquitto_folder."
            ) from error

    def _passwords(self) -> bytes:
        """Return the accounts; a hash that still fits stays, so that the file is the same when nothing changed."""
        kept = {}
        with contextlib.suppress(FileNotFoundError):
            lines = (self._folder / "passwords").read_text(encoding="utf-8", errors="replace").splitlines()
            kept = dict(line.split(":", 1) for line in lines if ":" in line)
        found = {}
        for user, account in self._own.items():
            if callable(account.password):
                continue
            fitting = user in kept and fits(account.password, kept[user])
            found[user] = kept[user] if fitting else hashed(account.password)
        return "".join(f"{user}:{text}\n" for user, text in (found | dict(self._nodes.all)).items()).encode()

    def _access(self) -> bytes:
        lines = []
        for user, account in self._own.items():
            lines += [f"user {user}", *_topics(account.publish, account.subscribe), ""]
        for node in self._nodes.all:
            access = access_of_node(node)
            lines += [f"user {node}", *_topics(access.publish, access.subscribe), ""]
        return "\n".join(lines).encode()


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _topics(publish: tuple[str, ...], subscribe: tuple[str, ...]) -> list[str]:
    both = [f"topic readwrite {one}" for one in publish if one in subscribe]
    write = [f"topic write {one}" for one in publish if one not in subscribe]
    read = [f"topic read {one}" for one in subscribe if one not in publish]
    return [*both, *write, *read]
