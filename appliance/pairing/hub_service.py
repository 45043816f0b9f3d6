"""Pairing on the hub: nodes that wait are offered on the bus, and claims from the bus are carried out."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import aiohttp
from zeroconf import Error as MulticastError
from zeroconf.asyncio import AsyncZeroconf

from appliance.bus.client import Bus
from appliance.bus.errors import BusUnavailableError
from appliance.bus.messages import Presence
from appliance.bus.pairing_messages import PairedNode, PairingClaim, PairingOffer, PairingResult
from appliance.bus.topics import NODE_STATUS, PAIRED_NODE, PAIRING_CLAIM, PAIRING_OFFER, PAIRING_RESULT
from appliance.pairing.broker_address import broker_url_for
from appliance.pairing.claim import Claimant
from appliance.pairing.claim_desk import ClaimDesk
from appliance.pairing.discovery import Browser, Found, browsing, multicast, own_addresses
from appliance.pairing.hub_ledger import HubLedger, Offices
from appliance.security.layout import hub_folder
from appliance.settings.model import Settings

_log = logging.getLogger(__name__)

REMEMBERED_CLAIMS = 100
NETWORK_LOOK_SECONDS = 5.0


def hub_pairing(
    settings: Settings,
    *,
    hub: str,
    bus: Bus,
    http: aiohttp.ClientSession,
    offices: Offices,
    nodes_port: int | None,
) -> "HubPairing":
    """Build the service.

    Args:
        settings: the hub's.
        hub: its name.
        bus: the bus, before it is entered.
        http: for the way to the nodes.
        offices: who makes what a node is given.
        nodes_port: where the embedded broker listens for nodes; None with an external one, and when it does not.
    """
    ledger = HubLedger(
        hub_folder(settings.paths.state) / "pairing",
        offices=offices,
        certificate_days=settings.pairing.certificate_days,
    )
    claimant = Claimant(
        hub=hub,
        ledger=ledger,
        http=http,
        broker_url=lambda address: broker_url_for(settings, address, nodes_port=nodes_port),
    )
    return HubPairing(bus=bus, claimant=claimant, ledger=ledger, addresses=settings.pairing.addresses)


class HubPairing:
    """The service: an async context manager, entered after the bus."""

    def __init__(self, *, bus: Bus, claimant: Claimant, ledger: HubLedger, addresses: Sequence[str] = ()) -> None:
        """Take the bus, before it is entered, who claims nodes, and the hub's book.

        `addresses` of this machine choose the networks to look in; all when there are none.
        """
        self._addresses = addresses
        self._bus = bus
        self._ledger = ledger
        self._desk = ClaimDesk(claimant=claimant, ledger=ledger, waiting=self._waiting)
        self._found: dict[str, Found] = {}
        """By name of the announcement."""
        self._since: dict[str, float] = {}
        self._offered: dict[str, PairingOffer] = {}
        self._results: OrderedDict[str, PairingResult | None] = OrderedDict()
        """By the claim's id; None while it is carried out."""
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        bus.subscribe(PAIRING_CLAIM, self._on_claim)
        bus.subscribe(PAIRING_OFFER, self._on_own_offer)
        bus.subscribe(PAIRED_NODE, self._on_own_membership)
        bus.subscribe(NODE_STATUS, self._on_status)

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread(self._ledger.recover)
            for node in await asyncio.to_thread(self._ledger.members):
                await self._tell_membership(node)
        except Exception:  # noqa: BLE001 - the CA has errors of its own, and the house works on without new nodes
            _log.exception("what was interrupted at the last pairing can't be mended; see docs/first-boot.md")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def look(self) -> None:
        """Look for nodes in the network, for ever."""
        complained = False
        while True:
            try:
                addresses = own_addresses(self._addresses)
                if addresses:
                    async with multicast(addresses) as zeroconf:
                        await self._browse(zeroconf, addresses)
            except (OSError, MulticastError) as error:
                if not complained:
                    _log.warning("nodes can't be looked for in the network yet: %s", error)
                complained = True
            await asyncio.sleep(NETWORK_LOOK_SECONDS)

    async def _browse(self, zeroconf: AsyncZeroconf, addresses: Sequence[str]) -> None:
        changes: asyncio.Queue[tuple[str, Found | None]] = asyncio.Queue()
        browser = Browser(lambda name, found: changes.put_nowait((name, found)))
        async with browsing(zeroconf, browser):
            # zeroconf joins the networks that there are when it starts.
            while own_addresses(self._addresses) == addresses:
                with suppress(TimeoutError):
                    async with asyncio.timeout(NETWORK_LOOK_SECONDS):
                        name, found = await changes.get()
                    await self._note(name, found)

    async def _note(self, name: str, found: Found | None) -> None:
        before = self._found.pop(name, None)
        if found is not None:
            self._found[name] = found
        for node in {entry.state.node.name for entry in (before, found) if entry is not None}:
            await self._offer(node)

    async def _offer(self, node: str) -> None:
        found = self._waiting(node)
        if not found:
            self._since.pop(node, None)
            self._offered.pop(node, None)
            await self._bus.withdraw(PAIRING_OFFER, node=node)
            return
        newest = found[-1]
        offer = PairingOffer(
            node=node,
            title=newest.state.title,
            model=newest.state.model,
            version=newest.state.rouse,
            roles=newest.state.roles,
            address=f"{newest.address}:{newest.port}",
            fingerprint=newest.state.node.fingerprint,
            state=newest.state.state,
            since=self._since.setdefault(node, time.time()),
        )
        if self._offered.get(node) != offer:
            self._offered[node] = offer
            await self._bus.keep(PAIRING_OFFER, offer, node=node)

    def _waiting(self, node: str) -> list[Found]:
        return [found for found in self._found.values() if found.state.node.name == node]

    async def _on_claim(self, claim: PairingClaim | None, levels: Mapping[str, str]) -> None:
        if claim is None:
            return
        task = asyncio.create_task(self._answer(claim, levels["node"]), name=f"claim {levels['node']}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, claim: PairingClaim, node: str) -> None:
        if claim.id in self._results:
            result = self._results[claim.id]
            if result is not None:
                await self._say(result, node)
            return
        self._results[claim.id] = None
        async with self._one_at_a_time:
            result = await self._desk.carry_out(claim, node)
        self._results[claim.id] = result
        while len(self._results) > REMEMBERED_CLAIMS:
            self._results.popitem(last=False)
        await self._tell_membership(node)
        await self._say(result, node)

    async def _say(self, result: PairingResult, node: str) -> None:
        try:
            await self._bus.publish(PAIRING_RESULT, result, node=node)
        except BusUnavailableError:
            _log.warning("the result of a claim of %s could not be told: %s", node, result.message)

    async def _tell_membership(self, node: str) -> None:
        member = (await asyncio.to_thread(self._ledger.members)).get(node)
        if member is None or member.state not in {"handed_over", "paired"}:
            await self._bus.withdraw(PAIRED_NODE, node=node)
            return
        told = PairedNode.model_validate(member.model_dump())
        await self._bus.keep(PAIRED_NODE, told, node=node)

    async def _on_status(self, presence: Presence | None, levels: Mapping[str, str]) -> None:
        """A node that is on the bus has its credentials."""
        if presence is None or presence.state != "online":
            return
        if await asyncio.to_thread(self._ledger.confirm, levels["node"]):
            await self._tell_membership(levels["node"])

    async def _on_own_offer(self, offer: PairingOffer | None, levels: Mapping[str, str]) -> None:
        """Withdraw what an earlier run offered."""
        if offer is not None and levels["node"] not in self._offered:
            await self._bus.withdraw(PAIRING_OFFER, **levels)

    async def _on_own_membership(self, member: PairedNode | None, levels: Mapping[str, str]) -> None:
        """Withdraw what an earlier run said of a node that is no longer in the book."""
        if member is not None and levels["node"] not in await asyncio.to_thread(self._ledger.members):
            await self._bus.withdraw(PAIRED_NODE, **levels)
