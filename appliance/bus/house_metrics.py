"""What the hub hears of the house's machines, as metrics: a machine that sleeps or is lost can't be asked itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from appliance.bus.client import Bus
from appliance.bus.messages import Presence
from appliance.bus.power_messages import NodeEnergy, NodePower
from appliance.bus.topics import NODE_ENERGY, NODE_POWER, NODE_STATUS, NODE_UPDATE
from appliance.bus.update_messages import NodeUpdate, UpdateState

UPDATING: frozenset[UpdateState] = frozenset({"downloading", "installing", "rebooting", "verifying"})
MAX_NODES = 1000
"""Nodes that are remembered: no flood of messages may fill the memory."""

HouseState = Literal["awake", "asleep", "off", "lost"]
"""`lost` is a node that went without a goodbye."""


@dataclass(slots=True)
class HeardNode:
    """The last that a node said."""

    presence: Presence | None = None
    power: NodePower | None = None
    energy: NodeEnergy | None = None
    update: NodeUpdate | None = None

    @property
    def state(self) -> HouseState | None:
        """How the node is, if it has said so."""
        if self.presence is None:
            return None
        if self.presence.state == "online":
            return "awake"
        if self.power is not None and self.power.state in {"asleep", "off"}:
            return "asleep" if self.power.state == "asleep" else "off"
        return "lost"


class HouseCollector(Collector):
    """What the nodes last said, read when it is asked for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Take the registry to join."""
        self._nodes: dict[str, HeardNode] = {}
        registry.register(self)

    def attach(self, bus: Bus) -> None:
        """Subscribe to what the nodes say."""
        bus.subscribe(NODE_STATUS, self._on_presence)
        bus.subscribe(NODE_POWER, self._on_power)
        bus.subscribe(NODE_ENERGY, self._on_energy)
        bus.subscribe(NODE_UPDATE, self._on_update)

    async def _on_presence(self, presence: Presence | None, levels: Mapping[str, str]) -> None:
        if presence is None:
            self._nodes.pop(levels["node"], None)
        elif (node := self.node(levels["node"])) is not None:
            node.presence = presence

    async def _on_power(self, power: NodePower | None, levels: Mapping[str, str]) -> None:
        if (node := self.node(levels["node"])) is not None:
            node.power = power

    async def _on_energy(self, energy: NodeEnergy | None, levels: Mapping[str, str]) -> None:
        if (node := self.node(levels["node"])) is not None:
            node.energy = energy

    async def _on_update(self, update: NodeUpdate | None, levels: Mapping[str, str]) -> None:
        if (node := self.node(levels["node"])) is not None:
            node.update = update

    def updating(self, name: str) -> bool:
        """Whether a node is in the middle of an update: its power must stay on then."""
        node = self._nodes.get(name)
        return node is not None and node.update is not None and node.update.state in UPDATING

    def node(self, name: str) -> HeardNode | None:
        """Return a node to note something of, or None when there are too many."""
        if name not in self._nodes and len(self._nodes) >= MAX_NODES:
            return None
        return self._nodes.setdefault(name, HeardNode())

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        state = GaugeMetricFamily(
            "rouse_house_node_state",
            "1 for the state that a node is in as the hub sees it: awake, asleep, off, or lost without a goodbye.",
            labels=["node", "state"],
        )
        watts = GaugeMetricFamily(
            "rouse_house_node_power_watts", "What a node last said that it draws, by source.", labels=["node", "source"]
        )
        used = CounterMetricFamily(
            "rouse_house_node_energy_used_kwh", "Energy that a node has used since it began to count.", labels=["node"]
        )
        saved = CounterMetricFamily(
            "rouse_house_node_energy_saved_kwh",
            "Energy that a node's sleep has saved against a machine that is always on.",
            labels=["node"],
        )
        update = GaugeMetricFamily(
            "rouse_house_node_update_state", "1 for the state that a node's update is in.", labels=["node", "state"]
        )
        for name, node in self._nodes.items():
            if node.update is not None:
                for possible in get_args(UpdateState):
                    update.add_metric([name, possible], float(node.update.state == possible))
            if node.state is not None:
                for possible in get_args(HouseState):
                    state.add_metric([name, possible], float(node.state == possible))
            if node.energy is not None:
                watts.add_metric([name, node.energy.source], node.energy.watts)
                used.add_metric([name], node.energy.used_kwh)
                saved.add_metric([name], node.energy.saved_kwh)
        yield from (state, watts, used, saved, update)
