"""What the node daemon tells over HTTP."""

import logging
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import pytest

from appliance.bus.messages import NodeTelemetry
from appliance.http_server import process_registry
from appliance.node.status import NodeCollector, StatusServer, is_loopback, served
from appliance.node.supervised import ExpertLoad, ExpertState


class Expert:
    """An expert that a test moves through its states."""

    name = "small"
    state: ExpertState = "ready"
    restarts = 2
    load = ExpertLoad(active=1, queued=3, generated_tokens=40)


class Node:
    """A node's HTTP server."""

    def __init__(self, url: str, expert: Expert, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.expert = expert
        self.http = http
        self.telemetry: NodeTelemetry | None = None

    async def metrics(self, key: str = "") -> tuple[int, str]:
        async with self.http.get(f"{self.url}/metrics", headers={"Authorization": f"Bearer {key}"}) as response:
            return response.status, await response.text()


@pytest.fixture(params=[None, "key"], ids=["loopback", "opened"])
async def node(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Node]:
    async with AsyncExitStack() as stack:
        registry, expert = process_registry(), Expert()
        server = StatusServer(node="attic", experts=[expert], registry=registry, key=request.param)
        with caplog.at_level(logging.INFO, logger="appliance.node.status"):
            await stack.enter_async_context(served(server.application(), host="127.0.0.1", port=0))
        found = re.search(r"http://\S+", caplog.text)
        assert found is not None
        node = Node(found[0], expert, await stack.enter_async_context(aiohttp.ClientSession()))
        NodeCollector(experts=[expert], telemetry=lambda: node.telemetry, registry=registry)
        yield node


async def test_health_tells_the_state_of_each_expert(node: Node) -> None:
    async with node.http.get(f"{node.url}/health") as response:
        assert await response.json() == {"status": "ok", "node": "attic", "experts": {"small": "ready"}}
    node.expert.state = "failed"
    async with node.http.get(f"{node.url}/health") as response:
        assert (await response.json())["status"] == "degraded"


async def test_metrics_of_the_experts_and_of_the_machine(node: Node) -> None:
    status, text = await node.metrics("key")
    assert status == 200
    for line in (
        'rouse_node_expert_state{expert="small",state="ready"} 1.0',
        'rouse_node_expert_state{expert="small",state="failed"} 0.0',
        'rouse_node_expert_restarts_total{expert="small"} 2.0',
        'rouse_node_expert_queued_requests{expert="small"} 3.0',
        'rouse_node_expert_generated_tokens_total{expert="small"} 40.0',
    ):
        assert f"{line}\n" in text
    assert "\nrouse_node_cpu_ratio " not in text
    node.telemetry = NodeTelemetry(cpu=0.5, memory=0.25, disk=0.1, uptime=9)
    _, text = await node.metrics("key")
    assert "\nrouse_node_cpu_ratio 0.5\n" in text
    assert "\nrouse_node_temperature_celsius " not in text
    assert "process_resident_memory_bytes" in text


async def test_who_opens_the_metrics_needs_their_key(node: Node, request: pytest.FixtureRequest) -> None:
    opened = "opened" in request.node.name
    for wrong in ("", "kei", "\xfc"):
        status, text = await node.metrics(wrong)
        assert status == (401 if opened else 200)
        assert ("rouse_" in text) is not opened


async def test_a_port_that_is_taken_is_said_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    server = StatusServer(node="attic", experts=[], registry=process_registry(), key=None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with served(server.application(), host="127.0.0.1", port=taken.getsockname()[1]):
            assert "Set node.status_port." in caplog.text


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("lan", False)],  # noqa: S104
)
def test_what_only_this_machine_reaches(host: str, expected: bool) -> None:  # noqa: FBT001
    assert is_loopback(host) is expected
