"""What the hub shows of itself and whom it trusts, kept up to date while it runs."""

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping

from appliance.security.ca.authority import Authority
from appliance.security.ca.errors import CaError
from appliance.security.ca.names import node_name
from appliance.security.ca.store import Kind
from appliance.security.hub_certificate import HubCertificate, own_addresses, own_names
from appliance.security.secrets import SecretError
from appliance.security.tls import Identity, LiveServer, VerifiedContext, client_context, server_context

_log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""How often to look whether another process, `rouse certificate`, has changed the CA."""
MAINTENANCE_SECONDS = 3600.0

type Told = Callable[[], Awaitable[None]]


class HubTrust:
    """The CA, the hub's certificate, and the TLS contexts that are made of them."""

    def __init__(
        self, authority: Authority, certificate: HubCertificate, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the CA and the hub's certificate; `prepare` comes first."""
        self.authority = authority
        self.certificate = certificate
        self._monotonic = monotonic
        self._state: object = None
        self._nodes: frozenset[str] = frozenset()
        self.ends: Mapping[tuple[Kind, str], float] = {}
        """When the certificates of the house end, by kind and name."""
        self._clients: dict[str, VerifiedContext] = {}
        self._server: LiveServer | None = None
        self._told: list[Told] = []

    def when_changed(self, do: Told) -> None:
        """Call something in the event loop after each change of the CA or of the hub's certificate."""
        self._told.append(do)

    def prepare(self) -> bool:
        """Do what time asks for, and have new connections use the result; whether anything changed. It blocks.

        Raises:
            CaError: the CA's folder can't be used.
            SecretError: the hub's certificate can't be used.
        """
        self.authority.maintain()
        self.certificate.ensure(self.authority, names=own_names(), addresses=own_addresses())
        state = self._seen()
        if state == self._state:
            return False
        self._state = state
        self.ends = self.authority.ends()
        self._nodes = frozenset(name for kind, name in self.ends if kind == "node")
        self._clients = {}
        if self._server is not None:
            self._server.renew()
        return True

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes that have a certificate."""
        return self._nodes

    @property
    def server(self) -> LiveServer:
        """What the hub listens with; MQTT clients that are no nodes may know TLS 1.2 only."""
        if self._server is None:
            self._server = LiveServer(lambda: server_context(self._identity(), oldest=ssl.TLSVersion.TLSv1_2))
        return self._server

    def client(self, node: str) -> VerifiedContext:
        """Return what connects to a node.

        Raises:
            SecretError: the hub's certificate can't be used.
        """
        found = self._clients.get(node)
        if found is None:
            found = self._clients[node] = client_context(self._identity(), expected=node_name(node))
        return found

    async def watch(self) -> None:
        """Keep it up to date, for ever; what fails is tried again."""
        maintained = self._monotonic()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            due = self._monotonic() - maintained >= MAINTENANCE_SECONDS
            try:
                if not due and await asyncio.to_thread(self._seen) == self._state:
                    continue
                maintained = self._monotonic()
                if await asyncio.to_thread(self.prepare):
                    for do in self._told:
                        await do()
            except (CaError, SecretError) as error:
                _log.error("%s", error)

    def _identity(self) -> Identity:
        return Identity(
            chain=self.certificate.chain,
            key=self.certificate.key,
            trusted=self.authority.ca_pem.decode(),
            crl=self.authority.crl_file,
        )

    def _seen(self) -> object:
        return self.authority.state(), self.certificate.state()
