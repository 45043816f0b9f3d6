"""The node daemon: announces the machine, keeps its experts running, publishes telemetry."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client import CollectorRegistry

from appliance import __version__
from appliance.bus.client import Bus
from appliance.bus.connection import Connection, reachable
from appliance.bus.messages import ExpertStatus, NodeAnnouncement
from appliance.bus.metrics import BusMetrics
from appliance.bus.topics import (
    EXPERT_STATUS,
    NODE_ANNOUNCEMENT,
    NODE_STATUS,
    NODE_TELEMETRY,
    NODE_UPDATE,
    PLUG_READING,
)
from appliance.bus.update_messages import NodeUpdate
from appliance.http_server import process_registry
from appliance.node.clock import Clock
from appliance.node.dbus.connection import ADDRESS_VARIABLE, DEFAULT_ADDRESS, SystemBus
from appliance.node.dbus.logind import Logind
from appliance.node.dbus.systemd import Systemd
from appliance.node.energy.estimate import Estimate
from appliance.node.energy.ipmi import Ipmi
from appliance.node.energy.meter import Meter, Source
from appliance.node.energy.monitor import EnergyAccount, EnergyMetrics, EnergyMonitor, EnergyOptions
from appliance.node.energy.plug import Plug
from appliance.node.energy.rapl import Rapl
from appliance.node.hardware import read_hardware, read_macs
from appliance.node.identity import node_name
from appliance.node.paired import PairedNode
from appliance.node.sleeping.activity import ActivityWatch
from appliance.node.sleeping.alarm import AlarmClock
from appliance.node.sleeping.controller import SleepController, SleepParts
from appliance.node.sleeping.goodbye import Goodbye
from appliance.node.sleeping.metrics import SleepMetrics
from appliance.node.sleeping.policy import Decide, SleepOptions, always_on, never
from appliance.node.sleeping.wake_on_lan import nothing_wakes, read_wake_on_lan
from appliance.node.status import NodeCollector, StatusServer, is_loopback, served
from appliance.node.supervision import Supervision
from appliance.node.telemetry import Telemetry
from appliance.node.unit import tell_units
from appliance.node.updating import MakeUpdates, NodeParts, no_updates
from appliance.running import until
from appliance.security.ca.renewal import NodeRenewal
from appliance.security.layout import secret_file
from appliance.security.secrets import ensure_secret
from appliance.security.tls import renew
from appliance.settings.model import Settings


@dataclass(frozen=True, slots=True)
class PowerPlan:
    """How this node sleeps and counts its energy: whoever starts the daemon makes it, from other services' parts."""

    decide: Decide = never
    options: SleepOptions = field(default_factory=SleepOptions)
    update_running: Callable[[], bool] = lambda: False
    account: EnergyAccount | None = None
    """None counts nothing."""
    keep: Callable[[], Coroutine[Any, Any, None]] | None = None
    """Keeps the account on disk: runs beside everything else, until cancelled."""
    energy: EnergyOptions = field(default_factory=EnergyOptions)


