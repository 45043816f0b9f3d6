"""One node's updates: looks for new versions, obeys the bus, installs when nobody needs the machine.

A version passes: checking → downloading → installing → rebooting → (the machine starts) verifying → idle, or failed, or
rolled_back. What is between two starts is in the notebook.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from appliance.bus.client import Bus
from appliance.bus.topics import UPDATE_COMMAND
from appliance.bus.update_messages import UpdateCommand
from appliance.settings.updates import UpdateSettings
from appliance.updates import records
from appliance.updates.errors import InstallError, RefusedError, UpdateError
from appliance.updates.health import FAILURE
from appliance.updates.host import COMPLETE_UNIT, Host
from appliance.updates.hours import within
from appliance.updates.image import ImagePaths, came_up
from appliance.updates.installation import Installation
from appliance.updates.memory import Attempt, Memory, Notebook, Wish
from appliance.updates.published import Architecture
from appliance.updates.report import UpdateReport
from appliance.updates.slots import Slots, read_slots
from appliance.updates.source import opened
from appliance.updates.staging import Index, Staging
from appliance.updates.versions import is_newer

_log = logging.getLogger(__name__)

_TICK_SECONDS = 30.0
_LOOK_SECONDS = 2.0
_VERIFY_SECONDS = 3600.0
_REMEMBERED_COMMANDS = 64
_SPREAD = 0.1
_NO_RESTART = "the machine was to restart, and did not; the version starts whenever it does"


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often it looks; tests look more often."""

    tick: float = _TICK_SECONDS
    look: float = _LOOK_SECONDS


