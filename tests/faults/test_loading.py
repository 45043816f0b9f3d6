"""A request that comes while the model is still being loaded."""

from pathlib import Path

import pytest

from tests.faults.house import running_house

pytestmark = [pytest.mark.broker, pytest.mark.model]


async def test_it_is_answered_when_the_model_is_there(tmp_path: Path) -> None:
    async with running_house(tmp_path, "amqtt") as house:
        house.expert("small").kill()
        await house.observed.until_expert("small", "starting")
        # Frozen, the expert loads for as long as the test wants.
        expert = house.expert("small")
        expert.suspend()
        try:
            await house.client.ask("patient-request", seconds=60)
            await house.client.ask("impatient-request", seconds=1)
            given_up = await house.client.final("impatient-request", seconds=20)
            assert (given_up.kind, given_up.code) == ("failed", "expired")
            assert house.client.replies("patient-request") == []
        finally:
            expert.resume()
        answer = await house.client.final("patient-request", seconds=60)
        assert (answer.kind, answer.expert) == ("finished", "small")
