"""The hub's composition root: broker, gateway, agents and power, built here and nowhere else."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import aiohttp
from aiohttp import web

from appliance import __version__
from appliance.agents.conversation import ConversationAgent
from appliance.agents.metrics import AgentMetrics
from appliance.agents.model import ModelClient
from appliance.bus.broker import EmbeddedBroker, Listener, server_tls
from appliance.bus.client import Bus
from appliance.bus.connection import reachable
from appliance.bus.house_metrics import HouseCollector
from appliance.bus.messages import HubAnnouncement
from appliance.bus.metrics import BusMetrics
from appliance.bus.topics import HUB_ANNOUNCEMENT, HUB_STATUS
from appliance.errors import StartError
from appliance.gateway.request import AGENT_PREFIX
from appliance.gateway.service import running_gateway
from appliance.http_server import http_runner, process_registry
from appliance.node.identity import node_name
from appliance.pairing.hub_ledger import Offices
from appliance.pairing.hub_service import hub_pairing
from appliance.power.demand_keeper import DemandKeeper
from appliance.power.service import PowerService, experts_of
from appliance.power.zone import house_zone
from appliance.routing.live import LiveRouter
from appliance.routing.rules import rules_of
from appliance.routing.versions import router_folder
from appliance.running import until
from appliance.security.broker import LiveAccounts, connect_to, nodes_host
from appliance.security.ca.metrics import CertificateCollector
from appliance.security.ca.names import RESERVED
from appliance.security.ca.renewal_desk import RenewalDesk
from appliance.security.house import House, house
from appliance.security.layout import hub_folder, secret_file
from appliance.security.mosquitto import MosquittoFolder
from appliance.security.secrets import ensure_secret
from appliance.settings.model import Settings

_log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class HubAddresses:
    """Where the hub really listens."""

    broker_port: int | None
    """None with an external broker."""
    nodes_port: int | None
    """Where the embedded broker listens for nodes; None when it does not."""
    gateway_url: str


async def run(
    settings: Settings,
    *,
    stop: asyncio.Event,
    ready: Callable[[HubAddresses], None],
) -> None:
    """Run the hub until `stop` is set.

    Args:
        settings: the effective settings.
        stop: ends the hub.
        ready: is called once when everything listens.

    Raises:
        StartError: an address is taken, or a certificate can't be read.
        BusConfigurationError: the broker's settings can't work, or the broker refuses them.
        SecretError: a secret can't be read or made.
        CaError: the certificate authority can't be used.
    """
    api_key = ensure_secret(secret_file(settings.paths.state, "gateway.key"))
    expert_key = ensure_secret(secret_file(settings.paths.state, "expert.key"))
    name = node_name(settings.node)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        offices = house(settings, name=name)
        await asyncio.to_thread(offices.prepare)
        broker = await _broker(settings, offices, stack)
        connection = connect_to(settings, port=broker.port if broker else None)
        exported = process_registry()
        CertificateCollector(lambda: offices.trust.ends, exported)
        bus = Bus(connection, identifier=f"rouse-hub-{name}", presence=(HUB_STATUS, {}), metrics=BusMetrics(exported))
        router = LiveRouter(folder=router_folder(settings.paths.state), rules=rules_of(settings))
        await asyncio.to_thread(router.start)
        zone = house_zone(settings.system.time_zone)
        demand = await asyncio.to_thread(DemandKeeper, hub_folder(settings.paths.state) / "power", zone)
        heard = HouseCollector(exported)
        heard.attach(bus)
        power = PowerService(
            hub=name,
            bus=bus,
            http=http,
            wake=settings.wake,
            recovery=settings.recovery,
            agents=experts_of(settings.agents, settings.gateway),
            zone=zone,
            state=settings.paths.state,
            registry=exported,
            forecast=demand,
            updating=heard.updating,
        )
        await power.load()
        gateway = await stack.enter_async_context(
            running_gateway(
                settings=settings.gateway,
                agents=settings.agents,
                expert_key=expert_key,
                api_key=api_key,
                router=router,
                exported=exported,
                trust=offices.trust,
                waker=power.waker,
                wanted=power.note_demand,
            )
        )
        gateway.registry.attach(bus)
        gateway_url = await _serve(gateway.application, settings, stack)

        def model(agent: str) -> ModelClient:
            return ModelClient(http=http, url=f"{gateway_url}/v1", api_key=api_key, model=f"{AGENT_PREFIX}{agent}")

        agent_metrics = AgentMetrics(exported)
        agents = [
            ConversationAgent(name=agent, settings=agent_settings, bus=bus, model=model(agent), metrics=agent_metrics)
            for agent, agent_settings in settings.agents.items()
        ]

        nodes_port = broker.ports[1] if broker is not None and len(broker.ports) > 1 else None
        pairing = hub_pairing(
            settings,
            hub=name,
            bus=bus,
            http=http,
            offices=Offices(offices.trust.authority, offices.nodes, expert_key=expert_key, reserved=RESERVED | {name}),
            nodes_port=nodes_port,
        )
        renewals = RenewalDesk(bus=bus, authority=offices.trust.authority, days=settings.pairing.certificate_days)
        offices.trust.when_changed(renewals.tell)
        if offices.mosquitto is not None:
            offices.trust.when_changed(partial(_write_for_mosquitto, offices.mosquitto))
        if broker is not None:
            offices.trust.when_changed(partial(_drop_the_revoked, broker, offices))
            offices.nodes.when_changed(partial(_drop_soon, asyncio.get_running_loop(), broker))
        await stack.enter_async_context(bus)
        await renewals.tell()
        await stack.enter_async_context(pairing)
        watching = await stack.enter_async_context(power.running())
        public = settings.gateway.host not in LOOPBACK
        announcement = HubAnnouncement(
            hub=name,
            name="Rouse",
            version=__version__,
            gateway_url=reachable(f"{gateway_url}/v1", connection) if public else None,
        )
        await bus.keep(HUB_ANNOUNCEMENT, announcement)
        for agent in agents:
            await stack.enter_async_context(agent)
        _log.info("hub %s is up; the gateway answers at %s/v1", name, gateway_url)
        port = broker.port if broker is not None else None
        ready(HubAddresses(broker_port=port, nodes_port=nodes_port, gateway_url=gateway_url))
        tasks = [
            asyncio.create_task(bus.refused(), name="bus"),
            asyncio.create_task(pairing.look(), name="look for nodes"),
            asyncio.create_task(offices.trust.watch(), name="watch the certificates"),
            asyncio.create_task(demand.run(), name="demand"),
            *watching,
        ]
        await until(stop, tasks)


async def _broker(settings: Settings, offices: House, stack: AsyncExitStack) -> EmbeddedBroker | None:
    """Start the embedded broker, unless there is another one: for this machine and Home Assistant, and for nodes."""
    broker = settings.broker
    if broker.url is not None or broker.own == "mosquitto":
        return None
    tls = None
    if broker.listen_cert_file is not None and broker.listen_key_file is not None:
        tls = server_tls(broker.listen_cert_file, broker.listen_key_file)
    for_nodes = []
    if (host := nodes_host(broker)) is not None:
        for_nodes = [Listener(host, broker.nodes_port, offices.trust.server.context, setting="broker.nodes_port")]
    return await stack.enter_async_context(
        EmbeddedBroker(
            host=broker.listen_host,
            port=broker.listen_port,
            accounts=LiveAccounts(offices.own, offices.nodes),
            tls=tls,
            more=for_nodes,
        )
    )


async def _write_for_mosquitto(mosquitto: MosquittoFolder) -> None:
    await asyncio.to_thread(mosquitto.write)


async def _drop_the_revoked(broker: EmbeddedBroker, offices: House) -> None:
    for node in offices.nodes.all.keys() - offices.trust.nodes:
        await broker.drop(node)


def _drop_soon(loop: asyncio.AbstractEventLoop, broker: EmbeddedBroker, node: str) -> None:
    """End the connections of a node whose account has changed; called in another thread."""
    asyncio.run_coroutine_threadsafe(broker.drop(node), loop)


async def _serve(app: web.Application, settings: Settings, stack: AsyncExitStack) -> str:
    """Start the gateway and return its base URL."""
    runner = http_runner(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    host, port = settings.gateway.host, settings.gateway.port
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise StartError(
            f"the gateway can't listen on {host}:{port}: {error.strerror}. Set gateway.port to a free port."
        ) from error
    bound = runner.addresses[0][1]
    return f"http://{f'[{host}]' if ':' in host else host}:{bound}"
