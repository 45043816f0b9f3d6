from prometheus_client import CollectorRegistry

from appliance.bus.house_metrics import MAX_NODES, HouseCollector
from appliance.bus.messages import Presence
from appliance.bus.power_messages import NodeEnergy, NodePower
from appliance.bus.update_messages import NodeUpdate

ONLINE, OFFLINE = Presence(state="online"), Presence(state="offline")


def _state(registry: CollectorRegistry, node: str) -> str | None:
    for state in ("awake", "asleep", "off", "lost"):
        if registry.get_sample_value("rouse_house_node_state", {"node": node, "state": state}) == 1:
            return state
    return None


async def test_how_a_node_is() -> None:
    registry = CollectorRegistry()
    house = HouseCollector(registry)
    levels = {"node": "attic"}
    assert _state(registry, "attic") is None
    await house._on_power(NodePower(state="awake", since=1), levels)
    assert _state(registry, "attic") is None
    await house._on_presence(ONLINE, levels)
    assert _state(registry, "attic") == "awake"
    await house._on_presence(OFFLINE, levels)
    assert _state(registry, "attic") == "lost"
    await house._on_power(NodePower(state="asleep", since=2), levels)
    assert _state(registry, "attic") == "asleep"
    await house._on_power(NodePower(state="off", since=3), levels)
    assert _state(registry, "attic") == "off"
    await house._on_presence(None, levels)
    assert _state(registry, "attic") is None


async def test_energy() -> None:
    registry = CollectorRegistry()
    house = HouseCollector(registry)
    energy = NodeEnergy(source="plug", watts=12.5, used_kwh=3, saved_kwh=7, since=1)
    await house._on_energy(energy, {"node": "attic"})
    attic = {"node": "attic"}
    assert registry.get_sample_value("rouse_house_node_power_watts", {**attic, "source": "plug"}) == 12.5
    assert registry.get_sample_value("rouse_house_node_energy_used_kwh_total", attic) == 3
    assert registry.get_sample_value("rouse_house_node_energy_saved_kwh_total", attic) == 7


async def test_a_flood_of_nodes_fills_no_memory() -> None:
    registry = CollectorRegistry()
    house = HouseCollector(registry)
    for number in range(MAX_NODES + 100):
        await house._on_presence(ONLINE, {"node": f"n{number}"})
    assert house.node("one-more") is None
    assert house.node("n0") is not None


async def test_a_node_that_is_being_updated_is_known() -> None:
    house = HouseCollector(CollectorRegistry())
    for state, expected in (("idle", False), ("installing", True), ("verifying", True), ("rolled_back", False)):
        update = NodeUpdate.model_validate({"installed": "0.1.0", "state": state})
        await house._on_update(update, {"node": "attic"})
        assert house.updating("attic") is expected
    assert not house.updating("cellar")
