"""How the nodes and their experts are doing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, get_args

from homeassistant.components.sensor import (
    SensorDeviceClass,
    SensorEntity,
    SensorEntityDescription,
    SensorStateClass,
)
from homeassistant.const import PERCENTAGE, EntityCategory, UnitOfEnergy, UnitOfTemperature
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.util import dt as dt_util

from .entity import LastingNodeEntity, NodeEntity, async_track_entities
from .hub import Hub, Node, RouseConfigEntry
from .messages import ExpertState, ExpertStatus, NodeEnergy, NodeTelemetry, PowerState

PARALLEL_UPDATES = 0
MAX_ERROR_LENGTH = 255
MAX_BLOCKERS = 10


@dataclass(frozen=True, kw_only=True)
class NodeSensorDescription(SensorEntityDescription):
    """Describes a reading of a node's telemetry."""

    value_fn: Callable[[NodeTelemetry], float | datetime | None]
    exists_fn: Callable[[Node], bool] = lambda _: True


def _share(key: str, value_fn: Callable[[NodeTelemetry], float]) -> NodeSensorDescription:
    return NodeSensorDescription(
        key=key,
        translation_key=key,
        entity_category=EntityCategory.DIAGNOSTIC,
        native_unit_of_measurement=PERCENTAGE,
        state_class=SensorStateClass.MEASUREMENT,
        suggested_display_precision=0,
        value_fn=lambda telemetry: 100 * value_fn(telemetry),
    )


DESCRIPTIONS = (
    _share("cpu", lambda telemetry: telemetry.cpu),
    _share("memory", lambda telemetry: telemetry.memory),
    _share("disk", lambda telemetry: telemetry.disk),
    NodeSensorDescription(
        key="temperature",
        translation_key="temperature",
        device_class=SensorDeviceClass.TEMPERATURE,
        entity_category=EntityCategory.DIAGNOSTIC,
        native_unit_of_measurement=UnitOfTemperature.CELSIUS,
        state_class=SensorStateClass.MEASUREMENT,
        value_fn=lambda telemetry: telemetry.temperature,
        exists_fn=lambda node: node.has_temperature,
    ),
    NodeSensorDescription(
        key="last_boot",
        translation_key="last_boot",
        device_class=SensorDeviceClass.UPTIME,
        entity_category=EntityCategory.DIAGNOSTIC,
        entity_registry_enabled_default=False,
        value_fn=lambda telemetry: dt_util.utcnow() - timedelta(seconds=telemetry.uptime),
    ),
    NodeSensorDescription(
        key="active_requests",
        translation_key="active_requests",
        state_class=SensorStateClass.MEASUREMENT,
        value_fn=lambda telemetry: telemetry.active_requests,
    ),
    NodeSensorDescription(
        key="queued_requests",
        translation_key="queued_requests",
        state_class=SensorStateClass.MEASUREMENT,
        value_fn=lambda telemetry: telemetry.queued_requests,
    ),
    NodeSensorDescription(
        key="generated_tokens",
        translation_key="generated_tokens",
        state_class=SensorStateClass.TOTAL_INCREASING,
        value_fn=lambda telemetry: telemetry.generated_tokens,
    ),
)


@dataclass(frozen=True, kw_only=True)
class EnergySensorDescription(SensorEntityDescription):
    """Describes a reading of a node's energy account."""

    value_fn: Callable[[NodeEnergy], float]


def _kwh(key: str, value_fn: Callable[[NodeEnergy], float]) -> EnergySensorDescription:
    return EnergySensorDescription(
        key=key,
        translation_key=key,
        device_class=SensorDeviceClass.ENERGY,
        native_unit_of_measurement=UnitOfEnergy.KILO_WATT_HOUR,
        state_class=SensorStateClass.TOTAL_INCREASING,
        suggested_display_precision=2,
        value_fn=value_fn,
    )


ENERGY_DESCRIPTIONS = (
    _kwh("energy_used", lambda energy: energy.used_kwh),
    _kwh("energy_saved", lambda energy: energy.saved_kwh),
)


