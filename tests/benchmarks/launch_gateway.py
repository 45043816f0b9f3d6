"""The gateway in a process of its own, in front of one expert whose URL is given; prints its own URL.

It is made of the gateway's own classes as the hub makes it. The keys are read from the environment.
"""

import argparse
import asyncio
import os

import aiohttp
from aiohttp import web

from appliance.bus.messages import Capability, ExpertStatus
from appliance.gateway.dispatch import Dispatcher
from appliance.gateway.metrics import GatewayMetrics
from appliance.gateway.registry import ExpertRegistry
from appliance.gateway.server import GatewayServer
from appliance.http_server import http_runner
from appliance.settings.model import GatewaySettings


async def _serve(expert_url: str) -> None:
    key = os.environ["EXPERT_KEY"]
    registry, metrics, settings = ExpertRegistry(), GatewayMetrics(), GatewaySettings()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        dispatcher = Dispatcher(http=http, registry=registry, settings=settings, expert_key=key, metrics=metrics)
        server = GatewayServer(
            dispatcher=dispatcher,
            registry=registry,
            metrics=metrics,
            api_key=key,
            max_body_bytes=settings.max_body_bytes,
        )
        capabilities: tuple[Capability, ...] = ("chat", "completions", "tools")
        status = ExpertStatus(expert="bench", node="bench", state="ready", url=expert_url, capabilities=capabilities)
        await registry._on_expert(status, {"node": "bench", "expert": "bench"})
        runner = http_runner(server.application())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)  # noqa: T201  # this is its interface
        await asyncio.Event().wait()


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("expert", help="the expert's URL, with /v1")
    asyncio.run(_serve(parser.parse_args().expert))


if __name__ == "__main__":
    main()
