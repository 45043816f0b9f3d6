"""Choosing the smart plug of a node."""

from typing import Any

import probatio
from homeassistant.config_entries import ConfigEntryState, ConfigSubentryFlow, SubentryFlowResult
from homeassistant.helpers.selector import (
    EntitySelector,
    EntitySelectorConfig,
    SelectOptionDict,
    SelectSelector,
    SelectSelectorConfig,
)

from .const import CONF_NODE, CONF_POWER_SENSOR, CONF_SWITCH
from .hub import RouseConfigEntry

_PLUG = {
    probatio.Required(CONF_SWITCH): EntitySelector(EntitySelectorConfig(domain="switch")),
    probatio.Optional(CONF_POWER_SENSOR): EntitySelector(EntitySelectorConfig(domain="sensor", device_class="power")),
}


class PlugSubentryFlow(ConfigSubentryFlow):
    """Adds and changes a node's smart plug."""

    async def async_step_user(self, user_input: dict[str, Any] | None = None) -> SubentryFlowResult:
        """Choose a node that has none, and its plug."""
        entry: RouseConfigEntry = self._get_entry()
        if entry.state is not ConfigEntryState.LOADED:
            return self.async_abort(reason="not_loaded")
        taken = {subentry.unique_id for subentry in entry.subentries.values()}
        nodes = {name: announced.name or name for name, _, announced in entry.runtime_data.nodes() if name not in taken}
        if not nodes:
            return self.async_abort(reason="no_node")
        if user_input is not None:
            node = user_input[CONF_NODE]
            return self.async_create_entry(title=nodes.get(node, node), data=user_input, unique_id=node)
        options = [SelectOptionDict(value=name, label=title) for name, title in nodes.items()]
        schema = probatio.Schema(
            {probatio.Required(CONF_NODE): SelectSelector(SelectSelectorConfig(options=options)), **_PLUG}
        )
        return self.async_show_form(step_id="user", data_schema=schema)

    async def async_step_reconfigure(self, user_input: dict[str, Any] | None = None) -> SubentryFlowResult:
        """Change the plug of a node."""
        subentry = self._get_reconfigure_subentry()
        if user_input is not None:
            data = {CONF_NODE: subentry.data[CONF_NODE], **user_input}
            return self.async_update_and_abort(self._get_entry(), subentry, data=data)
        schema = self.add_suggested_values_to_schema(probatio.Schema(_PLUG), subentry.data)
        return self.async_show_form(
            step_id="reconfigure", data_schema=schema, description_placeholders={"node": subentry.title}
        )
