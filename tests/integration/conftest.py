"""A real Home Assistant core with the integration, and a fake hub on its MQTT bus."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fake_hub import Broker, FakeHub
from homeassistant.const import CONF_LLM_HASS_API, CONF_TIMEOUT
from homeassistant.core import HomeAssistant
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.typing import MqttMockHAClient

from custom_components.rouse.const import CONF_HUB, DOMAIN

HOME_ASSISTANTS_OWN_WARNINGS = ("ignore::aiohttp.web_exceptions.NotAppKeyWarning",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let Home Assistant's own warnings pass; the integration's stay errors."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            for warning in HOME_ASSISTANTS_OWN_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(autouse=True)
def custom_integrations(request: pytest.FixtureRequest) -> None:
    """Let Home Assistant find the integration in the repository."""
    if "hass" in request.fixturenames:
        request.getfixturevalue("enable_custom_integrations")


@pytest.fixture
async def mqtt_mock(hass: HomeAssistant, mqtt_mock: MqttMockHAClient) -> AsyncIterator[MqttMockHAClient]:
    """Home Assistant's MQTT client without the timer that only a real socket's end would stop."""
    yield mqtt_mock
    for client in (mqtt_mock, hass.data["mqtt"].client):
        if timer := client.return_value._misc_timer:
            timer.cancel()


@pytest.fixture
def timeout() -> float:
    """Seconds the integration waits for an answer; override it to see it give up."""
    return 20


@pytest.fixture
def llm_apis() -> list[str]:
    return ["assist"]


@pytest.fixture
def entry(hass: HomeAssistant, timeout: float, llm_apis: list[str]) -> MockConfigEntry:
    entry = MockConfigEntry(
        domain=DOMAIN,
        unique_id="hub-1",
        title="Rouse",
        data={CONF_HUB: "hub-1"},
        options={CONF_LLM_HASS_API: llm_apis, CONF_TIMEOUT: timeout},
    )
    entry.add_to_hass(hass)
    return entry


@pytest.fixture
async def bus(hass: HomeAssistant, mqtt_mock: MqttMockHAClient) -> FakeHub:
    """A hub that has not said anything yet."""
    assert mqtt_mock.connected
    assert await async_setup_component(hass, "homeassistant", {})
    hub = FakeHub(hass)
    await hub.start()
    return hub


@pytest.fixture
async def hub(hass: HomeAssistant, bus: FakeHub, entry: MockConfigEntry) -> FakeHub:
    """A hub that is there, known to a loaded config entry."""
    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    bus.come()
    await hass.async_block_till_done()
    return bus


@pytest.fixture
def broker(hass: HomeAssistant, mqtt_mock: MqttMockHAClient) -> Broker:
    return Broker(hass, mqtt_mock)