async def async_setup_entry(
    hass: HomeAssistant, entry: RouseConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add the sensors of each node."""

    def sensors(hub: Hub) -> Iterator[NodeSensor | PowerSensor | EnergySensor | ExpertSensor]:
        for name, node, _ in hub.nodes():
            if node.has_power:
                yield PowerSensor(hub, name)
            if node.has_energy:
                yield from (EnergySensor(hub, name, description) for description in ENERGY_DESCRIPTIONS)
            for description in DESCRIPTIONS:
                if description.exists_fn(node):
                    yield NodeSensor(hub, name, description)
            for expert in node.experts:
                yield ExpertSensor(hub, name, expert)

    async_track_entities(hass, entry, async_add_entities, sensors)


class NodeSensor(NodeEntity, SensorEntity):
    """A reading of a node's telemetry."""

    entity_description: NodeSensorDescription

    def __init__(self, hub: Hub, name: str, description: NodeSensorDescription) -> None:
        super().__init__(hub, name, description.key)
        self.entity_description = description

    @property
    def native_value(self) -> float | datetime | None:
        """The latest reading."""
        if self.node is None or self.node.telemetry is None:
            return None
        return self.entity_description.value_fn(self.node.telemetry)


class PowerSensor(LastingNodeEntity, SensorEntity):
    """Whether a node is awake, and why."""

    _attr_device_class = SensorDeviceClass.ENUM
    _attr_translation_key = "power"
    _attr_options = [*get_args(PowerState), "lost"]  # noqa: RUF012 - Home Assistant's way

    def __init__(self, hub: Hub, name: str) -> None:
        super().__init__(hub, name, "power")

    @property
    def native_value(self) -> str | None:
        """What the node does."""
        return self.node.state if self.node and self.node.power else None

    @property
    def extra_state_attributes(self) -> dict[str, Any]:
        """Why, and what keeps it from sleeping."""
        power = self.node.power if self.node else None
        if power is None:
            return {}
        return {
            "reason": power.reason[:MAX_ERROR_LENGTH],
            "blockers": [blocker[:MAX_ERROR_LENGTH] for blocker in power.blockers[:MAX_BLOCKERS]],
        }


class EnergySensor(LastingNodeEntity, SensorEntity):
    """What a node has used, or saved."""

    entity_description: EnergySensorDescription

    def __init__(self, hub: Hub, name: str, description: EnergySensorDescription) -> None:
        super().__init__(hub, name, description.key)
        self.entity_description = description

    @property
    def native_value(self) -> float | None:
        """The sum since the node began to count."""
        energy = self.node.energy if self.node else None
        return self.entity_description.value_fn(energy) if energy else None

    @property
    def extra_state_attributes(self) -> dict[str, Any]:
        """How it is known: measured, and by what, or estimated from the settings."""
        energy = self.node.energy if self.node else None
        return {"source": energy.source, "baseline": energy.baseline} if energy else {}


class ExpertSensor(NodeEntity, SensorEntity):
    """Whether an expert is ready."""

    _attr_device_class = SensorDeviceClass.ENUM
    _attr_translation_key = "expert"

    def __init__(self, hub: Hub, name: str, expert: str) -> None:
        super().__init__(hub, name, f"experts/{expert}")
        self._expert = expert
        self._attr_options = list(get_args(ExpertState))
        self._attr_translation_placeholders = {"expert": expert}

    @property
    def _status(self) -> ExpertStatus | None:
        return self.node.experts.get(self._expert) if self.node else None

    @property
    def exists(self) -> bool:
        """Whether the node still has the expert."""
        return self._status is not None

    @property
    def native_value(self) -> str | None:
        """The expert's state."""
        return self._status.state if self._status else None

    @property
    def extra_state_attributes(self) -> dict[str, Any]:
        """What the expert serves, or why it doesn't."""
        if self._status is None:
            return {}
        return {
            "model": self._status.model,
            "context": self._status.context,
            "error": self._status.error and self._status.error[:MAX_ERROR_LENGTH],
        }
