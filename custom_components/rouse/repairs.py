"""Nodes that are missed and could not be brought back, as Home Assistant's repairs."""

from typing import Any

import probatio
from homeassistant.components.repairs import RepairsFlow
from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import issue_registry as ir
from homeassistant.helpers.dispatcher import async_dispatcher_connect

from .const import DOMAIN
from .hub import REPAIRS, Hub, RouseConfigEntry
from .messages import RepairNotice
from .power import async_command

MAX_TRIED = 1000
"""Characters of the list of what was tried."""


@callback
def async_track_repairs(hass: HomeAssistant, entry: RouseConfigEntry) -> None:
    """Show a repair for each notice for as long as the config entry is loaded."""
    hub = entry.runtime_data
    shown: dict[str, RepairNotice] = {}

    @callback
    def update() -> None:
        missed = {name: node.repair for name, node, _ in hub.nodes() if node.repair}
        for name in shown - missed.keys():
            ir.async_delete_issue(hass, DOMAIN, _issue(entry, name))
        for name, notice in missed.items():
            if shown.get(name) != notice:  # one that a user has dealt with does not come back by itself
                _create(hass, entry, name, notice)
        shown.clear()
        shown.update(missed)

    @callback
    def clear() -> None:
        for name in shown:
            ir.async_delete_issue(hass, DOMAIN, _issue(entry, name))

    entry.async_on_unload(async_dispatcher_connect(hass, hub.signal(REPAIRS), update))
    entry.async_on_unload(clear)
    update()


def _issue(entry: RouseConfigEntry, node: str) -> str:
    return f"missing_{entry.entry_id}_{node}"


def _create(hass: HomeAssistant, entry: RouseConfigEntry, name: str, notice: RepairNotice) -> None:
    node = entry.runtime_data.node(name)
    title = node.announcement.name if node and node.announcement else ""
    tried = "\n".join(f"- {step.rung}: {step.evidence or step.outcome}" for step in notice.steps)
    ir.async_create_issue(
        hass,
        DOMAIN,
        _issue(entry, name),
        data={"entry_id": entry.entry_id, "node": name, "name": title or name},
        is_fixable=True,
        severity=ir.IssueSeverity.ERROR,
        translation_key=notice.problem,
        translation_placeholders={"node": title or name, "tried": tried[:MAX_TRIED] or "-"},
    )


class MissingNodeFlow(RepairsFlow):
    """Has the hub try again."""

    def __init__(self, hub: Hub, node: str, name: str) -> None:
        self._hub = hub
        self._node = node
        self._name = name

    async def async_step_init(self, user_input: dict[str, Any] | None = None) -> Any:  # noqa: ARG002 - a first step
        """Begin."""
        return await self.async_step_confirm()

    async def async_step_confirm(self, user_input: dict[str, Any] | None = None) -> Any:
        """Ask, and then ask the hub. The repair goes when the node is back."""
        if user_input is None:
            return self.async_show_form(
                step_id="confirm", data_schema=probatio.Schema({}), description_placeholders={"node": self._name}
            )
        await async_command(self._hub, self._node, "recover", "asked for in Home Assistant's repairs")
        return self.async_create_entry(data={})


async def async_create_fix_flow(
    hass: HomeAssistant, issue_id: str, data: dict[str, str | int | float | None] | None
) -> RepairsFlow:
    """Return the flow for a repair."""
    entry: RouseConfigEntry | None = hass.config_entries.async_get_entry(str(data["entry_id"])) if data else None
    if data is None or entry is None or entry.state is not ConfigEntryState.LOADED:
        raise ValueError(f"nothing is known of {issue_id} any more")
    return MissingNodeFlow(entry.runtime_data, str(data["node"]), str(data["name"]))
