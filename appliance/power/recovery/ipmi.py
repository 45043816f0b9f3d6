"""The second rung: the machine's management controller, by ipmitool's `chassis power`.

The password is in ipmitool's environment (IPMITOOL_PASSWORD, option -E): only root and this service's own user can read
it there, whereas a command line is for all to see.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from appliance.power.errors import RungError
from appliance.power.nodes import KnownNode
from appliance.power.recovery.programs import Ran, run
from appliance.power.recovery.rungs import Done, RungName
from appliance.security.secrets import SecretError, read_secret
from appliance.settings.waking import IpmiSettings, RecoveryNodeSettings

PROGRAM = "ipmitool"
COMMAND_SECONDS = 30.0
"""Controllers are slow, and ipmitool repeats what is not answered."""


@dataclass(frozen=True, slots=True)
class _Controller:
    host: str
    settings: IpmiSettings


class IpmiRung:
    """Switches the power on, or off and on where it is on."""

    name: RungName = "ipmi"
    switches_power = True

    def __init__(self, *, nodes: Mapping[str, RecoveryNodeSettings], patience: float, path: str) -> None:
        """Take the controllers by node, the seconds for a machine's start, and where programs are (PATH)."""
        self.patience = patience
        self._path = path
        self._controllers = {
            name: _Controller(one.ipmi.host, one.ipmi) for name, one in nodes.items() if one.ipmi.host is not None
        }

    def serves(self, node: str) -> bool:
        """Whether a controller of the node is known."""
        return node in self._controllers

    async def act(self, node: KnownNode) -> Done:
        """Ask for the power's state, then switch it on, or off and on."""
        controller = self._controllers[node.name]
        password = await asyncio.to_thread(_password, controller.settings)
        status = await self._power(controller, password, "status")
        action = "cycle" if status.said.casefold().endswith("is on") else "on"
        done = await self._power(controller, password, action)
        return Done(f"{status.said}; chassis power {action}: {done.said or 'done'}".replace(password, "…"))

    async def _power(self, controller: _Controller, password: str, action: str) -> Ran:
        settings = controller.settings
        arguments = ["-I", settings.interface, "-H", controller.host, "-U", settings.user, "-E"]
        ran = await run(
            PROGRAM,
            [*arguments, "chassis", "power", action],
            environment={"IPMITOOL_PASSWORD": password, "PATH": self._path, "LC_ALL": "C"},
            seconds=COMMAND_SECONDS,
        )
        if ran.status:
            said = ran.said.replace(password, "…")[-300:]
            raise RungError(f"ipmitool chassis power {action} ended with {ran.status}: {said}")
        return ran


def _password(settings: IpmiSettings) -> str:
    if settings.password_file is not None:
        try:
            return read_secret(settings.password_file)
        except SecretError as error:
            raise RungError(str(error)) from error
    return settings.password.get_secret_value() if settings.password is not None else ""
