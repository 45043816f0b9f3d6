from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from scripts.house.appliance import MODEL
from scripts.house.mosquitto import program
from tests.faults.house import House, running_house


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if MODEL.is_file():
        return
    for item in items:
        if item.path.is_relative_to(__file__.rpartition("/")[0]):
            item.add_marker(pytest.mark.skip(reason=f"there is no model at {MODEL}; run make setup"))


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["amqtt", "mosquitto"])
async def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """An appliance on either broker, shared by the tests of a module."""
    if request.param == "mosquitto" and program() is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    async with running_house(tmp_path_factory.mktemp(request.param), request.param) as running:
        yield running
