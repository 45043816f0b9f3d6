"""The last rung: a program of the user's, which sends a break or SysRq over a serial console, or whatever helps."""

from collections.abc import Mapping
from pathlib import Path

from appliance.power.errors import RungError
from appliance.power.nodes import KnownNode
from appliance.power.recovery.programs import run
from appliance.power.recovery.rungs import Done, RungName
from appliance.settings.waking import RecoveryNodeSettings


class ScriptRung:
    """Runs the program with the node's name as its only argument; what it says is the evidence."""

    name: RungName = "script"
    switches_power = True

    def __init__(
        self, *, nodes: Mapping[str, RecoveryNodeSettings], seconds: float, patience: float, path: str
    ) -> None:
        """Take the programs by node, how long one may run, the seconds for a machine's start, and PATH."""
        self.patience = patience
        self._seconds = seconds
        self._path = path
        self._programs: dict[str, Path] = {name: one.script for name, one in nodes.items() if one.script is not None}

    def serves(self, node: str) -> bool:
        """Whether there is a program for the node."""
        return node in self._programs

    async def act(self, node: KnownNode) -> Done:
        """Run it."""
        program = self._programs[node.name]
        ran = await run(program, [node.name], environment={"PATH": self._path, "LC_ALL": "C"}, seconds=self._seconds)
        if ran.status:
            raise RungError(f"{program} ended with {ran.status}: {ran.said[-300:]}")
        return Done(f"{program} ended well" + (f": {ran.said[-300:]}" if ran.said else ""))
