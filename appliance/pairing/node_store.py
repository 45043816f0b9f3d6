"""Keeps what the hub handed over: all of it or nothing, wherever the power goes.

One file, the journal, takes everything at once; that is the moment of pairing. Its content is then spread to the
places where the services read it, `pairing.json` last, and the journal goes. What is interrupted there is done again
at the next start.
"""

import json
import shutil
import time
from pathlib import Path

from appliance import durable_files
from appliance.pairing.errors import StorageError
from appliance.pairing.identity import NodeKey
from appliance.pairing.wire import Credentials
from appliance.security.layout import node_folder
from appliance.security.paired import Pairing, PairingFiles


class NodeStore:
    """The node's side of what is kept."""

    def __init__(self, state: Path) -> None:
        """Take the state folder."""
        self._files = PairingFiles(state)
        self._waiting = node_folder(state) / "pairing"

    def key(self) -> NodeKey:
        """Return the node's key, made on first use.

        Raises:
            StorageError: the file can't be read or written.
        """
        return NodeKey.open(self._waiting / "node.key")

    def commit(self, credentials: Credentials, key: NodeKey) -> None:
        """Be paired.

        Raises:
            StorageError: the disk does not take it; the node is not paired then.
            OSError: nor does the disk let go of it, and nobody knows.
        """
        journal = {"since": time.time(), "key": key.pem.decode(), "credentials": credentials.model_dump()}
        try:
            durable_files.make_folder(self._files.secrets)
            durable_files.write(self._files.journal, json.dumps(journal).encode(), mode=0o600)
        except OSError as error:
            raise StorageError(f"the credentials can't be kept: {error}") from error
        try:
            self.recover()
        except StorageError:
            self._take_back()
            raise

    def recover(self) -> None:
        """Finish what was interrupted.

        Raises:
            StorageError: the disk does not take it; it is tried again at the next start.
        """
        try:
            journal = json.loads(self._files.journal.read_bytes())
            credentials = Credentials.model_validate(journal["credentials"])
            self._spread(credentials, journal["key"], journal["since"])
            durable_files.remove(self._files.journal)
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError) as error:
            raise StorageError(f"{self._files.journal}: can't be carried out: {error}") from error

    def reset(self) -> None:
        """Be unpaired, with a new key, as after the first start.

        Raises:
            StorageError: the disk does not let go.
        """
        try:
            self._take_back()
        except OSError as error:
            raise StorageError(f"the pairing can't be removed: {error}") from error
        shutil.rmtree(self._waiting, ignore_errors=True)

    def _take_back(self) -> None:
        files = self._files
        for path in (
            files.journal,
            files.record,
            files.password,
            files.expert_key,
            files.certificate,
            files.key,
            files.ca,
        ):
            durable_files.remove(path)

    def _spread(self, credentials: Credentials, key: str, since: float) -> None:
        files = self._files
        durable_files.make_folder(files.house)
        durable_files.make_folder(files.secrets)
        durable_files.write(files.key, key.encode(), mode=0o600)
        durable_files.write(files.certificate, credentials.certificate_pem.encode(), mode=0o600)
        durable_files.write(files.ca, credentials.ca_pem.encode(), mode=0o600)
        durable_files.write(files.password, f"{credentials.password}\n".encode(), mode=0o600)
        durable_files.write(files.expert_key, f"{credentials.expert_key}\n".encode(), mode=0o600)
        record = Pairing(
            hub=credentials.hub,
            broker_url=credentials.broker_url,
            username=credentials.username,
            hub_fingerprint=credentials.hub_fingerprint,
            since=since,
        )
        durable_files.write(files.record, record.model_dump_json(indent=2).encode(), mode=0o600)
        shutil.rmtree(self._waiting, ignore_errors=True)
