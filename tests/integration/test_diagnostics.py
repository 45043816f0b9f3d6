import json

import pytest
from fake_hub import FakeHub, device
from homeassistant.const import CONF_PROMPT
from homeassistant.core import HomeAssistant
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.components.diagnostics import (
    get_diagnostics_for_config_entry,
    get_diagnostics_for_device,
)
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator

SECRETS = ("pirate", "192.0.2.7", "00:1b:21:3c:4d:5e", "/srv/models")


@pytest.fixture
async def house(hass: HomeAssistant, hub: FakeHub, entry: MockConfigEntry) -> FakeHub:
    """A hub with a node, and things that must not leak."""
    hass.config_entries.async_update_entry(entry, options={**entry.options, CONF_PROMPT: "Talk like a pirate."})
    hub.add_node()
    hub.say_golden("hub_announcement", gateway_url="http://192.0.2.7:8100/v1")
    hub.say_golden("expert_status_failed", error="/srv/models/small.gguf is not a GGUF file")
    await hass.async_block_till_done()
    assert await async_setup_component(hass, "diagnostics", {})
    return hub


@pytest.mark.usefixtures("house")
async def test_config_entry(hass: HomeAssistant, hass_client: ClientSessionGenerator, entry: MockConfigEntry) -> None:
    data = await get_diagnostics_for_config_entry(hass, hass_client, entry)

    assert data["hub"]["online"]
    assert data["hub"]["pending_requests"] == 0
    assert data["options"]["prompt"] == "**REDACTED**"
    assert data["agents"][0]["agent"] == "home"
    assert data["nodes"]["attic"]["telemetry"]["cpu"] == 0.25
    assert data["nodes"]["attic"]["experts"]["small"]["state"] == "failed"
    assert not [secret for secret in SECRETS if secret in json.dumps(data)]


@pytest.mark.usefixtures("house")
@pytest.mark.parametrize(("identifier", "key"), [("hub-1", "hub"), ("hub-1/attic", "node")])
async def test_device(
    hass: HomeAssistant,
    hass_client: ClientSessionGenerator,
    entry: MockConfigEntry,
    identifier: str,
    key: str,
) -> None:
    found = device(hass, entry, identifier)
    assert found

    data = await get_diagnostics_for_device(hass, hass_client, entry, found)

    assert data.keys() == {key}
    assert not [secret for secret in SECRETS if secret in json.dumps(data)]
