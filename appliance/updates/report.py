"""What a node says of its updates on the bus: the last of it is kept there."""

import time
from dataclasses import dataclass, field, replace

from appliance.bus.client import Bus
from appliance.bus.topics import NODE_UPDATE
from appliance.bus.update_messages import NodeUpdate, UpdateState
from appliance.updates.versions import is_newer

_LEAST_STEP = 0.01
_LEAST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Said:
    state: UpdateState = "idle"
    version: str | None = None
    progress: float | None = None
    detail: str = ""
    error: str | None = None
    command: str | None = None


@dataclass(slots=True)
class UpdateReport:
    """One node's updates, as people see them.

    Attributes:
        node: its name.
        bus: where it is said.
        installed: the version that runs.
        notes: address of the notes about a version, with `{version}` in it.
        latest: the newest version that is published, where that is known.
        checked: when that was looked for; Unix time.
        previous: what is in the other slot.
    """

    node: str
    bus: Bus
    installed: str
    notes: str | None = None
    latest: str | None = None
    checked: float | None = None
    previous: str | None = None
    _said: _Said = field(default_factory=_Said)
    _when: float = 0.0

    @property
    def state(self) -> UpdateState:
        """What was last said."""
        return self._said.state

    def take(self, command: str) -> None:
        """Note the command that is carried out next."""
        self._said = replace(self._said, command=command)

    async def say(
        self, state: UpdateState, *, version: str | None = None, progress: float | None = None, detail: str = ""
    ) -> None:
        """Say what is being done now."""
        self._said = _Said(state, version, progress, detail[:1000], None, self._said.command)
        await self._publish()

    async def say_trouble(self, state: UpdateState, error: str, *, version: str | None = None) -> None:
        """Say what did not work."""
        self._said = _Said(state, version, None, "", error[:1000], self._said.command)
        await self._publish()

    async def step(self, progress: float, detail: str) -> None:
        """Say how far it is, unless that was said a moment ago."""
        before = self._said.progress or 0.0
        small = abs(progress - before) < _LEAST_STEP or time.monotonic() - self._when < _LEAST_SECONDS
        if detail[:1000] == self._said.detail and small:
            return
        self._said = replace(self._said, progress=progress, detail=detail[:1000])
        await self._publish()

    async def _publish(self) -> None:
        self._when = time.monotonic()
        latest = self.latest
        if latest is not None and not is_newer(latest, self.installed):
            latest = self.installed
        known = self.notes is not None and latest is not None
        message = NodeUpdate(
            installed=self.installed,
            latest=latest,
            state=self._said.state,
            version=self._said.version,
            previous=self.previous,
            progress=self._said.progress,
            detail=self._said.detail,
            error=self._said.error,
            notes_url=(self.notes or "").replace("{version}", latest or "") if known else None,
            checked=self.checked,
            command=self._said.command,
        )
        await self.bus.keep(NODE_UPDATE, message, node=self.node)
