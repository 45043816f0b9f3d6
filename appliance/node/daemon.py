"""The node daemon: announces the machine, keeps its experts running, publishes telemetry."""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import aiohttp

from appliance import __version__
from appliance.bus.client import Bus
from appliance.bus.connection import Connection, reachable
from appliance.bus.messages import ExpertStatus, NodeAnnouncement
from appliance.bus.metrics import BusMetrics
from appliance.bus.topics import EXPERT_STATUS, NODE_ANNOUNCEMENT, NODE_STATUS, NODE_TELEMETRY
from appliance.http_server import process_registry
from appliance.node.expert import ExpertProcess
from appliance.node.hardware import read_hardware, read_macs
from appliance.node.identity import node_name
from appliance.node.status import NodeCollector, StatusServer, is_loopback, served
from appliance.node.telemetry import Telemetry
from appliance.running import until
from appliance.security.broker import secrets_folder
from appliance.security.secrets import ensure_secret
from appliance.settings.model import Settings


async def run(
    settings: Settings,
    *,
    connection: Connection,
    environment: Mapping[str, str],
    stop: asyncio.Event,
    expert_command: Sequence[str] = (sys.executable, "-m", "appliance", "expert", "--supervised"),
    worker_command: Sequence[str] = (sys.executable, "-m", "appliance", "rpc-worker", "--supervised"),
    first_boot: Callable[[], Mapping[str, Any]] | None = None,
) -> None:
    """Run the daemon until `stop` is set.

    Args:
        settings: the effective settings.
        connection: the house's broker.
        environment: for the expert processes; it tells them where their configuration is.
        stop: ends the daemon.
        expert_command: what starts an expert, before its name.
        worker_command: what starts the RPC worker.
        first_boot: what is told of the first-boot file, where there is one.

    Raises:
        BusConfigurationError: the broker refuses the daemon.
        SecretError: the key for /metrics can't be read or made.
    """
    name = node_name(settings.node)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        exported = process_registry()
        bus = Bus(
            connection,
            identifier=f"rouse-node-{name}",
            presence=(NODE_STATUS, {"node": name}),
            metrics=BusMetrics(exported),
        )
        _forget_former_experts(bus, name, settings)
        await stack.enter_async_context(bus)
        await bus.keep(NODE_ANNOUNCEMENT, _announcement(name, settings), node=name)

        async def report(status: ExpertStatus) -> None:
            await bus.keep(EXPERT_STATUS, status, node=name, expert=status.expert)

        experts = [
            ExpertProcess(
                name=expert,
                node=name,
                command=(*expert_command, expert),
                environment=environment,
                http=http,
                report=report,
                advertise=lambda url: reachable(url, connection),
            )
            for expert in settings.experts
        ]
        telemetry = Telemetry(settings.paths.models, experts)
        NodeCollector(experts=experts, telemetry=lambda: telemetry.last, registry=exported)
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
        tasks = [asyncio.create_task(expert.run(), name="supervise") for expert in experts]
        if settings.rpc_worker.enabled:
            worker = ExpertProcess(
                name="rpc-worker",
                node=name,
                command=worker_command,
                environment=environment,
                http=http,
                report=_say_nothing,
            )
            tasks.append(asyncio.create_task(worker.run(), name="supervise the RPC worker"))
        tasks.append(asyncio.create_task(_publish_telemetry(bus, name, settings, telemetry), name="telemetry"))
        tasks.append(asyncio.create_task(bus.refused(), name="bus"))
        await until(stop, tasks)


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


async def _publish_telemetry(bus: Bus, name: str, settings: Settings, telemetry: Telemetry) -> None:
    while True:
        await bus.keep(NODE_TELEMETRY, telemetry.read(), node=name)
        await asyncio.sleep(settings.node.telemetry_interval)