class UpdateService:
    """Looks after one node's image; `run` it until it is cancelled."""

    def __init__(
        self,
        *,
        node: str,
        installed: str,
        architecture: Architecture,
        settings: UpdateSettings,
        bus: Bus,
        host: Host,
        paths: ImagePaths,
        slots: Callable[[], Slots] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
        rhythm: Rhythm | None = None,
    ) -> None:
        """Take what it works with, before the bus is entered."""
        self._settings = settings
        self._host = host
        self._paths = paths
        self._now = now
        self._rhythm = rhythm or Rhythm()
        self._installed = installed
        self._slots = slots or partial(read_slots, architecture)
        self._notebook = Notebook(paths.staged)
        self._memory = Memory()
        self._staging = Staging(paths.staged, keys=paths.keys, architecture=architecture)
        self._report = UpdateReport(node=node, bus=bus, installed=installed, notes=settings.notes_url)
        self._begun = 0.0
        """When an automatic update was begun last; it is not begun again at once."""
        self._commands: asyncio.Queue[UpdateCommand] = asyncio.Queue(maxsize=_REMEMBERED_COMMANDS)
        self._seen: deque[str] = deque(maxlen=_REMEMBERED_COMMANDS)
        self._spread = random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 - so that not all ask at once
        bus.subscribe(UPDATE_COMMAND, self._take, node=node)

    @property
    def running(self) -> bool:
        """Whether the machine must stay awake for an update."""
        return self._report.state in {"downloading", "installing", "rebooting", "verifying"}

    async def run(self) -> None:
        """Settle what was begun before this start; then look, obey and install, until cancelled."""
        self._memory = self._notebook.memory
        self._report.latest, self._report.checked = self._memory.latest, self._memory.checked
        await self._read_other_slot()
        await self._settle()
        wish = self._memory.wish
        while True:
            command = None
            if wish is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._rhythm.tick):
                        command = await self._commands.get()
            try:
                if wish is not None:
                    _log.info("going on with the update to version %s", wish.version)
                    wished, wish = wish, None
                    await self._install(wished.version, downgrade=wished.downgrade)
                elif command is not None:
                    await self._obey(command)
                else:
                    await self._do_what_is_due()
            except UpdateError as error:
                _log.warning("update: %s", error)
                await self._report.say_trouble("failed", str(error), version=self._wanted(command))
            except OSError as error:
                _log.exception("update")
                await self._report.say_trouble("failed", f"the disk: {error}", version=self._wanted(command))

    # ---- what is to be done

    async def _take(self, command: UpdateCommand | None, _levels: Mapping[str, str]) -> None:
        if command is None or command.id in self._seen:
            return
        self._seen.append(command.id)
        if self._commands.full():
            _log.warning("too many commands wait; one to %s is dropped", command.action)
            return
        self._commands.put_nowait(command)

    async def _obey(self, command: UpdateCommand) -> None:
        self._report.take(command.id)
        match command.action:
            case "check":
                await self._check()
            case "install":
                await self._install(command.version, downgrade=command.downgrade)
            case "rollback":
                await self._go_back()

    async def _do_what_is_due(self) -> None:
        if self._settings.source is None:
            return
        checked, now = self._memory.checked or 0.0, self._now().timestamp()
        due = self._settings.check_interval * self._spread
        # A clock that was set back must not put the next look off for years.
        if now - checked >= due or checked > now + due:
            await self._check()
        latest = self._memory.latest
        if (
            self._settings.install == "automatic"
            and latest is not None
            and is_newer(latest, self._installed)
            and latest not in self._memory.skipped
            and within(self._settings.hours, self._now())
            and abs(now - self._begun) >= due
        ):
            self._begun = now
            await self._install(latest, downgrade=False)

    def _wanted(self, command: UpdateCommand | None) -> str | None:
        if command is not None and command.action == "install":
            return command.version or self._memory.latest
        return None

    async def _check(self) -> None:
        """Look for a new version; a source that can't be had is no failed update."""
        await self._report.say("checking")
        try:
            await self._look()
        except UpdateError as error:
            self._remember(checked=self._now().timestamp())
            _log.warning("no look for updates: %s", error)
            await self._report.say_trouble("idle", str(error))
        else:
            await self._report.say("idle", detail=self._summary())

    async def _look(self) -> Index:
        async with opened(self._settings) as source:
            index = await self._staging.look(source)
        newest = index.releases[0].version if index.releases else self._installed
        self._remember(latest=newest, checked=self._now().timestamp())
        return index

    async def _install(self, version: str | None, *, downgrade: bool) -> None:
        await self._report.say("checking", version=version)
        index = await self._look()
        release = index.find(version)
        if release.version == self._installed:
            raise RefusedError(f"version {release.version} is what runs")
        if not downgrade and not is_newer(release.version, self._installed):
            raise RefusedError(f"version {release.version} is older than {self._installed}: ask for a downgrade")
        attempt = Attempt(
            version=release.version,
            former=self._installed,
            boot=await self._host.boot(),
            started=datetime.now(UTC).timestamp(),
        )
        self._remember(
            skipped=tuple(known for known in self._memory.skipped if known != release.version),
            wish=Wish(version=release.version, downgrade=downgrade),
        )
        try:
            async with opened(self._settings) as source:
                await self._installation(attempt).bring(source, index, release)
        except UpdateError:
            self._remember(wish=None)
            raise
        await self._attempt(attempt)

    async def _go_back(self) -> None:
        await self._read_other_slot()
        if self._report.previous is None:
            raise RefusedError("there is no earlier version to go back to: the other slot has none that came up")
        attempt = Attempt(
            version=self._report.previous,
            former=self._installed,
            boot=await self._host.boot(),
            started=datetime.now(UTC).timestamp(),
            back=True,
        )
        await self._attempt(attempt)

    async def _attempt(self, attempt: Attempt) -> None:
        installation = self._installation(attempt)
        try:
            await installation.install()
            await installation.restart()
        except UpdateError as error:
            self._remember(wish=None)
            self._notebook.settle(attempt, "failed", str(error))
            raise
        await self._read_other_slot()
        raise InstallError(_NO_RESTART)

    def _installation(self, attempt: Attempt) -> Installation:
        return Installation(
            attempt,
            host=self._host,
            report=self._report,
            staging=self._staging,
            notebook=self._notebook,
            paths=self._paths,
            slots=self._slots,
            quiet=self._settings.quiet,
            look=self._rhythm.look,
        )

    # ---- what was begun before this start

    async def _settle(self) -> None:
        """Find out what became of an update that was under way when this process ended."""
        attempt = self._notebook.attempt
        if attempt is None:
            await self._report.say("idle", detail=self._summary())
            return
        self._remember(wish=None)  # it is the attempt now
        try:
            same_boot = attempt.boot == await self._host.boot()
        except UpdateError as error:
            _log.warning("update: %s", error)
            same_boot = False
        if self._installed == attempt.version:
            await self._verify(attempt)
        elif same_boot:
            await self._resume(attempt)
        else:
            await self._report_rollback(attempt)

    async def _resume(self, attempt: Attempt) -> None:
        """Go on where this process ended before the restart."""
        installation = self._installation(attempt)
        try:
            await installation.resume()
            await installation.restart()
        except UpdateError as error:
            await self._fail(attempt, str(error))
        else:
            await self._report.say_trouble("failed", _NO_RESTART, version=attempt.version)

    async def _verify(self, attempt: Attempt) -> None:
        """Wait until this boot is known to be good. If it is not, the machine restarts meanwhile."""
        await self._report.say("verifying", version=attempt.version, progress=0.97, detail="is everything up again?")
        loop = asyncio.get_running_loop()
        end = loop.time() + _VERIFY_SECONDS
        while loop.time() < end:
            with suppress(UpdateError):
                if (await self._host.unit(COMPLETE_UNIT)).active == "active":
                    break
            await asyncio.sleep(self._rhythm.look)
        else:
            reason = self._reason(attempt.version) or "the boot did not come to its end"
            await self._fail(attempt, f"version {attempt.version} runs, but is not healthy: {reason}")
            return
        _log.info("version %s is up and healthy", attempt.version)
        self._notebook.settle(attempt, "went_back" if attempt.back else "installed")
        left = (attempt.former,) if is_newer(attempt.former, attempt.version) else ()
        self._remember(skipped=(*self._memory.skipped, *left))
        self._staging.keep_only(None)
        await self._report.say("idle", detail=f"version {attempt.version} is up and healthy")

    async def _report_rollback(self, attempt: Attempt) -> None:
        reason = self._reason(attempt.version) or "it did not come up within its tries"
        error = f"version {attempt.version} did not come up healthy: {reason}"
        _log.error("%s; version %s runs again", error, self._installed)
        self._notebook.settle(attempt, "rolled_back", error)
        self._remember(skipped=(*self._memory.skipped, attempt.version))
        self._staging.keep_only(None)
        await self._report.say_trouble("rolled_back", error, version=attempt.version)

    async def _fail(self, attempt: Attempt, error: str) -> None:
        _log.error("update: %s", error)
        self._notebook.settle(attempt, "failed", error)
        await self._report.say_trouble("failed", error, version=attempt.version)

    def _reason(self, version: str) -> str | None:
        failure = records.read(self._paths.own / FAILURE, records.Failure)
        return failure.reason if failure is not None and failure.version == version else None

    # ---- what is known

    def _summary(self) -> str:
        latest = self._memory.latest
        if latest is None:
            return "nobody has looked for updates yet" if self._settings.source else "no source of updates is set"
        if not is_newer(latest, self._installed):
            return "there is no newer version"
        if latest in self._memory.skipped:
            return f"version {latest} is there, and was left or did not work here; it is installed when asked for"
        return f"version {latest} can be installed"

    def _remember(
        self,
        *,
        latest: str | None = None,
        checked: float | None = None,
        skipped: tuple[str, ...] | None = None,
        wish: Wish | Literal["as it was"] | None = "as it was",
    ) -> None:
        known = self._memory
        self._memory = Memory(
            latest=latest or known.latest,
            checked=checked if checked is not None else known.checked,
            skipped=tuple(dict.fromkeys(known.skipped if skipped is None else skipped))[-100:],
            wish=known.wish if wish == "as it was" else wish,
        )
        self._report.latest, self._report.checked = self._memory.latest, self._memory.checked
        if self._memory != known:
            self._paths.staged.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._notebook.remember(self._memory)

    async def _read_other_slot(self) -> None:
        try:
            there = (await asyncio.to_thread(self._slots)).versions - {self._installed}
        except UpdateError as error:
            _log.debug("the slots are not known: %s", error)
            there = frozenset()
        self._report.previous = next((version for version in there if came_up(self._paths, version)), None)
