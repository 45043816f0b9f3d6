"""The gateway's parts, put together."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from aiohttp import web
from prometheus_client import CollectorRegistry

from appliance.gateway.balance import Balance
from appliance.gateway.dispatch import Dispatcher
from appliance.gateway.externals import AccessBook, NodeTrust, external_experts
from appliance.gateway.health import Health
from appliance.gateway.metrics import EndpointCollector, EndpointState, GatewayMetrics
from appliance.gateway.plan import Planner
from appliance.gateway.probes import Prober
from appliance.gateway.registry import ExpertRegistry
from appliance.gateway.request import AGENT_PREFIX
from appliance.gateway.server import GatewayServer
from appliance.gateway.upstream import Upstream
from appliance.gateway.waking import Bedroom, Waker
from appliance.routing.candidates import AUTO, Policy
from appliance.routing.decision import Router
from appliance.settings.model import AgentSettings, GatewaySettings


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that is ready to be served."""

    application: web.Application
    registry: ExpertRegistry
    """To be attached to the bus."""


@asynccontextmanager
async def running_gateway(
    *,
    settings: GatewaySettings,
    agents: Mapping[str, AgentSettings],
    expert_key: str,
    api_key: str,
    router: Router | None,
    exported: CollectorRegistry,
    trust: NodeTrust | None = None,
    waker: Waker | None = None,
    wanted: Callable[[str], None] = lambda _expert: None,
) -> AsyncIterator[Gateway]:
    """Build a gateway; leaving closes its connections.

    Args:
        settings: the gateway's own.
        agents: by name; what they say of experts is their policy.
        expert_key: what the house's experts want to see.
        api_key: what clients must send.
        router: chooses experts by a request's text.
        exported: the registry that /metrics shows; the gateway's metrics join it.
        trust: how nodes that have a certificate are verified.
        waker: wakes the machines of experts that sleep; without one they are not asked.
        wanted: is told which expert each request wants, so that demand can be learned.

    Raises:
        SecretError: the key of an external expert can't be read.
        StartError: its certificates can't be read.
    """
    metrics = GatewayMetrics(exported)
    health = Health(opened=metrics.count_opening)
    balance = Balance()
    externals = external_experts(settings.externals)
    registry = ExpertRegistry(
        health=health, balance=balance, externals=[external.endpoint for external in externals.values()]
    )

    def states() -> Iterable[EndpointState]:
        for one in registry.ready:
            yield EndpointState(
                one.name, one.node, health.state(one.key), balance.in_flight(one.key), balance.load(one)
            )

    EndpointCollector(states, exported)
    bedroom = Bedroom(registry=registry, waker=waker, metrics=metrics, patience=settings.first_token_timeout)
    planner = Planner(
        registry=registry,
        health=health,
        balance=balance,
        bedroom=bedroom,
        router=router,
        metrics=metrics,
        patience=settings.first_token_timeout,
        wanted=wanted,
    )
    access = AccessBook(expert_key=expert_key, externals=externals, trust=trust)
    try:
        async with Upstream(settings=settings, access=access) as upstream:
            prober = Prober(
                upstream=upstream,
                registry=registry,
                health=health,
                balance=balance,
                metrics=metrics,
                interval=settings.probe_interval,
            )
            dispatcher = Dispatcher(
                upstream=upstream,
                planner=planner,
                bedroom=bedroom,
                health=health,
                balance=balance,
                settings=settings,
                metrics=metrics,
            )
            server = GatewayServer(
                dispatcher=dispatcher,
                registry=registry,
                bedroom=bedroom,
                states=states,
                policies=policies(settings, agents),
                metrics=metrics,
                exported=exported,
                api_key=api_key,
                max_body_bytes=settings.max_body_bytes,
                max_requests=settings.max_requests,
                keep_alive_after=settings.keep_alive_after,
            )
            async with prober:
                yield Gateway(server.application(), registry)
    finally:
        planner.close()


def policies(settings: GatewaySettings, agents: Mapping[str, AgentSettings]) -> dict[str, Policy]:
    """Return in which order experts are asked by what a request may give as its model: `auto`, or an agent."""
    standard = Policy(fallbacks=settings.fallbacks, always_on=settings.always_on, while_asleep=settings.while_asleep)
    of_agents = {
        f"{AGENT_PREFIX}{name}": replace(
            standard,
            experts=(agent.expert, *agent.fallbacks),
            source="agent",
            while_asleep=agent.while_asleep or settings.while_asleep,
        )
        for name, agent in agents.items()
    }
    return {AUTO: standard, **of_agents}
