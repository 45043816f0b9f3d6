"""A node that was paired: what its experts listen with, whom they answer, and how the daemon reaches them."""

import asyncio
import contextlib
import logging
import ssl
from pathlib import Path
from typing import Self

from appliance.node.identity import node_name
from appliance.security.broker import is_node_of_another_hub
from appliance.security.ca.names import MONITOR
from appliance.security.ca.names import node_name as certified_name
from appliance.security.paired import PairingFiles, identity_of, read_pairing
from appliance.security.secrets import SecretError
from appliance.security.tls import Identity, LiveServer, client_context, peer, server_context
from appliance.settings.model import Settings

_log = logging.getLogger(__name__)

MONITORED = frozenset({"/health", "/metrics"})
LOOK_SECONDS = 10.0
"""How often an expert looks whether the daemon has renewed the certificate."""


class PairedNode:
    """Its certificate in use."""

    def __init__(self, name: str, files: PairingFiles) -> None:
        """Take the node's name and where its certificate is.

        Raises:
            SecretError: the certificate can't be used.
        """
        self.name = name
        self.files = files
        self.client = client_context(self.identity(), expected=certified_name(name))
        """For the node's own way to its experts."""
        self.server = LiveServer(lambda: server_context(self.identity()))

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Return this machine as a paired node, or None if it is none.

        Raises:
            SecretError: its certificate can't be used.
        """
        state: Path = settings.paths.state
        if not is_node_of_another_hub(settings) or read_pairing(state) is None:
            return None
        return cls(node_name(settings.node), PairingFiles(state))

    def identity(self) -> Identity:
        """Return the certificate as it is now.

        Raises:
            SecretError: a file is missing.
        """
        return identity_of(self.files)

    def admits(self, connection: ssl.SSLObject | None, path: str) -> bool:
        """Whether who is at the other end may ask an expert: the hub, this node itself, or a monitor for its part."""
        other = peer(connection)
        if other is None:
            return False
        return "hub" in other.roles or other.name == self.name or (MONITOR in other.roles and path in MONITORED)

    async def follow(self) -> None:
        """Have new connections use a renewed certificate, for ever."""
        known = await asyncio.to_thread(self._state)
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            state = await asyncio.to_thread(self._state)
            if state == known:
                continue
            known = state
            try:
                await asyncio.to_thread(self.server.renew)
                _log.info("the renewed certificate is in use")
            except SecretError as error:
                _log.error("%s", error)

    def _state(self) -> object:
        found = []
        for path in (self.files.certificate, self.files.ca):
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append((status.st_ino, status.st_mtime_ns))
        return found
