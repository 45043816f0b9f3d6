"""Two experts, one of which dies."""

import re
from pathlib import Path

import pytest

from scripts.house.appliance import MODEL
from tests.faults.house import ENDLESS, LONG, House, events, running_house

pytestmark = [pytest.mark.broker, pytest.mark.model]


async def failovers(house: House) -> float:
    """How often another expert had to be asked for the large one."""
    async with house.http.get(f"{house.url}/metrics", headers=house.headers) as response:
        found = re.search(
            r'^rouse_gateway_failovers_total\{expert="large"\} (\S+)$', await response.text(), re.MULTILINE
        )
    return float(found[1]) if found else 0.0


async def test_the_fallback_answers_for_a_dead_expert_and_never_after_its_first_token(tmp_path: Path) -> None:
    two = {"large": MODEL, "small": MODEL}
    async with running_house(tmp_path, "amqtt", experts=two, group='[gateway]\nfallbacks = ["small"]') as house:
        await house.until_answered_by("large")
        async with house.chat(LONG, model="large", **ENDLESS) as response:
            begun = await response.content.readany()
            large = house.expert("large")
            large.kill()
            whole = begun + await response.content.read()
        assert response.headers["X-Rouse-Expert"] == "large"
        assert {event["model"] for event in events(whole) if "model" in event} == {"large"}
        assert events(whole)[-1]["error"]["code"] == "expert_failed"

        await house.observed.until_expert("large", "failed")
        await house.observed.until_expert("large", "ready")
        await house.until_answered_by("large")
        before = await failovers(house)
        # Stopped, the node can't tell the gateway that its expert is dead.
        node = house.process("node")
        large = house.expert("large")
        node.suspend()
        try:
            large.kill()
            assert await house.answers("large") == "small"
            assert await failovers(house) == before + 1
            assert house.log("hub").count("expert large on demo did not answer") == before + 1
        finally:
            node.resume()
        await house.observed.until_expert("large", "failed")
        await house.observed.until_expert("large", "ready")
        await house.until_answered_by("large")
