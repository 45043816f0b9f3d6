"""The node daemon: announces the machine, keeps its experts running, publishes telemetry."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from prometheus_client import CollectorRegistry

from appliance import __version__
from appliance.bus.client import Bus
from appliance.bus.connection import Connection, reachable
from appliance.bus.messages import ExpertStatus, NodeAnnouncement
from appliance.bus.metrics import BusMetrics
from appliance.bus.topics import EXPERT_STATUS, NODE_ANNOUNCEMENT, NODE_STATUS, NODE_TELEMETRY, PLUG_READING
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
from appliance.node.expert import ExpertProcess
from appliance.node.hardware import read_hardware, read_macs
from appliance.node.identity import node_name
from appliance.node.sleeping.activity import ActivityWatch
from appliance.node.sleeping.alarm import AlarmClock
from appliance.node.sleeping.controller import SleepController, SleepParts
from appliance.node.sleeping.goodbye import Goodbye
from appliance.node.sleeping.metrics import SleepMetrics
from appliance.node.sleeping.policy import Decide, SleepOptions, always_on, never
from appliance.node.sleeping.wake_on_lan import nothing_wakes, read_wake_on_lan
from appliance.node.status import NodeCollector, StatusServer, is_loopback, served
from appliance.node.supervised import Report, SupervisedExpert
from appliance.node.telemetry import Telemetry
from appliance.node.unit import ExpertUnit
from appliance.running import until
from appliance.security.broker import secrets_folder
from appliance.security.secrets import ensure_secret
from appliance.settings.model import Settings


@dataclass(frozen=True, slots=True)
class PowerPlan:
    """How this node sleeps and counts its energy: whoever starts the daemon makes it, from other services' parts."""

    decide: Decide = never
    options: SleepOptions = field(default_factory=SleepOptions)
    update_running: Callable[[], bool] = lambda: False
    account: EnergyAccount | None = None
    """None counts nothing."""
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

    Raises:
        BusConfigurationError: the broker refuses the daemon.
        SecretError: a key can't be read or made.
    """
    name = node_name(settings.node)
    plan = power or PowerPlan()
    expert_key = ensure_secret(secrets_folder(settings) / "expert.key")
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
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

        def child(expert: str, command: Sequence[str], report: Report) -> ExpertProcess:
            return ExpertProcess(
                name=expert,
                node=name,
                command=command,
                environment=environment,
                http=http,
                report=report,
                advertise=lambda url: reachable(url, connection),
                key=expert_key,
            )

        experts: list[SupervisedExpert]
        if settings.node.supervisor == "systemd":
            systemd = Systemd(system)
            experts = [
                ExpertUnit(
                    name=expert,
                    node=name,
                    systemd=systemd,
                    http=http,
                    report=report,
                    advertise=lambda url: reachable(url, connection),
                    key=expert_key,
                )
                for expert in settings.experts
            ]
        else:
            experts = [child(expert, (*expert_command, expert), report) for expert in settings.experts]
        workers = [child("rpc-worker", worker_command, _say_nothing)] if settings.rpc_worker.enabled else []

        telemetry = Telemetry(settings.paths.models, experts)
        NodeCollector(experts=experts, telemetry=lambda: telemetry.last, registry=exported)

        async def refresh() -> None:
            await bus.keep(NODE_TELEMETRY, telemetry.read(), node=name)

        clock = Clock()
        logind = Logind(system)
        hub = "hub" in settings.node.roles
        sleeping = SleepController(
            node=name,
            parts=SleepParts(
                bus=bus,
                logind=logind,
                activity=ActivityWatch([*experts, *workers], clock),
                goodbye=Goodbye(node=name, bus=bus, experts=experts),
                alarm=AlarmClock(),
                clock=clock,
                metrics=SleepMetrics(exported),
            ),
            decide=always_on if hub else plan.decide,
            options=SleepOptions() if hub else plan.options,
            nothing_wakes=lambda: nothing_wakes(read_wake_on_lan()),
            update_running=plan.update_running,
            resumed=refresh,
        )
        energy = _energy(plan, name, bus=bus, telemetry=telemetry, clock=clock, registry=exported)

        await stack.enter_async_context(bus)
        await stack.enter_async_context(system)
        await bus.keep(NODE_ANNOUNCEMENT, _announcement(name, settings), node=name)
        host = settings.node.status_host
        key = None if is_loopback(host) else ensure_secret(secrets_folder(settings) / "metrics.key")
        status = StatusServer(
            node=name,
            experts=experts,
            registry=exported,
            key=key,
            first_boot=first_boot,
            more=lambda: {"broker": {"address": f"{connection.host}:{connection.port}", "connected": bus.connected}},
        )
        await stack.enter_async_context(served(status.application(), host=host, port=settings.node.status_port))
        tasks = [asyncio.create_task(expert.run(), name="supervise") for expert in (*experts, *workers)]
        tasks.append(asyncio.create_task(_publish_telemetry(refresh, settings), name="telemetry"))
        tasks.append(asyncio.create_task(sleeping.run(), name="sleep controller"))
        if energy is not None:
            tasks.append(asyncio.create_task(energy.run(), name="energy"))
        tasks.append(asyncio.create_task(bus.refused(), name="bus"))
        ready()
        await until(stop, tasks)


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


async def _say_nothing(_status: ExpertStatus) -> None:
    """A worker is no expert that the gateway could ask; the experts that use it say how it is."""


def _forget_former_experts(bus: Bus, name: str, settings: Settings) -> None:
    """Withdraw what an earlier run said of experts that are no longer in the settings."""

    async def check(status: ExpertStatus | None, levels: Mapping[str, str]) -> None:
        if status is not None and levels["expert"] not in settings.experts:
            await bus.withdraw(EXPERT_STATUS, **levels)

    bus.subscribe(EXPERT_STATUS, check, node=name)


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
