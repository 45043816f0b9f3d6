"""Two experts, one of which dies."""

from pathlib import Path

import pytest

from scripts.house.appliance import MODEL
from tests.faults.house import LONG, events, running_house

pytestmark = [pytest.mark.broker, pytest.mark.model]


async def test_the_fallback_answers_for_a_dead_expert_and_never_after_its_first_token(tmp_path: Path) -> None:
    two = {"large": MODEL, "small": MODEL}
    async with running_house(tmp_path, "amqtt", experts=two, group='[gateway]\nfallbacks = ["small"]') as house:
        assert await house.answers("large") == "large"
        async with house.chat(LONG, model="large", stream=True, max_tokens=1000, temperature=1.5) as response:
            begun = await response.content.readany()
            large = house.expert("large")
            large.kill()
            whole = begun + await response.content.read()
        assert response.headers["X-Rouse-Expert"] == "large"
        assert {event["model"] for event in events(whole) if "model" in event} == {"large"}
        assert events(whole)[-1]["error"]["code"] == "expert_failed"

        await house.observed.until_expert("large", "ready")
        # Stopped, the node can't tell the gateway that its expert is dead.
        node = house.process("node")
        large = house.expert("large")
        node.suspend()
        try:
            large.kill()
            assert await house.answers("large") == "small"
            async with house.http.get(f"{house.url}/metrics", headers=house.headers) as response:
                assert 'rouse_gateway_failovers_total{expert="large"} 1.0' in await response.text()
            assert "expert large on demo did not answer: Cannot connect" in house.log("hub")
        finally:
            node.resume()
        await house.observed.until_expert("large", "ready")
        assert await house.answers("large") == "large"
