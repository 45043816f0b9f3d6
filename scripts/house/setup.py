"""Sets a fresh Home Assistant up as its owner would: broker, Rouse, rooms, Assist and a dashboard."""

import asyncio
from typing import Any

from scripts.house.home_assistant import HomeAssistant, HomeAssistantError

LIGHTS = {"kitchen_light": "Kitchen Light", "bedroom_lamp": "Bedroom Lamp", "porch_light": "Porch Light"}
DASHBOARD = "rouse-house"
EXPERT = "sensor.this_computer_expert_small"
OWN_NAME = {"type": "entity"}
"""Shows an entity without its device's name."""
ROOMS = {"light.kitchen_light": "Kitchen", "light.bedroom_lamp": "Bedroom", "light.porch_light": "Porch"}


async def furnish(house: HomeAssistant) -> str:
    """Set everything but the broker up and return the conversation entity that answers."""
    await add_rouse(house)
    agent = await find_agent(house)
    await house.wait_for_state(agent, seconds=120)
    if await house.wait_for_state(EXPERT, "ready", "failed", seconds=180) == "failed":
        raise HomeAssistantError("the expert failed")
    # A template light has no state before it is first switched.
    await house.post("/api/services/light/turn_off", {"entity_id": list(ROOMS)})
    await arrange_rooms(house)
    await use_agent(house, agent)
    await save_dashboard(house)
    return agent


async def add_broker(house: HomeAssistant, *, port: int, password: str, protocol: str) -> None:
    """Add the MQTT integration by its config flow; the hub's own broker speaks protocol 3.1.1 only."""
    await house.add_integration(
        "mqtt",
        {
            "broker": "127.0.0.1",
            "port": port,
            "protocol": protocol,
            "username": "homeassistant",
            "password": password,
            "other_settings": {"set_client_cert": False, "set_ca_cert": "off", "transport": "tcp"},
        },
    )


async def add_rouse(house: HomeAssistant) -> None:
    """Confirm the hub that Home Assistant discovered on the bus."""
    flow = await house.discovered("rouse", seconds=120)
    await house.post(f"/api/config/config_entries/flow/{flow['flow_id']}", {})


async def find_agent(house: HomeAssistant, seconds: float = 60) -> str:
    """Wait for the integration's conversation entity and return its id."""
    async with asyncio.timeout(seconds):
        while True:
            for entity in await own_entities(house):
                if entity.startswith("conversation."):
                    return entity
            await asyncio.sleep(0.2)


async def own_entities(house: HomeAssistant) -> list[str]:
    """Return the ids of the integration's enabled entities."""
    entities: list[dict[str, Any]] = await house.command("config/entity_registry/list")
    return sorted(e["entity_id"] for e in entities if e["platform"] == "rouse" and not e["disabled_by"])


async def arrange_rooms(house: HomeAssistant) -> None:
    """Put each light into its room."""
    areas = {area["name"]: area["area_id"] for area in await house.command("config/area_registry/list")}
    for entity_id, room in ROOMS.items():
        if room not in areas:
            areas[room] = (await house.command("config/area_registry/create", name=room))["area_id"]
        await house.command("config/entity_registry/update", entity_id=entity_id, area_id=areas[room])


async def use_agent(house: HomeAssistant, agent: str) -> None:
    """Make the agent the one that Assist asks, for everything."""
    pipeline = await house.command(
        "assist_pipeline/pipeline/create",
        name="Rouse",
        language="en",
        conversation_engine=agent,
        conversation_language="en",
        prefer_local_intents=False,
        stt_engine=None,
        stt_language=None,
        tts_engine=None,
        tts_language=None,
        tts_voice=None,
        wake_word_entity=None,
        wake_word_id=None,
    )
    await house.command("assist_pipeline/pipeline/set_preferred", pipeline_id=pipeline["id"])


async def save_dashboard(house: HomeAssistant) -> None:
    """Make a dashboard of the lights and of what the integration offers, and the one that opens first."""
    entities = await own_entities(house)
    agents = [entity for entity in entities if entity.startswith("conversation.")]
    gauges = [entity for entity in entities if entity.endswith(("_processor_use", "_memory_use"))]
    others = [entity for entity in entities if entity not in agents + gauges]
    node = [
        *(_card("tile", entity, name=OWN_NAME) for entity in others),
        *(_card("gauge", entity, name=OWN_NAME, grid_options={"columns": 6}) for entity in gauges),
    ]
    house_cards = [_card("tile", entity) for entity in (*ROOMS, *agents)]
    sections = [
        _section("House", "mdi:lightbulb", house_cards),
        _section("This computer", "mdi:desktop-tower", node),
    ]
    view = {"title": "House", "type": "sections", "max_columns": 2, "sections": sections}
    await house.command("lovelace/dashboards/create", url_path=DASHBOARD, title="House", icon="mdi:home")
    await house.command("lovelace/config/save", url_path=DASHBOARD, config={"title": "House", "views": [view]})
    await house.command("frontend/set_system_data", key="core", value={"default_panel": DASHBOARD})


def _section(title: str, icon: str, cards: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "grid", "cards": [{"type": "heading", "heading": title, "icon": icon}, *cards]}


def _card(kind: str, entity: str, **options: Any) -> dict[str, Any]:
    return {"type": kind, "entity": entity, **options}
