"""A node book that is told what a bus would tell, and a network card that is a UDP socket on loopback."""

import asyncio
import socket
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from appliance.bus.messages import ExpertStatus, Hardware, NodeAnnouncement, Presence
from appliance.bus.power_messages import NodePower
from appliance.power.metrics import PowerMetrics
from appliance.power.nodes import NodeBook
from appliance.power.wake.packets import Caller
from appliance.power.wake.waker import Waker
from appliance.security.audit import AuditLog, Entry, read_audit
from appliance.settings.waking import WakeSettings

MAC = "52:54:00:12:34:56"
HARDWARE = Hardware(architecture="x86_64", cpu="a processor", cores=2, memory_bytes=2**30)


class Card:
    """What arrives at a network card."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self.packets: list[bytes] = []

    def take(self) -> list[bytes]:
        """Return all packets so far."""
        while True:
            try:
                self.packets.append(self._socket.recv(2048))
            except BlockingIOError:
                return self.packets

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.take()) < count:
                await asyncio.sleep(0.005)

    def close(self) -> None:
        self._socket.close()


class House:
    """The parts of waking, on a card of the test's own."""

    def __init__(self, folder: Path, card: Card, **wake: Any) -> None:
        self.card = card
        self.folder = folder
        quick = {"first_retry": 0.05, "last_retry": 0.1, "timeout": 0.5, "again_after": 60}
        self.settings = WakeSettings.model_validate({**quick, "addresses": ["127.0.0.1"], "port": card.port, **wake})
        self.now = 1_795_000_000.0
        self.book = NodeBook(own="hub", wall=lambda: self.now)
        self.registry = CollectorRegistry()
        self.metrics = PowerMetrics(self.registry)
        self.audit = AuditLog(folder / "audit.jsonl")
        self.failures: list[tuple[str, str]] = []
        self.waker = Waker(
            book=self.book,
            caller=Caller(self.settings),
            settings=self.settings,
            audit=self.audit,
            metrics=self.metrics,
            failed=lambda node, detail: self.failures.append((node, detail)),
        )

    async def announce(self, node: str, *experts: str, macs: tuple[str, ...] = (MAC,)) -> None:
        announcement = NodeAnnouncement(
            node=node, name=node, version="1", roles=("expert",), hardware=HARDWARE, experts=experts, macs=macs
        )
        await self.book._on_announcement(announcement, {"node": node})
        for expert in experts:
            status = ExpertStatus(expert=expert, node=node, state="ready", url="http://127.0.0.1:9/v1")
            await self.book._on_expert(status, {"node": node, "expert": expert})

    async def presence(self, node: str, state: Any) -> None:
        await self.book._on_presence(Presence(state=state), {"node": node})

    async def power(self, node: str, state: Any) -> None:
        await self.book._on_power(NodePower(state=state, since=self.now), {"node": node})

    async def awake(self, node: str, *experts: str) -> None:
        await self.announce(node, *experts)
        await self.presence(node, "online")
        await self.power(node, "awake")

    async def asleep(self, node: str, *experts: str, state: str = "asleep") -> None:
        await self.announce(node, *experts)
        await self.power(node, state)
        await self.presence(node, "offline")

    def entries(self) -> list[Entry]:
        return list(read_audit(self.folder / "audit.jsonl", last=100))

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0
