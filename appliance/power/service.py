"""The hub's side of power, put together: it wakes nodes, foresees when, and recovers those that are missing."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import tzinfo
from pathlib import Path

import aiohttp
from prometheus_client import CollectorRegistry

from appliance.bus.client import Bus
from appliance.power.memory import NodeMemory, Reminder
from appliance.power.metrics import PowerMetrics
from appliance.power.nodes import KnownNode, NodeBook
from appliance.power.recovery.ipmi import IpmiRung
from appliance.power.recovery.ladder import Ladder
from appliance.power.recovery.ledger import Ledger
from appliance.power.recovery.magic_packet import MagicPacketRung
from appliance.power.recovery.plug import PlugRung
from appliance.power.recovery.rungs import Rung
from appliance.power.recovery.script import ScriptRung
from appliance.power.recovery.watch import Objections, Probe, RecoveryWatch, Updating
from appliance.power.wake.commands import Commands
from appliance.power.wake.experts import ExpertWaker
from appliance.power.wake.forecast import Forecast, NoForecast
from appliance.power.wake.foresight import Foresight
from appliance.power.wake.hints import Hints
from appliance.power.wake.packets import Caller
from appliance.power.wake.waker import Waker
from appliance.security.audit import AuditLog, audit_file
from appliance.security.layout import hub_folder
from appliance.settings.model import AgentSettings, GatewaySettings
from appliance.settings.waking import RecoverySettings, WakeSettings

NODES_FILE = "nodes.json"
RECOVERY_FILE = "recovery.json"
STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROBE_SECONDS = 5.0
MAX_PROBED = 4
"""Experts of a node that are asked whether it is on."""


class PowerService:
    """The parts, and what keeps them going. Make it before the bus is entered."""

    def __init__(
        self,
        *,
        hub: str,
        bus: Bus,
        http: aiohttp.ClientSession,
        wake: WakeSettings,
        recovery: RecoverySettings,
        agents: Mapping[str, Sequence[str]],
        zone: tzinfo,
        state: Path,
        registry: CollectorRegistry,
        forecast: Forecast | None = None,
        updating: Updating = lambda _node: False,
        path: str | None = None,
    ) -> None:
        """Take what is outside.

        Args:
            hub: the name of this machine's own node.
            bus: not yet entered.
            http: to ask experts whether their machine is on.
            wake: how nodes are woken.
            recovery: what is tried when one is missing.
            agents: the experts that each agent is likely to need.
            zone: of the house's clock.
            state: the state folder.
            registry: for the metrics.
            forecast: foresees demand; without, nothing is foreseen.
            updating: whether an update is being installed on a node.
            path: where programs are found; this process's PATH when not given.
        """
        path = path or os.environ.get("PATH", STANDARD_PATH)
        metrics = PowerMetrics(registry)
        audit = AuditLog(audit_file(state))
        folder = hub_folder(state) / "power"
        self._forecast = forecast or NoForecast()
        self._ledger = Ledger(folder / RECOVERY_FILE)
        self._book = book = NodeBook(own=hub)
        book.attach(bus)
        self._memory = NodeMemory(folder / NODES_FILE, book)
        self._reminder = Reminder(bus=bus, book=book)
        self.waker = Waker(book=book, caller=Caller(wake), settings=wake, audit=audit, metrics=metrics)
        probe = answering(http)
        objections = Objections(
            book=book,
            ledger=self._ledger,
            settings=recovery,
            probe=probe,
            updating=updating,
            connected=lambda: bus.connected,
        )
        self._watch = RecoveryWatch(
            bus=bus,
            book=book,
            ledger=self._ledger,
            ladder=Ladder(
                rungs=_rungs(recovery, waker=self.waker, bus=bus, path=path),
                book=book,
                ledger=self._ledger,
                audit=audit,
                metrics=metrics,
                objection=objections,
            ),
            settings=recovery,
            probe=probe,
            audit=audit,
            metrics=metrics,
        )
        self.waker.failed = self._watch.did_not_wake
        commands = Commands(book=book, waker=self.waker, recover=self._watch.recover)
        commands.attach(bus)
        experts = ExpertWaker(book=book, waker=self.waker, commands=commands)
        Hints(agents=agents, experts=experts, metrics=metrics).attach(bus)
        self._foresight = Foresight(
            settings=wake,
            zone=zone,
            bus=bus,
            waker=self.waker,
            experts=experts,
            commands=commands,
            forecast=self._forecast,
        )

    def note_demand(self, expert: str) -> None:
        """Take in that a request wants an expert."""
        self._forecast.note(expert, time.time())

    async def load(self) -> None:
        """Read what an earlier process knew. Call it before the bus is entered."""
        await asyncio.to_thread(self._ledger.load)
        await asyncio.to_thread(self._memory.load)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Sequence["asyncio.Task[None]"]]:
        """Begin, when the bus is entered; yield the tasks, none of which should ever end."""
        async with self.waker, self._watch:
            tasks = [
                asyncio.create_task(self._memory.run(), name="memory of nodes"),
                asyncio.create_task(self._reminder.run(), name="reminder of nodes"),
                asyncio.create_task(self._watch.run(), name="missing nodes"),
                asyncio.create_task(self._foresight.run(), name="foresight"),
            ]
            try:
                yield tasks
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


def experts_of(agents: Mapping[str, AgentSettings], gateway: GatewaySettings) -> dict[str, tuple[str, ...]]:
    """Return the experts that each agent is likely to need: its own, or where the router chooses, the fallbacks."""
    found = {}
    for name, agent in agents.items():
        named = (agent.expert,) if agent.expert != "auto" else (*agent.fallbacks, *gateway.fallbacks)[:1]
        found[name] = named
    return found


def answering(http: aiohttp.ClientSession) -> Probe:
    """Return what asks a node's experts whether it is on. Their /health wants no key."""

    async def probe(node: KnownNode) -> str | None:
        for status in list(node.experts.values())[:MAX_PROBED]:
            if status.url is None:
                continue
            url = status.url.rstrip("/").removesuffix("/v1") + "/health"
            try:
                timeout = aiohttp.ClientTimeout(total=PROBE_SECONDS)
                async with http.get(url, timeout=timeout, allow_redirects=False) as response:
                    if response.status == 200:
                        return url
            except (aiohttp.ClientError, OSError, ValueError):
                continue
        return None

    return probe


def _rungs(settings: RecoverySettings, *, waker: Waker, bus: Bus, path: str) -> tuple[Rung, ...]:
    nodes = settings.nodes
    patience = settings.power_timeout
    return (
        MagicPacketRung(waker=waker, seconds=settings.packet_timeout),
        IpmiRung(nodes=nodes, patience=patience, path=path),
        PlugRung(
            bus=bus,
            nodes=frozenset(name for name, one in nodes.items() if one.plug),
            confirm_seconds=settings.plug_confirm_timeout,
            patience=patience,
        ),
        ScriptRung(nodes=nodes, seconds=settings.script_timeout, patience=patience, path=path),
    )
