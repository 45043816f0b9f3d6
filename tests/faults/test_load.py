"""An expert that is killed while a hundred requests are in flight."""

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.house.appliance import MODEL
from tests.faults.house import House, events, running_house

pytestmark = [pytest.mark.broker, pytest.mark.model]

REQUESTS = 100
GROUP = "\n".join(f"[experts.{name}]\nqueue = 200\nslots = 4\nthreads = 1" for name in ("one", "two"))


@dataclass(slots=True)
class Stream:
    """What one client saw."""

    expert: str = ""
    attempts: int = 0
    begun: bool = False
    status: int = 0
    done: bool = False
    error: str | None = None


async def ask(house: House, number: int, stream: Stream) -> None:
    async with house.chat(f"Say {number}.", stream=True, max_tokens=6) as response:
        stream.status = response.status
        stream.expert = response.headers.get("X-Rouse-Expert", "")
        stream.attempts = int(response.headers.get("X-Rouse-Attempts", "0"))
        stream.begun = True
        body = await response.content.read()
    stream.done = body.endswith(b"data: [DONE]\n\n")
    last = events(body)[-1]
    stream.error = last["error"]["code"] if "error" in last else None


async def endpoint_of(house: House, expert: str) -> dict[str, object]:
    async with house.http.get(f"{house.url}/health", headers=house.headers) as response:
        endpoints = (await response.json())["endpoints"]
    return next((one for one in endpoints if one["expert"] == expert), {})


async def test_who_waits_is_answered_by_another_and_who_listens_hears_of_it(tmp_path: Path) -> None:
    two = {"one": MODEL, "two": MODEL}
    async with running_house(tmp_path, "amqtt", experts=two, group=GROUP) as house, asyncio.timeout(100):
        streams = [Stream() for _ in range(REQUESTS)]
        asking = [asyncio.create_task(ask(house, number, stream)) for number, stream in enumerate(streams)]
        while not any(stream.begun and stream.expert == "one" for stream in streams):
            await asyncio.sleep(0.005)
        # Suspended, the node can't tell the gateway that its expert is dead.
        node, expert = house.process("node"), house.expert("one")
        node.suspend()
        try:
            expert.kill()
            listening = [stream for stream in streams if stream.begun and stream.expert == "one"]
            while not any(stream.attempts > 1 for stream in streams):
                await asyncio.sleep(0.01)
            assert (await endpoint_of(house, "one"))["state"] != "closed"
        finally:
            node.resume()
        await asyncio.gather(*asking)

        broken = [stream for stream in streams if stream.error is not None]
        assert {stream.status for stream in streams} == {200}
        assert {(stream.error, stream.expert) for stream in broken} <= {("expert_failed", "one")}
        assert all(stream.done != (stream.error is not None) for stream in streams)
        assert all(stream.attempts == 1 for stream in broken)
        assert len(broken) <= len(listening) + 4, "only those that were being answered, in four slots"
        assert sum(stream.attempts > 1 and stream.done for stream in streams) > 0

        await house.observed.until_expert("one", "ready")
        await house.until_answered_by("one")
        assert (await endpoint_of(house, "one"))["state"] == "closed"
        async with house.http.get(f"{house.url}/metrics", headers=house.headers) as response:
            text = await response.text()
        assert 'rouse_gateway_breaker_openings_total{expert="one",node="demo"}' in text
        assert "rouse_gateway_active_requests 0.0" in text
        status = re.search(r"/metrics at (http://\S+)", house.log("node"))
        assert status is not None
        async with house.http.get(f"{status[1]}/metrics") as response:
            text = await response.text()
        assert 'rouse_node_expert_restarts_total{expert="one"} 1.0' in text
        assert 'rouse_node_expert_state{expert="one",state="ready"} 1.0' in text