async def run(
    settings: Settings,
    *,
    connection: Connection,
    environment: Mapping[str, str],
    stop: asyncio.Event,
    power: PowerPlan | None = None,
    ready: Callable[[], None] = lambda: None,
    expert_command: Sequence[str] = (sys.executable, "-m", "appliance", "expert", "--supervised"),
    worker_command: Sequence[str] = (sys.executable, "-m", "appliance", "rpc-worker", "--supervised"),
    first_boot: Callable[[], Mapping[str, Any]] | None = None,
    for_units: Path | None = None,
    preflight: Callable[[], Mapping[str, Any] | None] = lambda: None,
    updates: MakeUpdates = no_updates,
) -> None:
    """Run the daemon until `stop` is set.

    Args:
        settings: the effective settings.
        connection: the house's broker.
        environment: for the expert processes; it tells them where their configuration is, and where D-Bus is.
        stop: ends the daemon.
        power: how it sleeps; without, it never does by itself, but is prepared when others put it to sleep.
        ready: is called once, when everything runs.
        expert_command: what starts an expert, before its name.
        worker_command: what starts the RPC worker.
        first_boot: what is told of the first-boot file, where there is one.
        for_units: folder in which experts that are units look for their settings; without it they are left to find
            the daemon's own.
        preflight: reads what the check of the machine at its start came to, where there was one.
        updates: makes what updates the machine's image, where it runs one.

    Raises:
        StartError: that folder can't be written.
        BusConfigurationError: the broker refuses the daemon.
        SecretError: a key can't be read or made.
    """
    name = node_name(settings.node)
    plan = power or PowerPlan()
    expert_key = ensure_secret(secret_file(settings.paths.state, "expert.key"))
    paired = PairedNode.of(settings)
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(ssl=paired.client) if paired is not None else None
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        exported = process_registry()
        bus = Bus(
            connection,
            identifier=f"rouse-node-{name}",
            presence=(NODE_STATUS, {"node": name}),
            metrics=BusMetrics(exported),
        )
        system = SystemBus(environment.get(ADDRESS_VARIABLE, DEFAULT_ADDRESS))
        _forget_former_experts(bus, name, settings)

        async def report(status: ExpertStatus) -> None:
            await bus.keep(EXPERT_STATUS, status, node=name, expert=status.expert)

        systemd = Systemd(system)
        supervision = Supervision(
            settings=settings,
            node=name,
            http=http,
            advertise=lambda url: reachable(url, connection),
            key=expert_key,
            systemd=systemd,
            environment=environment,
            expert_command=expert_command,
            worker_command=worker_command,
        )
        if settings.node.supervisor == "systemd" and for_units is not None:
            await asyncio.to_thread(tell_units, settings, for_units)
        experts, workers = supervision.experts(report), supervision.workers()

        telemetry = Telemetry(settings.paths.models, experts)
        NodeCollector(experts=experts, telemetry=lambda: telemetry.last, registry=exported)

        async def refresh() -> None:
            await bus.keep(NODE_TELEMETRY, telemetry.read(), node=name)

        clock = Clock()
        logind = Logind(system)
        hub = "hub" in settings.node.roles
        activity = ActivityWatch([*experts, *workers], clock)
        updating = updates(NodeParts(name, bus=bus, systemd=systemd, logind=logind, activity=activity, experts=experts))
        if updating is None:
            _forget_former_update(bus, name)
        sleeping = SleepController(
            node=name,
            parts=SleepParts(
                bus=bus,
                logind=logind,
                activity=activity,
                goodbye=Goodbye(node=name, bus=bus, experts=experts),
                alarm=AlarmClock(),
                clock=clock,
                metrics=SleepMetrics(exported),
            ),
            decide=always_on if hub else plan.decide,
            options=SleepOptions() if hub else plan.options,
            nothing_wakes=lambda: nothing_wakes(read_wake_on_lan()),
            update_running=lambda: plan.update_running() or (updating is not None and updating.running),
            resumed=refresh,
        )
        renewal = _renewal(paired, bus, connection)
        energy = _energy(plan, name, bus=bus, telemetry=telemetry, clock=clock, registry=exported)

        await stack.enter_async_context(bus)
        await stack.enter_async_context(system)
        await bus.keep(NODE_ANNOUNCEMENT, _announcement(name, settings), node=name)
        host = settings.node.status_host
        key = None if is_loopback(host) else ensure_secret(secret_file(settings.paths.state, "metrics.key"))
        status = StatusServer(
            node=name,
            experts=experts,
            registry=exported,
            key=key,
            first_boot=first_boot,
            more=lambda: {
                "broker": {"address": f"{connection.host}:{connection.port}", "connected": bus.connected},
                **({"preflight": told} if (told := preflight()) is not None else {}),
            },
        )
        await stack.enter_async_context(served(status.application(), host=host, port=settings.node.status_port))
        jobs: dict[str, Callable[[], Coroutine[Any, Any, None]] | None] = {
            "telemetry": lambda: _publish_telemetry(refresh, settings),
            "sleep controller": sleeping.run,
            "renew the certificate": renewal.run if renewal is not None else None,
            "energy": energy.run if energy is not None else None,
            "energy account": plan.keep,
            "updates": updating.run if updating is not None else None,
            "bus": bus.refused,
        }
        tasks = [asyncio.create_task(expert.run(), name="supervise") for expert in (*experts, *workers)]
        tasks += [asyncio.create_task(job(), name=job_name) for job_name, job in jobs.items() if job is not None]
        ready()
        await until(stop, tasks)


def _renewal(paired: PairedNode | None, bus: Bus, connection: Connection) -> NodeRenewal | None:
    if paired is None:
        return None

    def changed() -> None:
        for context in (paired.client, connection.tls):
            if context is not None:
                renew(context, paired.identity())

    return NodeRenewal(node=paired.name, files=paired.files, bus=bus, changed=changed)


def _energy(
    plan: PowerPlan,
    name: str,
    *,
    bus: Bus,
    telemetry: Telemetry,
    clock: Clock,
    registry: CollectorRegistry,
) -> EnergyMonitor | None:
    if plan.account is None:
        return None

    def cpu() -> float:
        return telemetry.last.cpu if telemetry.last is not None else 0.0

    def busy() -> bool:
        return telemetry.last is not None and telemetry.last.active_requests > 0

    options = plan.energy
    plug = Plug(clock.monotonic)
    bus.subscribe(PLUG_READING, plug.take, node=name)
    measured: dict[Source, Meter] = {"plug": plug, "ipmi": Ipmi(), "rapl": Rapl(monotonic=clock.monotonic)}
    estimate = Estimate(idle_watts=options.idle_watts, busy_watts=options.busy_watts, cpu=cpu)
    return EnergyMonitor(
        node=name,
        bus=bus,
        meters=[*(measured[source] for source in options.sources if source in measured), estimate],
        account=plan.account,
        clock=clock,
        metrics=EnergyMetrics(registry),
        options=options,
        busy=busy,
    )


def _forget_former_experts(bus: Bus, name: str, settings: Settings) -> None:
    """Withdraw what an earlier run said of experts that are no longer in the settings."""

    async def check(status: ExpertStatus | None, levels: Mapping[str, str]) -> None:
        if status is not None and levels["expert"] not in settings.experts:
            await bus.withdraw(EXPERT_STATUS, **levels)

    bus.subscribe(EXPERT_STATUS, check, node=name)


def _forget_former_update(bus: Bus, name: str) -> None:
    """Withdraw what this machine said of its image, if it runs none any more."""

    async def check(update: NodeUpdate | None, _levels: Mapping[str, str]) -> None:
        if update is not None:
            await bus.withdraw(NODE_UPDATE, node=name)

    bus.subscribe(NODE_UPDATE, check, node=name)


def _announcement(name: str, settings: Settings) -> NodeAnnouncement:
    return NodeAnnouncement(
        node=name,
        name=settings.node.title or name,
        version=__version__,
        roles=settings.node.roles,
        hardware=read_hardware(),
        experts=tuple(settings.experts),
        macs=read_macs(),
    )


async def _publish_telemetry(refresh: Callable[[], Awaitable[None]], settings: Settings) -> None:
    while True:
        await refresh()
        await asyncio.sleep(settings.node.telemetry_interval)
