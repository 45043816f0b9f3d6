"""The hub's composition root: broker, gateway and agents, built here and nowhere else."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from appliance import __version__
from appliance.agents.conversation import ConversationAgent
from appliance.agents.metrics import AgentMetrics
from appliance.agents.model import ModelClient
from appliance.bus.broker import EmbeddedBroker, server_tls
from appliance.bus.client import Bus
from appliance.bus.connection import Connection, reachable
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
from appliance.routing.live import LiveRouter
from appliance.routing.rules import rules_of
from appliance.routing.versions import router_folder
from appliance.running import until
from appliance.security.broker import accounts, connect_to, secrets_folder
from appliance.security.secrets import ensure_secret
from appliance.settings.model import Settings

_log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class HubAddresses:
    """Where the hub really listens."""

    broker_port: int | None
    """None with an external broker."""
    gateway_url: str


async def run(
    settings: Settings,
    *,
    stop: asyncio.Event,
    ready: Callable[[HubAddresses], None],
    offices: Offices | None = None,
) -> None:
    """Run the hub until `stop` is set.

    Args:
        settings: the effective settings.
        stop: ends the hub.
        ready: is called once when everything listens.
        offices: the CA and the broker's accounts; without them this hub pairs with no nodes.

    Raises:
        StartError: an address is taken, or a certificate can't be read.
        BusConfigurationError: the broker's settings can't work, or the broker refuses them.
        SecretError: a secret can't be read or made.
    """
    api_key = ensure_secret(secrets_folder(settings) / "gateway.key")
    expert_key = ensure_secret(secrets_folder(settings) / "expert.key")
    name = node_name(settings.node)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        connection, broker_port = await _broker(settings, stack)
        exported = process_registry()
        bus = Bus(connection, identifier=f"rouse-hub-{name}", presence=(HUB_STATUS, {}), metrics=BusMetrics(exported))
        router = LiveRouter(folder=router_folder(settings.paths.state), rules=rules_of(settings))
        await asyncio.to_thread(router.start)
        gateway = await stack.enter_async_context(
            running_gateway(
                settings=settings.gateway,
                agents=settings.agents,
                expert_key=expert_key,
                api_key=api_key,
                router=router,
                exported=exported,
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

        pairing = None
        if offices is not None:
            pairing = hub_pairing(settings, hub=name, bus=bus, http=http, offices=offices, broker_port=broker_port)
        await stack.enter_async_context(bus)
        if pairing is not None:
            await stack.enter_async_context(pairing)
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
        ready(HubAddresses(broker_port=broker_port, gateway_url=gateway_url))
        tasks = [asyncio.create_task(bus.refused(), name="bus")]
        if pairing is not None:
            tasks.append(asyncio.create_task(pairing.look(), name="look for nodes"))
        await until(stop, tasks)


async def _broker(settings: Settings, stack: AsyncExitStack) -> tuple[Connection, int | None]:
    if settings.broker.url is not None:
        return connect_to(settings), None
    tls = None
    if settings.broker.listen_cert_file is not None and settings.broker.listen_key_file is not None:
        tls = server_tls(settings.broker.listen_cert_file, settings.broker.listen_key_file)
    broker = await stack.enter_async_context(
        EmbeddedBroker(
            host=settings.broker.listen_host,
            port=settings.broker.listen_port,
            accounts=accounts(settings),
            tls=tls,
        )
    )
    return connect_to(settings, port=broker.port), broker.port


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
